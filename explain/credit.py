"""Credit for one number over players, how sure, how made: all that an explanation holds.

`explain.explanation.Explanation` is a `Credit` with doors: to pictures, files, tables and words. What stands behind a
door (`plot`, `storage`, `conversion`, `summary`) takes a `Credit` and never learns of the doors: imports go one way.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.lookup import places, plain
from explain.spelling import meant
from explain.types import NonFinite, Players, check_text


class UnknownPlayer(KeyError):
    """No player of this name, or several; the message has those that it may be."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Credit:
    """The data of an `explain.Explanation`, which says what each field means; checked when it is made."""

    scores: Tensor
    players: Players
    value: float
    base: float | None = None
    error: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    target: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    calls: int = 0
    doubts: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", self.scores.detach().to("cpu", torch.float64))
        if self.error is not None:
            object.__setattr__(self, "error", self.error.detach().to("cpu", torch.float64))
        for name, tensor in (("scores", self.scores), ("error", self.error)):
            if tensor is None:
                continue
            if tensor.shape != (len(self.players),):
                raise ValueError(f"{name} must be [{len(self.players)}], one a player, got {list(tensor.shape)}")
            if not tensor.isfinite().all():
                raise NonFinite(
                    f"{name} hold NaN or infinity: the model, or a derivative of it, does for some of what it was "
                    "asked. Check the inputs, and operations like log or sqrt at 0, or eigh and svd of equal "
                    "eigenvalues; a model of half precision may overflow: model.float()"
                )
        if self.error is not None and bool((self.error < 0).any()):
            raise ValueError(f"error must be standard errors, 0 or more, got {float(self.error.min()):g}")
        for name, part in self.parts.items():
            if part.is_floating_point() and part.layout == torch.strided and not part.isfinite().all():
                raise NonFinite(f"parts[{name!r}] holds NaN or infinity")
        for name, number in (("value", self.value), ("base", self.base), ("seconds", self.seconds)):
            object.__setattr__(self, name, None if number is None else float(number))
            if number is not None and not math.isfinite(number):
                raise NonFinite(f"{name} is {number}")
        object.__setattr__(self, "calls", int(self.calls))
        if self.seconds < 0 or self.calls < 0:
            raise ValueError(f"seconds and calls must be 0 or more, got {self.seconds:g} and {self.calls}")
        for where, text in (("method", self.method), ("parts", "".join(self.parts))):
            check_text(text, where)
        if isinstance(self.doubts, str) or not all(isinstance(text, str) for text in self.doubts):
            raise TypeError(f"doubts must be sentences, got {self.doubts!r:.60}")
        object.__setattr__(self, "doubts", tuple(self.doubts))
        check_text("".join(self.doubts), "doubts")
        for name in ("checks", "settings", "target", "versions"):
            object.__setattr__(self, name, _json(getattr(self, name), name))

    def __len__(self) -> int:
        return len(self.players)

    def __iter__(self) -> Iterator[str]:
        return iter(self.players.names)

    def __getitem__(self, name: str) -> float:
        """The score of the player of this name, such as "edge 3->5"; numbers do where nodes have names.

        Raises:
            UnknownPlayer: there is none, or there are several: "3-5" where both directions of a pair play.
            TypeError: no name.
        """
        if not isinstance(name, str):
            raise TypeError(
                f"players go by name, such as why[{self._example()!r}], got {name!r}: scores are why.scores"
            )
        found = places(self.players, name)
        if len(found) > 1:
            called = list(dict.fromkeys(self.players.names[place] for place in found))
            if len(called) == len(found):
                either = " or ".join(f"why[{one!r}]" for one in called)
                raise UnknownPlayer(f"{name!r} does not say which of {len(found)}: {either}")
            raise UnknownPlayer(f"{len(found)} players are called {name!r}, at {found} of why.scores")
        if not found:
            near = meant(plain(self.players, name), self.players.names) or f", such as {self._example()!r}"
            raise UnknownPlayer(f"no player is called {name!r} among {len(self)} {self.players.kind}{near}")
        return float(self.scores[found[0]])

    def _example(self) -> str:
        return next(iter(self.players.names), "edge 3->5")

    def top(self, k: int = 3, sign: int = 0) -> list[tuple[str, float]]:
        """The ``k`` players with the largest absolute scores, as (name, score), largest first.

        Args:
            k: how many at most.
            sign: 1 for those alone that push the number up, -1 for those that push it down.
        """
        told = [i for i in self.order().tolist() if not sign or float(self.scores[i]) * sign > 0]
        return [(self.players.names[i], float(self.scores[i])) for i in told[:k]]

    def order(self) -> Tensor:
        """Positions of the players, int64 ``[P]``, the largest absolute score first; ties keep their order."""
        return self.scores.abs().argsort(descending=True, stable=True)


def _json(value: Any, where: str) -> Any:
    """The value as JSON gives it back (tuples as lists, NumPy and torch numbers as numbers): a file is then exact.

    Raises:
        TypeError: it is no JSON value.
    """
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, str):
        check_text(value, where)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (bool, int, float, str)):
        return next(kind for kind in (int, float, str) if isinstance(value, kind))(value)  # enums, torch.SymInt, ...
    if isinstance(value, Mapping):
        check_text("".join(map(str, value)), where)
        return {str(key): _json(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{where} must be a JSON value (number, string, bool, None, list or dict), got {type(value).__name__}"
    )
