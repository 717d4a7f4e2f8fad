"""Denoisers trained anew on random halves of the training images, all at once: what influence should predict."""

from __future__ import annotations

import copy
import math
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from tqdm.auto import tqdm

from explain.diffusion.model import DiffusionModel
from explain.types import Parameters
from models import checkpoints, tiny_denoiser
from models.datasets import Images, digits


@dataclass(frozen=True)
class Recipe:
    """What is trained on which halves, and for how long.

    Args:
        images: training images, the first of `models.datasets.digits`.
        subsets: random halves of them.
        seeds: trainings of each half, from different first weights and with different noise.
        hidden: units of `models.tiny_denoiser.TinyDenoiser`; 36 make 5248 parameters.
        iterations: Adam steps, each with all images of the half, a fresh step ``t`` and fresh noise for each image.
        lr: Adam's, a half cosine to zero.
        weight_decay: the penalty ``weight_decay/2 |theta|^2``, as in ``torch.optim.SGD``.
        draws: fixed (step, noise) draws of the loss that influence functions differentiate.
    """

    images: int = 128
    subsets: int = 64
    seeds: int = 3
    hidden: int = 36
    iterations: int = 1500
    lr: float = 3e-3
    weight_decay: float = 1e-4
    draws: int = 16


class Retrained(NamedTuple):
    """``masks`` bool ``[subsets, images]``, and by seed the weights of every half, then of all the images.

    ``weights[seed][name]`` is ``[subsets + 1, *shape]``; ``facts`` say how well the models learned; ``data`` are the
    training images, ``others`` those held out.
    """

    recipe: Recipe
    masks: Tensor
    weights: list[Parameters]
    facts: list[dict[str, Any]]
    data: Images
    others: Images

    def model(self, seed: int = 0, subset: int | None = None) -> DiffusionModel:
        """The denoiser of a seed, trained on one of the halves, or on all images when None; in float32."""
        row = self.recipe.subsets if subset is None else subset
        found = _untrained(self.recipe, seed)
        found.denoiser.float().load_state_dict({f"net.{name}": rows[row] for name, rows in self.weights[seed].items()})
        return found


def halves(count: int, subsets: int, generator: torch.Generator) -> Tensor:
    """Random halves of ``count`` examples, bool ``[subsets, count]``.

    >>> halves(6, 2, torch.Generator().manual_seed(0)).sum(1)
    tensor([3, 3])
    """
    order = torch.rand(subsets, count, generator=generator).argsort(1)
    return order.argsort(1) < count // 2


def load_or_train(
    recipe: Recipe | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Retrained:
    """Every half with every seed, from the cache where they were trained before; a file a seed.

    Args:
        recipe: `Recipe()` when None: 195 models, about a minute of one core.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.
    """
    recipe = recipe or Recipe()
    learned, others = digits()
    data = Images(learned.images[: recipe.images], learned.labels[: recipe.images])
    masks = halves(recipe.images, recipe.subsets, torch.Generator().manual_seed(0))
    weights, facts = [], []
    for seed in range(recipe.seeds):

        def make(seed: int = seed) -> tuple[dict[str, Tensor], dict[str, Any]]:
            return train(recipe, data, masks, seed, progress=progress)

        found = checkpoints.kept("halves", _config(recipe, data, seed), make, folder=folder, fresh=fresh)
        weights.append(found.state)
        facts.append(found.facts)
    return Retrained(recipe, masks, weights, facts, data, others)


def train(
    recipe: Recipe, data: Images, masks: Tensor, seed: int, *, progress: bool = True
) -> tuple[Parameters, dict[str, Any]]:
    """The weights of one seed, ``[subsets + 1, *shape]`` each, and the mean training loss at the end.

    All models see the same first weights, steps and noise, so that they differ by their training images alone.
    """
    model = _untrained(recipe, seed)
    net = model.denoiser.net
    assert isinstance(net, nn.Module)
    net = copy.deepcopy(net).float()
    members = torch.cat([masks, torch.ones_like(masks[:1])]).float()
    members = members / members.sum(1, keepdim=True)

    def loss(params: Parameters, member: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        errors = (functional_call(net, params, (x, t, data.labels)) - noise).square().flatten(1).mean(1)
        penalty = torch.stack([p.square().sum() for p in params.values()]).sum()
        fit = (member * errors).sum()
        return fit + recipe.weight_decay / 2 * penalty, fit

    slopes = vmap(grad(loss, has_aux=True), (0, 0, None, None, None))
    params = {name: p.detach().expand(len(members), *p.shape).clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.Adam(params.values(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: (1 + math.cos(math.pi * i / recipe.iterations)) / 2
    )
    generator = torch.Generator().manual_seed(1000 + seed)
    recent = torch.zeros(len(members))
    for _ in tqdm(range(recipe.iterations), desc=f"training {len(members)} denoisers", disable=not progress):
        noise = torch.randn(data.images.shape, generator=generator)
        t = _spread(len(data.images), model.process.steps, generator)
        gradients, fit = slopes(params, members, model.process.noised(data.images, noise, t), noise, t)
        for name, p in params.items():
            p.grad = gradients[name]
        optimizer.step()
        schedule.step()
        recent = 0.98 * recent + 0.02 * fit
    facts = {"loss_of_halves": float(recent[:-1].mean()), "loss_of_all": float(recent[-1])}
    return {name: p.detach() for name, p in params.items()}, facts


def _spread(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """One step ``t`` an image, spread evenly over the schedule in random order: less noise than independent ones."""
    offset = torch.rand(1, generator=generator)
    even = ((torch.arange(count) + offset) * steps / count).long().clamp_max(steps - 1)
    return even[torch.randperm(count, generator=generator)]


def _untrained(recipe: Recipe, seed: int) -> DiffusionModel:
    return tiny_denoiser.untrained(recipe.hidden, weight_decay=recipe.weight_decay, draws=recipe.draws, seed=seed)


def _config(recipe: Recipe, data: Images, seed: int) -> dict[str, Any]:
    """Everything that the weights hang on."""
    code = sys.modules[__name__], tiny_denoiser
    return checkpoints.origin("halves", code, data, recipe=asdict(recipe), seed=seed)
