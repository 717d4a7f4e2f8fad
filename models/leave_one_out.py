"""Leave-one-out retraining of a network by stochastic gradients, all retrainings at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from tqdm.auto import tqdm

from explain.types import Parameters


@dataclass(frozen=True)
class Retraining:
    """Stochastic gradients with momentum from where the network stands, the step size falling linearly to zero.

    Args:
        steps: batches seen.
        lr: the first step size.
        batch_size: examples a step; each epoch goes through all of them once.
        momentum: of Polyak.
    """

    steps: int
    lr: float = 0.02
    batch_size: int = 100
    momentum: float = 0.9


def retrained(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    removed: Sequence[int | None],
    recipe: Retraining,
    *,
    weight_decay: float,
    seed: int,
    together: int = 8,
    progress: bool = False,
) -> Parameters:
    """Parameters ``[len(removed), ...]``, each retrained without the loss of one example, or of none for None.

    All start from the module's own parameters and see the same batches in the same order, so that two of them differ
    by the example alone; the number of examples is kept fixed. ``J = mean cross-entropy + weight_decay/2 |theta|^2``.

    Args:
        module: of logits; stays as it is.
        inputs: ``[n, ...]``.
        labels: ``[n]``.
        removed: the example each retraining does without.
        recipe: how.
        weight_decay: as in ``torch.optim.SGD``.
        seed: of the order of the batches.
        together: retrainings in one call of the network.
        progress: shows tqdm.
    """
    start = {name: p.detach() for name, p in module.named_parameters()}
    absent = torch.tensor([-1 if example is None else example for example in removed])

    def loss(params: Parameters, weights: Tensor, batch: Tensor) -> Tensor:
        found = F.cross_entropy(functional_call(module, params, (inputs[batch],)), labels[batch], reduction="none")
        return (weights * found).mean()

    gradients = vmap(grad(loss), (0, 0, None))
    parts: list[Parameters] = []
    with tqdm(total=recipe.steps * len(absent), desc="retraining", disable=not progress) as bar:
        for some in absent.split(together):
            params = {name: p.expand(len(some), *p.shape).clone() for name, p in start.items()}
            speed = {name: torch.zeros_like(p) for name, p in params.items()}
            for step, batch in enumerate(_batches(len(inputs), recipe, seed)):
                found = gradients(params, (batch != some[:, None]).to(inputs), batch)
                lr = recipe.lr * (1 - step / recipe.steps)
                for name, p in params.items():
                    speed[name].mul_(recipe.momentum).add_(found[name] + weight_decay * p)
                    p.sub_(speed[name], alpha=lr)
                bar.update(len(some))
            parts.append(params)
    return {name: torch.cat([params[name] for params in parts]) for name in start}


def _batches(count: int, recipe: Retraining, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < recipe.steps:
        found += torch.randperm(count, generator=generator).split(recipe.batch_size)
    return found[: recipe.steps]
