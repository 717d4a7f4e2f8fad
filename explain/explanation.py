"""Explanation: credit for one number over players, how sure, how made; and the doors to files, tables and pictures."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from explain.types import NonFinite, Players, check_text

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd
    import shap
    import torch_geometric.explain
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Explanation:
    """Credit for one number, handed out to players, with the method's own proof.

    Args:
        scores: float64 ``[P]``, in the number's own units; positive pushes the number up.
        players: who they are.
        value: the number with every player.
        base: the number with none, or None where there is no such thing.
        error: float64 ``[P]``, one standard error of each score, or None where the scores are exact or it is unknown.
        parts: named tensors: attention maps, structural and learned influence, ...
        checks: the method's own proof as plain JSON values: efficiency gap, surrogate R2, solver residual, ...
        method, settings, target, seed, versions: how it was made, enough to make it again.
        seconds: wall time. calls: evaluations of the model.

    Raises:
        ValueError: scores or errors that are not one a player, negative errors, or text that is not Unicode.
        NonFinite: NaN or infinity in scores, errors, parts, value or base.
        TypeError: checks, settings or target that are not JSON values.

    >>> players = Players("nodes", torch.tensor([4, 7]))
    >>> why = Explanation(torch.tensor([0.5, -2.0]), players, value=1.0, method="Shapley")
    >>> why
    Shapley: 2 nodes, value 1, top node 7 -2, node 4 +0.5
    >>> why.to_pandas()[["score", "rank"]]
            score  rank
    node 4    0.5     2
    node 7   -2.0     1
    """

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
                    "asked. Check the inputs, and operations like log or sqrt at 0; a model of half precision may "
                    "overflow: model.float()"
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
        for name in ("checks", "settings", "target", "versions"):
            object.__setattr__(self, name, _json(getattr(self, name), name))

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The ``k`` players with the largest absolute scores, as (name, score), largest first."""
        return [(self.players.names[i], float(self.scores[i])) for i in self.order()[:k].tolist()]

    def order(self) -> Tensor:
        """Positions of the players, int64 ``[P]``, the largest absolute score first; ties keep their order."""
        return self.scores.abs().argsort(descending=True, stable=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; see `explain.storage`."""
        from explain.storage import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read a file that `save` wrote; see `explain.storage` for the errors."""
        from explain.storage import load

        return load(path)

    def to_pandas(self) -> pd.DataFrame:
        """A table with one row a player: score, error, rank, ids."""
        from explain.conversion import to_pandas

        return to_pandas(self)

    def to_networkx(self) -> nx.MultiDiGraph:
        """The drawn graph context, scores on its nodes or edges."""
        from explain.conversion import to_networkx

        return to_networkx(self)

    def to_pyg(self) -> torch_geometric.explain.Explanation:
        """A ``torch_geometric.explain.Explanation`` over the graph context."""
        from explain.conversion import to_pyg

        return to_pyg(self)

    def to_shap(self) -> shap.Explanation:
        """A ``shap.Explanation`` of one row, for ``shap.plots``."""
        from explain.conversion import to_shap

        return to_shap(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The picture that fits the players: a graph, a heat-map, an attention map, or bars."""
        from explain.plot import picture

        return picture(self, ax)

    def __repr__(self) -> str:
        from explain.summary import line

        return line(self)

    def __str__(self) -> str:
        from explain.summary import text

        return text(self)

    def _repr_html_(self) -> str:
        from explain.summary import html

        return html(self)


def _json(value: Any, where: str) -> Any:
    """The value as JSON gives it back (tuples as lists, NumPy and torch numbers as numbers): a file is then exact."""
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


@cache
def versions() -> dict[str, str]:
    """Versions of what an answer hangs on."""
    found = {"python": platform.python_version()}
    for name in ("explain", "torch", "torch_geometric", "captum", "shap", "lime", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree, or an optional package left out
    return found
