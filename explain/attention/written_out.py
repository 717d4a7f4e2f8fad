"""Attention that a network writes out itself: a softmax, followed until it weighs a sum.

Nothing is told by names: weights are what a softmax (or an exponential over a sum) gave, moved and dropped out at most,
that is summed over against something else, and whose rows over the summed axis are proved to add up to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

_T: Any = Tensor  # whose methods are functions to a TorchFunctionMode
_Functions: TypeAlias = set[Callable[..., Any]]
_SOFTMAX: _Functions = {F.softmax, torch.softmax, _T.softmax, torch.special.softmax}
_EXP = {torch.exp, _T.exp, _T.exp_}
_DIVIDED = {torch.div, _T.div, _T.div_, _T.__truediv__, _T.__itruediv__, torch.true_divide}
_DROPPED: _Functions = {F.dropout, torch.dropout, F.alpha_dropout}
_MOVED = {
    *(_T.to, _T.float, _T.half, _T.bfloat16, _T.double, _T.type, _T.type_as, _T.contiguous, _T.clone, torch.clone),
    *(_T.view, _T.reshape, torch.reshape, _T.flatten, torch.flatten, _T.unflatten, _T.expand, _T.expand_as),
    *(_T.transpose, torch.transpose, _T.swapaxes, _T.permute, torch.permute, _T.movedim, torch.movedim),
    *(_T.unsqueeze, torch.unsqueeze, _T.squeeze, torch.squeeze, _T.mT.__get__, _T.T.__get__, _T.t),
    *(_T.nan_to_num, torch.nan_to_num, _T.masked_fill, torch.masked_fill, _T.__getitem__),
}
_PRODUCTS = {torch.matmul, _T.matmul, _T.__matmul__, torch.bmm, _T.bmm, torch.mm, _T.mm}
_TIMES = {torch.mul, _T.mul, _T.__mul__, _T.__rmul__, torch.multiply}
_SUMS = {torch.sum, _T.sum}
KINDS: dict[Callable[..., Any], str] = {
    **dict.fromkeys(_SOFTMAX, "softmax"),
    **dict.fromkeys(_EXP, "exp"),
    **dict.fromkeys(_DIVIDED, "divided"),
    **dict.fromkeys(_DROPPED, "dropped"),
    **dict.fromkeys(_MOVED, "moved"),
    **dict.fromkeys(_PRODUCTS, "product"),
    torch.einsum: "einsum",
    **dict.fromkeys(_TIMES, "times"),
    **dict.fromkeys(_SUMS, "sum"),
}
_BEGIN = {"softmax", "exp"}  # without one of them there is nothing to follow
_SAMPLED = 64  # first and last rows that are proved to add up at each product; `row_sum_error` is of all
_GAP = {torch.float64: 1e-6, torch.float32: 1e-3}  # of a row's sum from 1, by type; others: 2e-2


@dataclass(frozen=True, eq=False)
class Weighed:
    """One product in which softmax weights are summed over.

    Args:
        weights: as they go into it, without dropout.
        keys: the axis that is summed over.
        queries: the axis of the rows; None of one row.
        place: which argument of the product they are.
        values: what they were multiplied with before a plain sum.
    """

    weights: Tensor
    keys: int
    queries: int | None
    place: int
    values: Tensor | None = None

    def rows(self) -> Tensor:
        """``[batch, heads, queries, keys]``, at least float32: the last of the other axes are the heads."""
        axes = {axis % self.weights.dim() for axis in (self.keys, self.queries) if axis is not None}
        others = [axis for axis in range(self.weights.dim()) if axis not in axes]
        wide = torch.promote_types(self.weights.dtype, torch.float32)
        moved = self.weights.detach().to(wide).movedim(self.keys, -1)
        if self.queries is None:
            moved = moved.unsqueeze(-2)
        else:
            queries, keys = (axis % self.weights.dim() for axis in (self.queries, self.keys))
            moved = moved.movedim(queries - (queries > keys), -2)
        lead = [self.weights.size(axis) for axis in others]
        heads = lead[-1] if len(lead) > 1 else 1
        return moved.reshape(-1, heads, *moved.shape[-2:])

    @property
    def one_row(self) -> bool:
        """Whether nothing asks but once: no axis of rows, or one row along it."""
        return self.queries is None or self.weights.size(self.queries) == 1

    def adds_up(self) -> bool:
        """Whether the first and last rows are shares: never negative, with a sum of 1, or of 0 where all is masked."""
        rows = self.weights.detach().movedim(self.keys, -1).flatten(0, -2)
        some = torch.cat([rows[:_SAMPLED], rows[-_SAMPLED:]]).float()
        sums, gap = some.sum(-1), _GAP.get(self.weights.dtype, 2e-2)
        return bool((some >= 0).all() and (((sums - 1).abs() < gap) | (sums == 0)).all() and (sums > 0).any())

    def uniform(self) -> Tensor:
        """Weights alike where these are not zero; times the values before a plain sum."""
        seen = (self.weights > 0).to(self.weights.dtype)
        alike = seen / seen.sum(self.keys, keepdim=True).clamp_min(1)
        return alike if self.values is None else alike * self.values


class _Followed(NamedTuple):
    """What became of a softmax, and the same without dropout."""

    clean: Tensor


class WrittenOut:
    """Follows softmaxes through the functions of one forward."""

    def __init__(self) -> None:
        self.begun = False  # whether a softmax or an exponential may still be there
        self.weights: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.exponentials: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.scaled: WeakIdKeyDictionary = WeakIdKeyDictionary()  # values times weights: both

    def may_follow(self, func: Callable[..., Any]) -> str | None:
        """The kind of a function that begins or may go on what is followed; None of all others, which are most."""
        kind = KINDS.get(func)
        if kind is None or kind in _BEGIN:
            self.begun |= kind is not None
            return kind
        self.begun = self.begun and any(map(len, (self.weights, self.exponentials, self.scaled)))
        return kind if self.begun else None

    def follow(
        self, kind: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], found: Any
    ) -> None:
        """Remember what a function made of a softmax."""
        first = args[0] if args else kwargs.get("input")
        if not isinstance(found, Tensor) or not isinstance(first, Tensor):
            return
        if kind == "exp":
            self.exponentials[found] = True
        elif kind == "times":
            for own, other in (args[:2], args[1::-1]) if len(args) == 2 else ():
                if isinstance(other, Tensor) and (clean := self.clean(own)) is not None:
                    self.scaled[found] = clean, other
                    return
        elif kind == "softmax" or (kind == "divided" and first in self.exponentials):
            self.weights[found] = _Followed(found.detach())
        elif kind == "moved" and first in self.exponentials:
            self.exponentials[found] = True
        elif (before := self.weights.get(first)) is not None and kind in ("dropped", "moved"):
            clean = before.clean
            if kind == "moved":
                clean = found.detach() if _same(clean, first) else func(clean, *args[1:], **kwargs)
            self.weights[found] = _Followed(clean)

    def clean(self, tensor: Any) -> Tensor | None:
        """The weights that a tensor is, without dropout; None where it is none."""
        found = self.weights.get(tensor) if isinstance(tensor, Tensor) else None
        return None if found is None else found.clean

    def weighed(self, kind: str, args: Sequence[Any]) -> Weighed | None:
        """The weights that are summed over in a product, where there are any, proved to be shares."""
        if kind == "sum":
            return self._summed(args)
        operands = _operands(kind, args)
        for place, operand in operands:
            clean = self.clean(operand)
            axes = None if clean is None or clean.dim() < 2 else _axes(kind, args, place)
            if clean is not None and axes is not None:
                found = Weighed(clean, *axes, place)
                if found.adds_up():
                    return found
        return None

    def _summed(self, args: Sequence[Any]) -> Weighed | None:
        """Of values times weights, summed over one axis: ``(weights[..., None] * values).sum(axis)``."""
        if len(args) < 2 or not isinstance(args[1], int) or args[0] not in self.scaled:
            return None
        weights, values = self.scaled[args[0]]
        keys = args[1] % args[0].dim() - args[0].dim()
        if -keys > weights.dim() or weights.size(keys) != args[0].size(keys) or weights.size(keys) < 2:
            return None
        own = [axis for axis in range(-weights.dim(), 0) if axis != keys and weights.size(axis) > 1]
        queries = [axis for axis in own if -axis > values.dim() or values.size(axis) == 1]
        if len(queries) > 1:
            return None
        found = Weighed(weights, keys, queries[0] if queries else None, 0, values)
        return found if found.adds_up() else None


def replaced(kind: str, args: Sequence[Any], place: int, other: Tensor) -> list[Any]:
    """The arguments of a product with another tensor at this place."""
    found = list(args)
    if kind == "sum":
        found[0] = other
    elif kind == "einsum" and isinstance(found[1], (list, tuple)):
        inner = list(found[1])
        inner[place - 1] = other.to(inner[place - 1].dtype)
        found[1] = inner
    else:
        found[place] = other.to(found[place].dtype)
    return found


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _operands(kind: str, args: Sequence[Any]) -> list[tuple[int, Any]]:
    if kind == "product":
        return list(enumerate(args[:2]))
    given = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else args[1:]
    return list(enumerate(given, 1)) if args and isinstance(args[0], str) else []


def _axes(kind: str, args: Sequence[Any], place: int) -> tuple[int, int | None] | None:
    """The axes of keys and queries of an operand, from the end; None where it is not summed over one axis by rows."""
    if kind == "product":
        other = args[1 - place]
        if other.dim() == 1:
            return (-1, -2) if place == 0 else None
        return (-1, -2) if place == 0 else (-2, -1)
    terms, output = _subscripts(str(args[0]), [operand for _, operand in _operands(kind, args)])
    own, others = terms[place - 1], "".join(term for i, term in enumerate(terms) if i != place - 1)
    keys = [label for label in own if label not in output]
    queries = [label for label in own if label in output and label not in others]
    if len(keys) != 1 or len(queries) > 1:
        return None
    return own.index(keys[0]) - len(own), own.index(queries[0]) - len(own) if queries else None


def _subscripts(equation: str, operands: Sequence[Tensor]) -> tuple[list[str], str]:
    """The labels of each operand and of the output, an ellipsis as labels of its own."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms).replace(".", "")
        output = ("..." if "..." in left else "") + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    free = [chr(code) for code in range(0x391, 0x3A2)]  # Greek capitals are no labels of torch
    widest = 0
    for i, (term, operand) in enumerate(zip(terms, operands, strict=True)):
        if "..." in term:
            count = operand.dim() - (len(term) - 3)
            widest = max(widest, count)
            terms[i] = term.replace("...", "".join(free[len(free) - count :]))
    return terms, output.replace("...", "".join(free[len(free) - widest :]))


def shares(weights: Tensor, target: Tensor) -> bool:
    """Whether ``weights [E, ...]`` are shares of what comes into each node: the sums over ``target [E]`` are 1."""
    if not len(weights) or not bool((weights >= 0).all()):
        return False
    rows = weights.detach().reshape(len(weights), -1).float()
    sums = rows.new_zeros(int(target.max()) + 1, rows.size(1)).index_add_(0, target, rows)[target.unique()]
    return bool(((sums - 1).abs() < _GAP.get(weights.dtype, 2e-2)).all())


def alike(weights: Tensor, target: Tensor) -> Tensor:
    """``1/n`` on the ``n`` edges into each node, shaped like ``weights [E, ...]``."""
    degree = torch.bincount(target) if len(target) else target
    return (1 / degree[target].to(weights.dtype)).view(-1, *[1] * (weights.dim() - 1)).expand_as(weights)
