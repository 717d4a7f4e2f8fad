"""Which kind a model's outputs are, by evidence: the rows, the operation that made them, labels, other parameters.

Never from one row alone where that could be chance; what was found says why, unless outputs and labels prove it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explain.outputs.labels import Form, label_form
from explain.outputs.meaning import Kind, Meaning, check_kind

ENOUGH = 20  # rows that all lie in [0, 1], or sum to 1, are no chance any more
REMEDY = "say which: explain.wrap(..., outputs='logits' | 'probabilities' | 'log_probabilities' | 'values')"
_SAID = {"reals": "real numbers, not only 0 and 1", "whole": "whole numbers above 1 for a single output"}
_PROBABILITY = ("sigmoid", "sigmoid_", "_softmax", "hardsigmoid", "hardsigmoid_")
_LOG_PROBABILITY = ("log_sigmoid_forward", "_log_softmax")
_UNBOUNDED = {  # nothing keeps these within [0, 1]: where results lie there, that is chance or the data's doing
    *("addmm", "mm", "bmm", "baddbmm", "mv", "dot", "convolution", "linear", "einsum", "_sparse_mm", "cumsum"),
    *("sum", "add", "add_", "mul", "mul_", "sub", "sub_", "index_add", "index_add_", "scatter_add", "scatter_add_"),
    *("scatter_reduce", "scatter_reduce_", "segment_reduce", "native_batch_norm", "native_layer_norm"),
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "elu", "elu_", "gelu", "silu", "softplus", "tanh", "tanh_"),
}


def unsettled(outputs: Tensor) -> bool:
    """Whether more rows would tell more: these are few, and could be probabilities or their logarithms."""
    return len(outputs) < ENOUGH and (_within(outputs) or float(outputs.max()) <= 0)


def meaning_of(
    outputs: Tensor, operation: str | None = None, labels: Tensor | None = None, *, given: str | None = None,
    loss: Any = None, elsewhere: Callable[[], Tensor | None] = lambda: None,
) -> Meaning:  # fmt: skip
    """What these rows ``[rows, outputs]`` mean.

    Args:
        outputs: answers of the model, the more the better.
        operation: the last operation of the forward pass, as `LastOperation` saw it.
        labels: what the model was trained on, where it is known.
        given: what the user said, one of `KINDS`.
        loss: the user's ``loss=``: "bce" over several outputs makes each a yes or no of its own.
        elsewhere: answers of the same model with other parameters, see `redrawn`; asked where the rows look like
            probabilities and the operation is no proof.

    Raises:
        ValueError: what was given does not fit what the model answers.
    """
    count, form = outputs.size(1), label_form(labels, outputs.size(1))
    hot = labels is not None and form == "multi_hot" and labels[0].numel() == count
    apart = count > 1 and (loss == "bce" or (hot and loss != "cross_entropy"))
    if given is not None:
        return Meaning(_checked(given, outputs), count, _exclusive(given, outputs, apart))
    kind, exclusive, why = _shown(outputs, operation, elsewhere)
    if form == "reals" or (form == "whole" and kind is None):
        return Meaning("values", count, False, f"values: labels are {_SAID[form]}")
    if loss in ("mse", "mae", "huber", "poisson"):
        return Meaning("values", count, False, f"values: loss={loss!r}")
    if kind is not None:
        return Meaning(kind, count, exclusive, f"{kind}: {why}")
    return Meaning("logits", count, not apart, _why_logits(outputs, operation, form, apart, why))


def _shown(
    outputs: Tensor, operation: str | None, elsewhere: Callable[[], Tensor | None]
) -> tuple[Kind | None, bool, str]:
    """Whether rows show that they are probabilities, whether these exclude one another, and why (not)."""
    rows, alone = len(outputs), outputs.size(1) == 1
    drawn = elsewhere() if _looks_likely(outputs, operation) else None
    if drawn is not None:
        return _bounded(outputs, drawn)
    by_chance = rows < ENOUGH and operation in _UNBOUNDED
    if not by_chance and _sums_to_one(outputs):
        return "probabilities", True, f"{_rows(rows)} of outputs in [0, 1] that sum to 1"
    if not by_chance and _sums_to_one(outputs.exp()):
        return "log_probabilities", True, f"exp of {_rows(rows)} sums to 1"
    each = "" if alone else ", each output by itself: rows do not sum to 1"
    if operation in _PROBABILITY and _within(outputs):
        return "probabilities", alone, f"the model ends in {operation.strip('_')}{each}"
    if operation in _LOG_PROBABILITY and float(outputs.max()) <= 0:
        return "log_probabilities", alone, f"the model ends in a log-probability{each}"
    if _within(outputs) and operation not in _UNBOUNDED and rows >= ENOUGH:
        return "probabilities", alone, f"all of {rows} rows lie in [0, 1]{each}; else {REMEDY}"
    return None, False, ""


def _looks_likely(outputs: Tensor, operation: str | None) -> bool:
    """Whether these may be probabilities, and the operation that made them does not prove it."""
    alike = _within(outputs) or _sums_to_one(outputs.exp())
    return alike and operation not in _PROBABILITY and operation not in _LOG_PROBABILITY


def _bounded(outputs: Tensor, drawn: Tensor) -> tuple[Kind | None, bool, str]:
    """`_shown` by what stays true of the outputs ``drawn`` with other parameters."""
    alone, said = outputs.size(1) == 1, f"{_rows(len(outputs))}, and with other parameters too"
    if _sums_to_one(outputs) and _sums_to_one(drawn):
        return "probabilities", True, f"in [0, 1] with sum 1 in {said}"
    if _sums_to_one(outputs.exp()) and _sums_to_one(drawn.exp()):
        return "log_probabilities", True, f"exp sums to 1 in {said}"
    if _within(outputs) and _within(drawn, 1e-5):
        return "probabilities", alone, f"in [0, 1] in {said}{'' if alone else ', each output by itself'}"
    return None, False, "in [0, 1] here, with other parameters not"


def _why_logits(outputs: Tensor, operation: str | None, form: Form, apart: bool, why: str) -> str | None:
    """What was assumed in reading logits; None where outputs and labels prove it."""
    if apart:
        return "logits, each output a yes or no of its own: rows of labels hold several ones or none"
    if why:
        return f"logits: {why}; else {REMEDY}"
    if _within(outputs):
        few = operation not in _UNBOUNDED  # else they would have been taken for probabilities
        why = f"{_rows(len(outputs))} in [0, 1] do not show" if few else "nothing in forward keeps them in [0, 1]: no"
        return f"logits: {why} probabilities; else {REMEDY}"
    if outputs.size(1) == 1:
        if form == "none":
            return "logits: one output without labels is read as a classifier's; of a regressor outputs='values'"
        return "logits: labels are -1 and 1" if form == "signs" else None
    if form in ("classes", "one_hot", "soft"):
        return None
    return "logits of classes that exclude one another (a softmax): no labels say otherwise"


def _checked(given: str, outputs: Tensor) -> Kind:
    check_kind(given)
    low, high = float(outputs.min()), float(outputs.max())
    if given == "probabilities" and not _within(outputs):
        raise ValueError(f"outputs='probabilities' lie in [0, 1], the model answers {low:.3g} to {high:.3g}: {REMEDY}")
    if given == "log_probabilities" and high > 1e-6:
        raise ValueError(f"outputs='log_probabilities' are at most 0, the model answers up to {high:.3g}: {REMEDY}")
    return given  # type: ignore[return-value]  # it is one of them


def _exclusive(given: str, outputs: Tensor, apart: bool) -> bool:
    if given == "logits":
        return not apart
    if given == "values":
        return False
    return outputs.size(1) == 1 or _sums_to_one(outputs if given == "probabilities" else outputs.exp())


def _within(outputs: Tensor, tolerance: float = 0.0) -> bool:
    return bool(((outputs >= -tolerance) & (outputs <= 1 + tolerance)).all())


def _sums_to_one(outputs: Tensor) -> bool:
    near = max(1e-5, 8 * torch.finfo(outputs.dtype).eps)
    off = (outputs.double().sum(1) - 1).abs()
    return outputs.size(1) > 1 and bool((outputs >= 0).all()) and float(off.max()) <= near


def _rows(count: int) -> str:
    return "one row" if count == 1 else f"{count} rows"
