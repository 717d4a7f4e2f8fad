"""Explanation: scores over players, how sure, how made; save, load, convert."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from explain.types import NonFinite, Players


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
                raise NonFinite(f"{name} hold NaN or infinity")

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The ``k`` players with the largest absolute scores, as (name, score), largest first."""
        order = self.scores.abs().argsort(descending=True, stable=True)[:k].tolist()
        return [(self.players.names[i], float(self.scores[i])) for i in order]


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
