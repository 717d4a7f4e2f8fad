"""Which maps are asked for: layers, heads, steps and the guidance branch, before any weight is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias, get_args

from torch import nn

from explain.attention.interception import attends
from explain.attention.maps import AttentionMap
from explain.types import Unsupported

Modules: TypeAlias = str | Sequence[str] | Callable[[str], bool] | None
Heads: TypeAlias = int | Sequence[int] | None
Steps: TypeAlias = float | Collection[float] | Callable[[float], bool] | None
GuidanceBranch: TypeAlias = Literal["cond", "uncond", "perturbed"] | None

_SHOWN = 12  # names in an error
_CLOSE = 1e-6  # relative: timesteps that went through float32


class NothingCaptured(Unsupported, RuntimeError):
    """No attention was computed while the context was open, or none that was asked for."""


@dataclass(frozen=True)
class Selection:
    """What `capture` was asked for; None for all.

    Args:
        modules: names of layers, or of modules that hold them; ``*``, ``?`` and ``[...]`` as in file names, ``*`` for
            dots too. Or a function of a layer's name.
        heads: positions of heads.
        steps: timesteps, or a function of one.
        branch: rows of the batch that belong to it.
    """

    modules: Modules = None
    heads: Heads = None
    steps: Steps = None
    branch: GuidanceBranch = None

    def __post_init__(self) -> None:
        if self.branch not in (None, *get_args(get_args(GuidanceBranch)[0])):
            raise ValueError(f"branch must be 'cond', 'uncond' or None for both, or 'perturbed', got {self.branch!r}")
        heads = [0] if self.heads is None else [self.heads] if isinstance(self.heads, int) else list(self.heads)
        if not heads or not all(isinstance(head, int) for head in heads):
            raise ValueError(f"heads must be a position or several, got {self.heads!r}")

    @property
    def patterns(self) -> list[str]:
        """The names that were given."""
        if self.modules is None or callable(self.modules):
            return []
        return [self.modules] if isinstance(self.modules, str) else list(self.modules)

    def check(self, net: nn.Module) -> None:
        """Check that the names are names in this network.

        Raises:
            ValueError: one is not.
        """
        if self.modules is None or callable(self.modules):
            return
        if not self.patterns:
            raise ValueError("modules must name at least one layer, got none; None takes all")
        names = [name or type(net).__name__ for name, _ in net.named_modules()]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                likely = [name or type(net).__name__ for name, part in net.named_modules() if attends(part)]
                raise ValueError(
                    f"modules={pattern!r} is no module of {type(net).__name__}; it has {_some(likely or names)}"
                )

    def takes(self, layer: str) -> bool:
        """Whether a layer is asked for."""
        if self.modules is None:
            return True
        if callable(self.modules):
            return bool(self.modules(layer))
        return any(_names(pattern, layer) for pattern in self.patterns)

    def part(self, attention: AttentionMap) -> AttentionMap | None:
        """What is asked for of a map, or None: nothing of it is computed yet.

        Raises:
            ValueError: heads that the layer does not have; a step or branch that the call does not tell.
        """
        if self.heads is not None:
            attention = attention.part(heads=[self.heads] if isinstance(self.heads, int) else list(self.heads))
        found: AttentionMap | None = attention
        if self.steps is not None:
            found = _of_label(attention, "steps", attention.step, self._takes_step)
        if self.branch is not None and found is not None:
            found = _of_label(found, "branch", found.branch, lambda own: own == self.branch)
        return found

    def _takes_step(self, step: float) -> bool:
        if callable(self.steps):
            return bool(self.steps(step))
        return any(math.isclose(step, asked, rel_tol=_CLOSE, abs_tol=_CLOSE) for asked in _several(self.steps))

    def missed(self, layers: Collection[str], steps: Collection[float]) -> str | None:
        """What was asked for and never came, in words, or None."""
        for pattern in self.patterns:
            if not any(_names(pattern, layer) for layer in layers):
                return f"modules={pattern!r} holds no layer that computed attention; these did: {_some(layers)}"
        if callable(self.modules) and not any(map(self.modules, layers)):
            return f"modules= took none of the layers that computed attention: {_some(layers)}"
        if callable(self.steps):
            return None if any(map(self.steps, steps)) else f"steps= took none of the steps {_some(steps)}"
        for asked in _several(self.steps):
            if not any(math.isclose(asked, step, rel_tol=_CLOSE, abs_tol=_CLOSE) for step in steps):
                return f"no call was at step {asked:g}; there were {_some(steps)}"
        return None


def _of_label(attention: AttentionMap, setting: str, told: Any, wanted: Callable[[Any], bool]) -> AttentionMap | None:
    """The rows of a map whose label is wanted, or None where there are none.

    Raises:
        ValueError: the label is not told, or of other rows.
    """
    if told is None or (isinstance(told, tuple) and None in told):
        raise ValueError(
            f"the call of {attention.module} does not tell what {setting}= asks for: leave {setting}= out, give it to "
            "the network itself by name, or capture a run of `wrap(...)`, which tells it"
        )
    if not isinstance(told, tuple):
        return attention if wanted(told) else None
    there = attention.batch if attention.edge_index is None else 0
    if len(told) != there:
        raise ValueError(
            f"what {setting}= asks for is told for {len(told)} rows and the map of {attention.module} has {there}: "
            "leave that layer out by modules="
        )
    rows = [row for row, own in enumerate(told) if wanted(own)]
    return attention.part(rows=rows) if rows else None


def _names(pattern: str, layer: str) -> bool:
    """Whether a pattern is a layer's name, or that of a module around it."""
    parts = layer.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def _several(asked: Any) -> list[float]:
    if asked is None:
        return []
    return [float(asked)] if isinstance(asked, (int, float)) else [float(step) for step in asked]


def _some(names: Iterable[Any]) -> str:
    names = [f"{name:g}" if isinstance(name, float) else str(name) for name in names]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
