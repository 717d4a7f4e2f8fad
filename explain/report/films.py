"""The pictures of a run or a step that was asked about, and where the network looked in them: what a slider drives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from explain.explanation import Explanation
from explain.plot.attention_maps import RATIO, around_uniform, panels
from explain.report.pictures import data, pngs
from explain.report.questions import ASIDE


@runtime_checkable
class Asked(Protocol):
    """What a report needs of a target to find the answers about it: what it says that it asks."""

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""


@dataclass(frozen=True, eq=False)
class Film:
    """What a run foresaw, ``[steps, C, H, W]``, and the noised pictures ``[n, C, H, W]``, with the time of each."""

    foreseen: Tensor | None
    seen: Tensor | None
    times: tuple[float, ...]

    def shown(self) -> dict[str, Any]:
        """The same as data of pictures."""
        return {
            "foreseen": [] if self.foreseen is None else pngs(self.foreseen),
            "seen": [] if self.seen is None else pngs(self.seen),
            "times": list(self.times),
        }


def film(answers: Sequence[Explanation], runs: Iterable[Asked]) -> Film | None:
    """The pictures of the run, or step, that these answers are about; None where none of ``runs`` is."""
    for run in runs:
        asked = _plain(run.describe())
        if any(_same(asked, one.target) for one in answers):
            return _of(run)
    return None


def _plain(asked: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asked, default=str))


def _same(asked: dict[str, Any], told: Any) -> bool:
    """Answers add to what was asked what they found out, and take nothing away."""
    return all(told.get(name) == value for name, value in asked.items() if name not in ASIDE)


def _of(run: Any) -> Film:
    images = run.images() if callable(getattr(run, "images", None)) else None
    noised = getattr(run, "noised", None)
    times = getattr(run, "timesteps", None)
    times = times() if callable(times) else times
    if times is None:
        times = getattr(run, "steps", ())
    times = times if isinstance(times, (list, tuple)) else ()
    foreseen = images if isinstance(images, Tensor) and images.dim() == 4 else None
    seen = noised if isinstance(noised, Tensor) and noised.dim() == 4 else None
    return Film(foreseen, seen, tuple(float(t) for t in times))


def attention_maps(one: Explanation) -> list[dict[str, Any]]:
    """Maps over an image by layer and step, in the colours of how many times uniform each cell is, all on one scale."""
    labels = one.players.geometry.get("labels")
    if "attention.0.grid" not in one.parts or labels is None:
        return []
    found = panels(one, (int(labels.size(0)), int(labels.size(1))))
    norm = around_uniform([panel.ratio for panel in found])
    return [
        {"layer": panel.row.replace("\n", ", "), "step": panel.column, "most": round(float(panel.ratio.max()), 3),
         "least": round(float(panel.ratio.min()), 3), "picture": data(np.asarray(RATIO(norm(panel.ratio)))[..., :3])}
        for panel in found
    ]  # fmt: skip
