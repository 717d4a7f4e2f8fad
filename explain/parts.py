"""Which part of what a forward returned is read: a tensor of rows in tuples, dictionaries and objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

Output: TypeAlias = int | str | Callable[[Any], Tensor]
NAMES = ("logits", "out", "output", "pred", "prediction", "y_hat")
REMEDY = "say which is meant: explain.wrap(..., output=1), output='name', or output=lambda answer: ..."


class NoRows(TypeError):
    """Nothing in an answer has a row of numbers for each thing asked about."""


class WrongRows(ValueError):
    """An answer has rows of numbers, and not those that are asked about."""


class Part:
    """The part of a model's answers that is read; found once, on the first, and the same ever after.

    A tensor is itself. Of a mapping, or an object with fields, the part of the explained node's type or with one of the
    names `NAMES`; else, as of a tuple, the only part with one row of numbers for each thing asked about (losses and
    attention maps have not), or of several such parts the only one with as many columns as there are classes.

    Args:
        given: the user's choice: a position, a key, or a function of the answer.
        classes: how many outputs the labels speak of, where they do.

    >>> import torch
    >>> Part().rows((torch.tensor(0.7), torch.zeros(5, 3)), 5).shape
    torch.Size([5, 3])

    Raises:
        TypeError: ``given`` is something else.
    """

    found = ("assumed", "_found")  # follow from the rest

    def __init__(self, given: Output | None = None, classes: int | None = None) -> None:
        if given is not None and (isinstance(given, bool) or not (isinstance(given, (int, str)) or callable(given))):
            raise TypeError(f"output must be a position, a key or a function of the answer, got {given!r}")
        self.given, self.classes = given, classes
        self.assumed: str | None = None
        self._found: dict[str | None, tuple[Any, ...]] = {}

    def again(self) -> Part:
        """The same rule, with nothing found yet."""
        return Part(self.given, self.classes)

    def rows(self, answer: Any, expected: int | None = None, node_type: str | None = None) -> Tensor:
        """``[rows, outputs]`` out of an answer; ``expected`` rows where that is known.

        Raises:
            NoRows: no part is rows.
            TypeError: there is no such part.
            ValueError: there are several, and nothing tells which is meant.
        """
        if callable(self.given):
            return _as_rows(self.given(answer))
        if isinstance(answer, Tensor) and self.given is not None:
            raise TypeError(
                f"forward returned one tensor {list(answer.shape)}, which has no part {self.given!r}: label= says "
                "which column, output=lambda answer: ... takes another part of it"
            )
        if isinstance(answer, Tensor):
            return _as_rows(answer)
        if self.given is not None:
            return _as_rows(_named(answer, self.given))
        if node_type not in self._found:
            self._found[node_type] = self._choice(answer, expected, node_type)
        chosen = answer
        for step in self._found[node_type]:
            chosen = _named(chosen, step)
        return _as_rows(chosen)

    def _choice(self, answer: Any, expected: int | None, node_type: str | None) -> tuple[Any, ...]:
        fields = parts_in(answer)
        if node_type in fields:  # asked for, not assumed
            return (node_type, *self._inner(fields[node_type], expected))
        for name in NAMES:
            if name in fields:
                if len(fields) > 1:
                    self.assumed = f"{name!r} of {', '.join(map(str, fields))}"
                return (name, *self._inner(fields[name], expected))
        fit = {key: found for key, part in fields.items() if (found := _fitting(part, expected)) is not None}
        why = "the only part with a row of numbers for each"
        if len(fit) > 1:
            fit = {key: found for key, found in fit.items() if found.size(1) == self.classes} or fit
            why = f"the only part with {self.classes} columns, as there are classes"
        if len(fit) == 1:
            key = next(iter(fit))
            if len(fields) > 1:
                self.assumed = f"part {key!r} of {len(fields)}: {why}"
            return (key,)
        nested = {key: part for key, part in fields.items() if not isinstance(part, Tensor) and parts_in(part)}
        if not fit and len(nested) == 1:
            key, part = next(iter(nested.items()))
            return (key, *self._inner(part, expected))
        said = ", ".join(
            f"{key!r}: {list(v.shape) if isinstance(v, Tensor) else type(v).__name__}" for key, v in fields.items()
        )
        if fit:
            raise WrongRows(f"forward returned several parts that may be the outputs ({said}): {REMEDY}")
        raise NoRows(
            f"forward must return floating-point logits [rows, outputs], got {type(answer).__name__}"
            f"{f' of {said}' if said else ''}: {REMEDY}"
        )

    def _inner(self, part: Any, expected: int | None) -> tuple[Any, ...]:
        return () if isinstance(part, Tensor) else self._choice(part, expected, None)


def parts_in(answer: Any) -> dict[Any, Any]:
    """The parts of a mapping, of a sequence by position or name, or the tensors of an object.

    >>> parts_in(("a", "b"))
    {0: 'a', 1: 'b'}
    """
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, (tuple, list)):
        names = getattr(answer, "_fields", range(len(answer)))  # a namedtuple's
        return dict(zip(names, answer, strict=True))
    names = [*getattr(answer, "__dict__", {}), *getattr(answer, "__slots__", ()), *NAMES]  # these may be properties
    parts = {name: getattr(answer, name, None) for name in names}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


def _named(answer: Any, key: Any) -> Any:
    try:
        if isinstance(key, str) and not isinstance(answer, Mapping):
            return getattr(answer, key)
        return answer[key]
    except (KeyError, IndexError, AttributeError, TypeError):
        known = ", ".join(repr(name) for name in parts_in(answer))
        raise TypeError(f"forward returned no part {key!r}; it returned {known or type(answer).__name__}") from None


def _fitting(part: Any, expected: int | None) -> Tensor | None:
    """The part as rows, if it is rows."""
    if not isinstance(part, Tensor) or not part.is_floating_point() or part.dim() == 0:
        return None
    found = _squeezed(part)
    return found if found.dim() == 2 and (expected is None or len(found) == expected) else None


def _as_rows(part: Any) -> Tensor:
    if not isinstance(part, Tensor) or not part.is_floating_point():
        got = f"{part.dtype}" if isinstance(part, Tensor) else type(part).__name__
        raise NoRows(f"forward must return floating-point logits [rows, outputs], got {got}")
    return _squeezed(part)


def _squeezed(part: Tensor) -> Tensor:
    if part.dim() == 3 and part.size(0) == 1:  # dense layers keep a batch dimension of one graph
        part = part[0]
    return part.unsqueeze(1) if part.dim() == 1 else part
