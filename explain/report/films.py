"""The pictures of a run or a step that was asked about, and where the network looked in them: what a slider drives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.explanation import Explanation
from explain.plot.attention_maps import panels, times_uniform
from explain.plot.heatmap import UNSIGNED
from explain.report.asking import Asked, about
from explain.report.pictures import data, frames


@dataclass(frozen=True, eq=False)
class Film:
    """What a run foresaw, ``[steps, C, H, W]``, and the noised pictures ``[n, C, H, W]``, with the time of each."""

    foreseen: Tensor | None
    seen: Tensor | None
    times: tuple[float, ...]

    def shown(self) -> dict[str, Any]:
        """The same as data of pictures."""
        return {
            "foreseen": [] if self.foreseen is None else frames(self.foreseen),
            "seen": [] if self.seen is None else frames(self.seen),
            "times": list(self.times),
        }


def film(answers: Sequence[Explanation], runs: Iterable[Asked]) -> Film | None:
    """The pictures of the run that these answers are about, or of the steps, noise first; None where no run is."""
    found = [_of(run) for run in runs if any(about(run, one) for one in answers)]
    if len(found) < 2:
        return found[0] if found else None
    whole = [one for one in found if len(one.times) == 1]  # steps: a run stands for itself
    if not whole:
        return found[0]
    whole.sort(key=lambda one: -one.times[0])
    return Film(
        _joined([one.foreseen for one in whole]),
        _joined([one.seen for one in whole]),
        tuple(time for one in whole for time in one.times),
    )


def _joined(pictures: Sequence[Tensor | None]) -> Tensor | None:
    known = [each for each in pictures if each is not None]
    return torch.cat(known) if len(known) == len(pictures) else None


def _of(run: Any) -> Film:
    images = run.images() if callable(getattr(run, "images", None)) else None
    states = run.states() if callable(getattr(run, "states", None)) else None
    times = getattr(run, "timesteps", None)
    times = times() if callable(times) else times
    if times is None:
        times = getattr(run, "steps", ())
    times = times if isinstance(times, (list, tuple)) else ()
    foreseen = images if isinstance(images, Tensor) and images.dim() == 4 else None
    seen = states if isinstance(states, Tensor) and states.dim() == 4 else None
    return Film(foreseen, seen, tuple(float(t) for t in times))


def attention_maps(one: Explanation) -> list[dict[str, Any]]:
    """Maps over an image by layer and step, in the colours of how many times uniform each cell is, all on one scale."""
    if one.players.kind == "words" and "maps" in one.parts:
        return _word_maps(one)
    labels = one.players.geometry.get("labels")
    if "attention.0.grid" not in one.parts or labels is None:
        return []
    found = panels(one, (int(labels.size(0)), int(labels.size(1))))
    norm = times_uniform([panel.ratio for panel in found])
    return [
        {"layer": panel.row.replace("\n", ", "), "step": panel.column, "most": round(float(panel.ratio.max()), 3),
         "least": round(float(panel.ratio.min()), 3), "picture": data(np.asarray(UNSIGNED(norm(panel.ratio)))[..., :3])}
        for panel in found
    ]  # fmt: skip


def _word_maps(one: Explanation) -> list[dict[str, Any]]:
    """Where in the picture each word is looked up, in times the mean of its map."""
    found = []
    for name, weights in zip(one.players.names, one.parts["maps"].double().cpu().numpy(), strict=True):
        mean = float(weights.mean())
        if mean > 0:
            found.append((name, weights / mean))
    norm = times_uniform([ratio for _, ratio in found]) if found else None
    return [
        {"layer": name, "step": "", "most": round(float(ratio.max()), 3), "least": round(float(ratio.min()), 3),
         "picture": data(np.asarray(UNSIGNED(norm(ratio)))[..., :3])}
        for name, ratio in found if norm is not None
    ]  # fmt: skip
