"""Seeded training of a node classifier to the optimum of a stated objective."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from tqdm.auto import tqdm

from explain.guard import random_states_kept
from models.layers import same_data


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: ``epochs`` of full-batch Adam, then up to ``polish`` steps of L-BFGS.

    Args:
        epochs: passes over the training nodes; lr: Adam's.
        lr: Adam's step size.
        weight_decay: the penalty ``weight_decay/2 |theta|^2`` over all parameters, as in ``torch.optim.SGD``.
        patience: stop after so many epochs in which neither loss nor accuracy on the validation nodes improved.
        polish: L-BFGS steps towards a zero gradient, for which influence functions ask. Needs a loss without dropout.
        every: the validation nodes are looked at after so many epochs each.
    """

    epochs: int
    lr: float
    weight_decay: float
    patience: int | None = None
    polish: int = 0
    every: int = 1


def objective(module: nn.Module, data: Data, weight_decay: float) -> Tensor:
    """``J(theta) = mean cross-entropy of the training nodes + weight_decay/2 |theta|^2``.

    And what the module's paper adds to it, where it has a ``regulariser()`` of its last call in training mode.
    """
    logits = module(data.x, data.edge_index)
    penalty = sum(p.square().sum() for p in module.parameters())
    loss = F.cross_entropy(logits[data.train_mask], data.y[data.train_mask]) + weight_decay / 2 * penalty
    regulariser = getattr(module, "regulariser", None) if module.training else None
    return loss if regulariser is None else loss + regulariser()


def gradient_norm(module: nn.Module, data: Data, weight_decay: float) -> float:
    """``|dJ/dtheta|`` in eval mode: how far from an optimum."""
    module.eval()
    gradients = torch.autograd.grad(objective(module, data, weight_decay), list(module.parameters()))
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def accuracy(module: nn.Module, data: Data, mask: Tensor) -> float:
    """Share of these nodes whose predicted class is the true one, in eval mode."""
    module.eval()
    with torch.no_grad():
        return float((module(data.x, data.edge_index).argmax(1) == data.y)[mask].float().mean())


def train(module: nn.Module, data: Data, recipe: Recipe, *, seed: int, progress: bool = True) -> nn.Module:
    """Train in place and return the module in eval mode, with the weights that did best on the validation nodes.

    Without ``data.val_mask`` there is nothing to select by: the last weights stay. Global random states are kept.
    """
    with random_states_kept(), same_data():
        torch.manual_seed(seed)
        for part in module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
        _adam(module, sparse(data), recipe, progress)
        if recipe.polish:
            _lbfgs(module, data, recipe)
    return module.eval()


def sparse(data: Data) -> Data:
    """The same data, features kept sparse where most are zero: a bag of words trains several times as fast."""
    data = copy.copy(data)
    if data.x.count_nonzero() < 0.1 * data.x.numel():
        data.x = data.x.to_sparse().coalesce()
    return data


def _adam(module: nn.Module, data: Data, recipe: Recipe, progress: bool) -> None:
    optimizer = torch.optim.Adam(module.parameters(), lr=recipe.lr)
    best = _Best(recipe)
    bar = tqdm(range(recipe.epochs), desc=f"training {type(module).__name__}", disable=not progress)
    for epoch in bar:
        module.train()
        optimizer.zero_grad()
        loss = objective(module, data, recipe.weight_decay)
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if "val_mask" in data and not (epoch + 1) % recipe.every and best.enough(module, data):
            break
    best.restore(module)
    module.zero_grad()


def _lbfgs(module: nn.Module, data: Data, recipe: Recipe) -> None:
    """In double precision: in single the loss stops falling where its gradient is still 1e-4."""
    module.eval()  # dropout off: a noisy objective has no optimum to converge to
    dtype, data = data.x.dtype, copy.copy(data)
    module.double()
    data.x = data.x.double()
    optimizer = torch.optim.LBFGS(
        module.parameters(),
        max_iter=recipe.polish,
        tolerance_grad=1e-9,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(module, data, recipe.weight_decay)
        loss.backward()
        return loss

    optimizer.step(closure)
    module.zero_grad()
    module.to(dtype)


class _Best:
    """The weights that did best on the validation nodes, and how long ago."""

    def __init__(self, recipe: Recipe) -> None:
        self.patience, self.every = recipe.patience, recipe.every
        self.loss, self.accuracy, self.waited = float("inf"), 0.0, 0
        self.kept = (0.0, -float("inf"))  # accuracy, then loss, of the weights below
        self.weights: dict[str, Tensor] | None = None

    def enough(self, module: nn.Module, data: Data) -> bool:
        """Look at the validation nodes; True when patience has run out."""
        module.eval()
        with torch.no_grad():
            logits = module(data.x, data.edge_index)[data.val_mask]
        labels = data.y[data.val_mask]
        loss, accuracy = float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())
        if (accuracy, -loss) > self.kept:
            self.kept, self.weights = (accuracy, -loss), copy.deepcopy(module.state_dict())
        improved = loss < self.loss or accuracy > self.accuracy
        self.loss, self.accuracy = min(loss, self.loss), max(accuracy, self.accuracy)
        self.waited = 0 if improved else self.waited + self.every
        return self.patience is not None and self.waited >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Put the best weights back."""
        if self.weights is not None:
            module.load_state_dict(self.weights)
