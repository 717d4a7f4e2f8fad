"""What a model's outputs mean: logits, probabilities or log-probabilities of classes, or plain values.

It is read off the model's own answers and the operation that made them, or given by the user; never from one row alone
where that could be chance. Everything that turns outputs into a class or a number goes through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kind: TypeAlias = Literal["logits", "probabilities", "log_probabilities", "values"]
KINDS: tuple[str, ...] = get_args(Kind)
PayoffName: TypeAlias = Literal["logit", "probability", "log_probability", "loss", "value"]
Form: TypeAlias = Literal["none", "classes", "signs", "one_hot", "multi_hot", "soft", "whole", "reals"]
ENOUGH = 20  # rows that all lie in [0, 1], or sum to 1, are no chance any more
SPREADS = (1.0, 10.0, 100.0, 1000.0) * 2  # of parameters drawn anew, in sizes of the trained ones
REMEDY = "say which: explain.wrap(..., outputs='logits' | 'probabilities' | 'log_probabilities' | 'values')"
_PROBABILITY = ("sigmoid", "sigmoid_", "_softmax", "hardsigmoid", "hardsigmoid_")
_LOG_PROBABILITY = ("log_sigmoid_forward", "_log_softmax")
_UNBOUNDED = {  # nothing keeps these within [0, 1]: where results lie there, that is chance or the data's doing
    *("addmm", "mm", "bmm", "baddbmm", "mv", "dot", "convolution", "linear", "einsum", "_sparse_mm", "cumsum"),
    *("sum", "add", "add_", "mul", "mul_", "sub", "sub_", "index_add", "index_add_", "scatter_add", "scatter_add_"),
    *("scatter_reduce", "scatter_reduce_", "segment_reduce", "native_batch_norm", "native_layer_norm"),
    *("relu", "relu_", "leaky_relu", "leaky_relu_", "elu", "elu_", "gelu", "silu", "softplus", "tanh", "tanh_"),
}
_COPIES = {
    *("cat", "stack", "clone", "_to_copy", "copy_", "index", "index_select", "select_copy", "gather"),
    "constant_pad_nd",
}


@dataclass(frozen=True)
class Meaning:
    """What the ``count`` outputs of a row are.

    Args:
        kind: see `KINDS`. One output of a classifier is that of class 1; "values" have no classes.
        count: outputs a row.
        exclusive: the classes exclude one another (softmax); otherwise each output is a yes or no of its own (sigmoid).
        assumed: how it was found; None where it was given, or follows from outputs and labels.

    >>> sigmoid = Meaning("probabilities", 1)
    >>> sigmoid.predicted(torch.tensor([0.3])), sigmoid.own(torch.tensor([[0.25]]), 0)
    (0, tensor([0.7500]))
    """

    kind: Kind
    count: int
    exclusive: bool = True
    assumed: str | None = None

    def told(self, payoff: Any, output: str | None = None) -> dict[str, str]:
        """What was assumed about the outputs that bears on a payoff, and about which part of the answer they are."""
        itself = self.kind == "logits" and self.count > 1 and payoff in ("logit", "value")  # whatever the others are
        return {
            name: said for name, said in (("outputs", None if itself else self.assumed), ("output", output)) if said
        }

    def turned(self, label: int | None, payoff: Any) -> str | None:
        """What the number of class 0 is to a classifier's one output, that of class 1; None of any other number.

        >>> Meaning("logits", 1).turned(0, "logit")
        "0, the predicted class: the number is minus the model's output, label=1 asks for the output itself"
        """
        if self.count > 1 or label != 0 or not self.classes or callable(payoff):
            return None
        own = {"logits": "minus the model's output", "probabilities": "1 - the model's output"}
        said = own.get(self.kind, "log(1 - exp(the model's output))")
        if payoff not in ("value", self.default_payoff):
            return f"0, the predicted class: the number is its {payoff}, the model's output is that of class 1"
        return f"0, the predicted class: the number is {said}, label=1 asks for the output itself"

    @property
    def classes(self) -> int:
        """How many classes there are; 0 for values."""
        return 0 if self.kind == "values" else max(self.count, 2)

    @property
    def binary(self) -> bool:
        """Whether an output is read by itself against its own complement."""
        return self.count == 1 or not self.exclusive

    @property
    def default_payoff(self) -> PayoffName:
        """The name of the model's own number."""
        names: dict[Kind, PayoffName] = {
            "logits": "logit",
            "probabilities": "probability",
            "log_probabilities": "log_probability",
            "values": "value",
        }
        return names[self.kind]

    def own(self, outputs: Tensor, label: int | None) -> Tensor:
        """The model's own number for a class, ``[rows, outputs] -> [rows]``; of values, the output ``label``."""
        if self.kind == "values" or self.count > 1:
            return outputs[:, label or 0]
        found = outputs[:, 0]
        if label:
            return found
        return {"logits": torch.neg, "probabilities": lambda p: 1 - p, "log_probabilities": log1mexp}[self.kind](found)

    def log_probability(self, outputs: Tensor, label: int, least: float = 0.0) -> Tensor:
        """``log p(label)`` of each row; probabilities below ``least`` count as that."""
        own = self.own(outputs, label)
        if self.kind == "logits":
            return F.logsigmoid(own) if self.binary else outputs.log_softmax(1)[:, label]
        return own.clamp_min(least).log() if self.kind == "probabilities" else own

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """``log p`` of every class, ``[rows, outputs] -> [rows, classes]``."""
        return torch.stack([self.log_probability(outputs, label) for label in range(self.classes)], 1)

    def divergence(self, row: Tensor, outputs: Tensor) -> Tensor:
        """``KL(p || q)`` of what ``row`` ``[1, outputs]`` says from what each of these says, 0 to infinity, ``[rows]``.

        Of several yes or no the sum over each: they are distributions of their own, which need not sum to 1.
        """
        log_p, log_q = self.log_probabilities(row), self.log_probabilities(outputs)
        found = _relative(log_p, log_q)
        return found if self.exclusive or self.count == 1 else found + _relative(log1mexp(log_p), log1mexp(log_q))

    def standard(self, outputs: Tensor, label: int | None) -> tuple[Tensor, int | None]:
        """For those that take a softmax of several columns or a sigmoid of one: such logits, and the label in them.

        Of values the one that is meant, ``[rows, 1]``, and no label.
        """
        if self.kind == "values" or label is None:
            return self.own(outputs, label)[:, None], None
        if self.binary:
            return self.log_odds(outputs, 1 if self.count == 1 else label)[:, None], label if self.count == 1 else 1
        return self.log_probabilities(outputs) if self.kind == "probabilities" else outputs, label

    def log_odds(self, outputs: Tensor, label: int) -> Tensor:
        """The logit: the model's own where it has them, else ``log p - log(1 - p)``."""
        own = self.own(outputs, label)
        if self.kind == "probabilities":
            return own.log() - (1 - own).log()
        return own - log1mexp(own) if self.kind == "log_probabilities" else own

    def predicted(self, row: Tensor) -> int:
        """The class of one row ``[outputs]``: the largest output, or on which side of even odds a single one is."""
        return int(row.argmax()) if self.count > 1 else int(row.reshape(()) > self._even)

    def decides(self, outputs: Tensor, label: int) -> Tensor:
        """Which rows are decided for a class, bool ``[rows]``; of several yes or no, where ``label`` gets a yes."""
        if not self.binary:
            return outputs.argmax(1) == label
        yes = outputs[:, label if self.count > 1 else 0] > self._even
        return yes if label or self.count > 1 else ~yes

    def margin(self, outputs: Tensor, label: int) -> Tensor:
        """Above zero in the rows that are decided for a class, ``[rows]``, in the outputs' own units."""
        if self.binary:
            found = outputs[:, label if self.count > 1 else 0] - self._even
            return found if label or self.count > 1 else -found
        rest = torch.cat([outputs[:, :label], outputs[:, label + 1 :]], 1)
        return outputs[:, label] - rest.max(1).values

    def decision(self, row: Tensor, label: int | None) -> tuple[int, Callable[[Tensor], Tensor]]:
        """What is decided in this row, and a function of outputs that stays above zero as long as that stands.

        Of exclusive classes which one it is; of several yes or no what the model says to ``label``.
        """
        chosen = self.predicted(row) if self.exclusive or label is None else label
        sign = 1.0 if self.exclusive or float(self.margin(row[None], chosen)) > 0 else -1.0
        return chosen, lambda outputs: sign * self.margin(outputs, chosen)

    @property
    def _even(self) -> float:
        return {"logits": 0.0, "probabilities": 0.5, "log_probabilities": math.log(0.5), "values": 0.0}[self.kind]


def _relative(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``sum p (log p - log q)``; what has no chance under p adds nothing."""
    return (log_p.exp() * (log_p - log_q)).where(log_p.exp() > 0, 0.0).sum(1)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``."""
    return torch.where(x > -math.log(2), (-x.expm1()).log(), (-x.exp()).log1p())


def label_form(labels: Tensor | None, count: int) -> Form:
    """What labels ``[n]``, ``[n, 1]`` or ``[n, outputs]`` are; NaN are left out.

    >>> label_form(torch.tensor([0.0, 1.0, 1.0]), 1), label_form(torch.tensor([0.5, -2.0]), 1)
    ('classes', 'reals')
    """
    if labels is None or not labels.numel():
        return "none"
    wide = labels.reshape(len(labels), -1) if labels.dim() > 1 else labels[:, None]
    known = wide[~wide.isnan()] if wide.is_floating_point() else wide.reshape(-1)
    if not len(known):
        return "none"
    low, high = float(known.min()), float(known.max())
    zero_one = labels.dtype == torch.bool or bool(((known == 0) | (known == 1)).all())
    whole = zero_one or bool((known == known.round()).all())
    if wide.size(1) > 1:
        if zero_one:
            return "one_hot" if wide.size(1) == count and bool((wide.double().sum(1) == 1).all()) else "multi_hot"
        even = wide.double().nan_to_num().sum(1)
        return "soft" if low >= 0 and torch.allclose(even, torch.ones_like(even), atol=1e-4) else "reals"
    if zero_one:
        return "classes"
    if count == 1:
        if whole and low == -1 and high == 1 and bool((known != 0).all()):
            return "signs"
        return "reals" if labels.is_floating_point() else "whole" if high > 1 else "classes"
    return "classes" if not labels.is_floating_point() or (whole and 0 <= low <= high < count) else "reals"


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


def redrawn(params: Mapping[str, Tensor], answers: Callable[[dict[str, Tensor]], Tensor]) -> Tensor | None:
    """What a model answers with parameters drawn at random, ``[rows, outputs]``: bounds that hold there are its own.

    Each is normal, of mean zero and 1 to 1000 times the size of the trained one. None where nothing can be told: no
    parameters, a forward that fails with them, or one answer whatever they are.

    >>> redrawn({"w": torch.ones(1)}, lambda p: (p["w"] * torch.eye(2)).sigmoid()).aminmax().max <= 1
    tensor(True)
    """
    generator, found = torch.Generator().manual_seed(0), []
    for spread in SPREADS:
        drawn = {
            name: (torch.randn(p.shape, generator=generator) * spread * max(float(p.square().mean().sqrt()), 0.1)).to(p)
            for name, p in params.items()
            if p.is_floating_point() and p.numel()
        }
        try:
            rows = answers(drawn) if drawn else None
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError):
            return None
        if rows is None:
            return None
        found.append(rows[rows.isfinite().all(1)])
    every = torch.cat(found)
    alike = all(torch.equal(rows, found[0]) for rows in found) or bool((every == every[:1]).all())
    return None if alike or not len(every) else every


_SAID = {"reals": "real numbers, not only 0 and 1", "whole": "whole numbers above 1 for a single output"}


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


def check_kind(given: str | None) -> None:
    """Raises ValueError where this is not one of `KINDS`, or None."""
    if given is not None and given not in KINDS:
        raise ValueError(f"outputs must be one of {', '.join(KINDS)} or None, got {given!r}")


def column_count(labels: Tensor | None) -> int | None:
    """How many outputs labels speak of: their columns, or their classes; None where they do not say."""
    if labels is None or not labels.numel():
        return None
    wide = labels.reshape(len(labels), -1)
    if wide.size(1) > 1:
        return wide.size(1)
    if labels.is_floating_point():
        return 1
    return int(labels.max()) + 1


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


class LastOperation(TorchDispatchMode):
    """Remembers which operation wrote each tensor: within, ``of(tensor)`` names the last one, views and copies aside.

    >>> with LastOperation() as last:
    ...     found = torch.zeros(2, 3).softmax(1)[:, 1]
    >>> last.of(found)
    '_softmax'
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: dict[int, str | None] = {}

    def of(self, tensor: Tensor) -> str | None:
        """The operation that wrote what this tensor shows."""
        return self._written.get(_place(tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor) and part.is_floating_point()]
        if name in _COPIES:
            before = {self.of(part) for part in (given[-1:] if name == "copy_" else given)}
            name = before.pop() if len(before) == 1 else None
        seen = {_place(part) for part in given}
        for part in tree_leaves(found):
            if isinstance(part, Tensor) and (
                _place(part) not in seen or func._schema.is_mutable
            ):  # a view writes nothing
                self._written[_place(part)] = name
        return found


def _place(tensor: Tensor) -> int:
    """Where its numbers are; sparse ones are nobody's outputs."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0
