"""The losses of each example, ``(what they take [n, outputs], labels [n, ...]) -> [n]``, and that from the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.outputs import Meaning

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Link: TypeAlias = Callable[[Tensor], Tensor]


def itself(outputs: Tensor) -> Tensor:
    """The link of a loss that takes the outputs as they are."""
    return outputs


def function_of(name: str, meaning: Meaning, labels: Tensor) -> Function:
    """The loss of each example; the mean over outputs where there are several, as torch takes it."""
    if name == "cross_entropy":
        return cross_entropy if _softmaxed(meaning) else own_cross_entropy
    if name == "brier" and not meaning.binary:
        return brier
    if name in ("bce", "brier"):
        each = binary_cross_entropy if name == "bce" else binary_brier
        # over several tasks the trained mean is over the labels that there are, not over all n * outputs
        known = float((~labels.isnan()).double().mean()) if labels.is_floating_point() else 1.0
        return lambda taken, y: each(taken, y) / known
    if name == "hinge":
        even = 0.0 if meaning.kind == "logits" else 0.5
        return lambda outputs, y: (1 - (2 * y.reshape(-1) - 1) * (outputs[:, 0] - even)).relu()
    return multi_margin if name == "multi_margin" else of_values(name)


def link_of(name: str, meaning: Meaning) -> Link:
    """From outputs to what the loss of them takes, in which it is convex: logits, or of the Brier score probabilities.

    -log p is convex in p, in log p and in the logits, and ``J^T H J`` another matrix in each: it is that of the logits,
    which log p are up to a constant.
    """
    if name == "brier":
        return _probabilities(meaning)
    if name not in ("cross_entropy", "bce") or meaning.kind == "logits":
        return itself
    if name == "cross_entropy" and _softmaxed(meaning):
        return _log if meaning.kind == "probabilities" else itself
    return _log_odds if meaning.kind == "probabilities" else _log_odds_of_logs


def _softmaxed(meaning: Meaning) -> bool:
    return meaning.kind == "logits" or meaning.exclusive


def _probabilities(meaning: Meaning) -> Link:
    if meaning.kind == "logits":
        return torch.sigmoid if meaning.binary else lambda logits: logits.softmax(-1)
    return torch.exp if meaning.kind == "log_probabilities" else itself


def _log(p: Tensor) -> Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def _log_odds(p: Tensor) -> Tensor:
    return _log(p) - _log(1 - p)


def _log_odds_of_logs(log_p: Tensor) -> Tensor:
    return log_p - _log(-log_p.expm1())


def of_values(name: str) -> Function:
    """One of `OF_VALUES`, ``(outputs [n, ...], labels) -> [n]``: the mean over the numbers of each example.

    >>> of_values("mae")(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]))
    tensor([2.])
    """
    pointwise: Function = {
        "mse": lambda outputs, y: (outputs - y).square(),
        "mae": lambda outputs, y: (outputs - y).abs(),
        "huber": lambda outputs, y: F.huber_loss(outputs, y, reduction="none"),
        "poisson": lambda outputs, y: outputs.exp() - y * outputs,
    }[name]
    return lambda outputs, y: pointwise(outputs, y.reshape(outputs.shape).to(outputs.dtype)).flatten(1).mean(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log p(label)``, or ``-sum_c label_c log p(c)`` for labels ``[n, outputs]``, with ``p = softmax(logits)``."""
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    return F.cross_entropy(logits, labels, reduction="none")


def own_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The same with ``p = sigmoid(logits)``, each output by itself."""
    logs = -F.softplus(-logits)
    if labels.dim() == 1:
        return -logs.gather(1, labels[:, None])[:, 0]
    return -(labels.to(logits.dtype) * logs).sum(1)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``-y log p - (1 - y) log(1 - p)`` of ``p = sigmoid(logits)``, mean over the outputs; NaN labels count nothing."""
    y = labels.reshape(len(labels), -1).to(logits.dtype)
    if not labels.is_floating_point():
        return F.softplus((1 - 2 * y) * logits).mean(1)
    known = y.nan_to_num()
    each = known * F.softplus(-logits) + (1 - known) * F.softplus(logits)
    return torch.where(y.isnan(), 0.0, each).mean(1)


def brier(p: Tensor, labels: Tensor) -> Tensor:
    """``sum_c (p(c) - 1[c = label])^2`` of probabilities that exclude one another, or of labels ``[n, outputs]``.

    >>> brier(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([0]))
    tensor([0.3750])
    """
    hot = labels if labels.is_floating_point() else F.one_hot(labels, p.size(1))
    return (p - hot.to(p.dtype)).square().sum(1)


def binary_brier(p: Tensor, labels: Tensor) -> Tensor:
    """``(p - y)^2``, mean over the outputs; NaN labels count nothing."""
    y = labels.reshape(len(labels), -1).to(p.dtype)
    return torch.where(y.isnan(), 0.0, (p - y.nan_to_num()).square()).mean(1)


def multi_margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """``(1/C) sum over c != label of max(0, 1 - z(label) + z(c))`` of ``C`` outputs z, as torch's ``MultiMarginLoss``.

    >>> multi_margin(torch.tensor([[0.5, 0.0, -1.0]]), torch.tensor([0]))
    tensor([0.1667])
    """
    reach = (1 + outputs - outputs.gather(1, labels[:, None])).relu()
    return (reach.sum(1) - 1) / outputs.size(1)  # the label reaches 1 above itself


def focal(name: str, gamma: float) -> Function:
    """``-(1 - p)^gamma log p`` of the label's p instead of "cross_entropy" or "bce" (Lin et al. 2017)."""

    def focused(losses: Tensor) -> Tensor:
        return (-(-losses).expm1()).clamp_min(torch.finfo(losses.dtype).tiny) ** gamma * losses

    def each_output(logits: Tensor, labels: Tensor) -> Tensor:
        losses = binary_cross_entropy(logits.reshape(-1, 1), labels.reshape(-1))
        return focused(losses).view(len(logits), -1).mean(1)

    return each_output if name == "bce" else lambda logits, labels: focused(cross_entropy(logits, labels))
