"""Attention over the pixels of an image: every layer and step at its own resolution, averaged where pixels are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from explain.attention.capture import NothingCaptured
from explain.attention.image_tokens import Grid, Layout
from explain.attention.maps import AttentionMap
from explain.attention.to_players import to_positions
from explain.types import Players

KINDS = ("patches", "superpixels")
_WHOLE = 2**24  # numbers of maps that are kept whole; beyond, only what the region looks at


@dataclass(eq=False)
class _Place:
    """One layer at one step: ``weights [heads, queries, keys]`` of the image's tokens summed over ``rows``.

    ``credit [H * W]`` is summed over ``calls``.
    """

    layer: str
    step: float | tuple[float, ...] | None
    branch: str | None
    grid: Grid
    reach: Tensor
    weights: Tensor = field(default_factory=lambda: torch.zeros(()))
    credit: Tensor = field(default_factory=lambda: torch.zeros(()))
    rows: int = 0
    calls: int = 0

    def add(self, weights: Tensor, credit: Tensor, rows: int) -> None:
        """One more call with so many rows of draws."""
        self.weights = self.weights + weights
        self.credit = self.credit + credit
        self.rows += rows
        self.calls += 1

    def only_region(self) -> None:
        """Keep what the region looks at, ``[heads, 1, keys]``."""
        if self.weights.dim() and self.weights.size(1) > 1:
            self.weights = self.reach.float()[:, None].mul(self.weights).sum(1, keepdim=True)


class Gathering:
    """Takes maps as they come, and keeps their mean over draws for each layer, step and branch.

    Args:
        layout: what each map is about.
        pixels: the pixels that look, positions in ``[H * W]``.
        whole: numbers of maps that are kept whole; where there are more, only what the pixels look at is.
    """

    def __init__(self, layout: Layout, pixels: Tensor, whole: int = _WHOLE) -> None:
        self.layout, self.pixels, self.whole = layout, pixels, whole
        self.places: dict[Any, _Place] = {}
        self.left_out: dict[str, str] = {}
        self.maps = self.skipped = self.numbers = 0
        self.row_sum_error = self.deviation = 0.0
        self.choice = False

    def __call__(self, attention: AttentionMap) -> None:
        """Take one map in; nothing of it is kept elsewhere."""
        reason = self.layout.reason(attention)
        if reason is not None:
            self.skipped += 1
            self.left_out[attention.module] = reason
            return
        self.maps += 1
        for branch, rows in attention.branches().items():
            self._add(attention.part(rows), branch)
        sums = attention.row_sums()
        self.row_sum_error = max(self.row_sum_error, float((sums - 1).abs().max()) if len(sums) else 0.0)
        self.deviation = max(self.deviation, attention.deviation())
        self.choice = self.choice or attention.widest() > 1

    def _add(self, attention: AttentionMap, branch: str | None) -> None:
        looking, seen = (self.layout.tokens[count] for count in (attention.queries, attention.keys))
        reach = looking.grid.gather(self.pixels)
        key = (attention.module, attention.step, branch, attention.size)
        if key not in self.places:
            self.numbers += attention.heads * len(looking.positions) * len(seen.positions)
            self.places[key] = _Place(attention.module, attention.step, branch, seen.grid, reach)
        place = self.places[key]
        if self.numbers > self.whole:
            for other in self.places.values():
                other.only_region()
            spread = reach.new_zeros(attention.queries).index_copy_(0, looking.positions, reach)
            looked = attention.looked_at(spread)[..., seen.positions].cpu()
            rows = looked.sum(0)[:, None].float()
            looked = looked.mean((0, 1))
        else:
            rows = attention.weights[:, :, looking.positions][..., seen.positions].sum(0).float().cpu()
            looked = reach @ rows.double().mean(0) / attention.batch
        place.add(rows, seen.grid.spread(looked), attention.batch)

    def credit(self, aggregate: Literal["mean", "last"]) -> Tensor:
        """What the pixels look at, float64 ``[H * W]``: the mean over all maps, or over the last of each pass.

        Raises:
            NothingCaptured: no map was over the image.
        """
        if not self.places:
            found = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items()) or "none was computed"
            raise NothingCaptured(f"no attention map over the image: {found}")
        used = list(self.places.values())
        if aggregate == "last":
            used = list({(place.step, place.branch): place for place in used}.values())
        credit = torch.stack([place.credit for place in used]).sum(0)
        return credit / sum(place.calls for place in used)

    def checks(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        places = list(self.places.values())
        steps = {step for place in places for step in _steps(place.step)}
        return {
            "maps": self.maps,
            "layers": _distinct(place.layer for place in places),
            "row_sum_error": self.row_sum_error,
            "deviation_from_uniform": self.deviation,
            "steps": sorted(steps, reverse=True),
            "branches": _distinct(place.branch for place in places if place.branch is not None),
            "left_out": self.skipped,
            "left_out_layers": [f"{name}: {reason}" for name, reason in self.left_out.items()],
            "maps_kept": "whole" if self.numbers <= self.whole else "what the region looks at",
        }

    def parts(self) -> dict[str, Tensor]:
        """The kept maps: ``attention.i [heads, queries, keys]`` (one query: the region), with the true height and width
        of the keys in ``.grid [2]``, the pixels along a cell in ``.factor``, what the region looks at in ``.region
        [keys]``, ``.step``, and the positions of its names in ``checks`` in ``.layer`` and ``.branch``.
        """
        checks, parts = self.checks(), {}
        for i, place in enumerate(self.places.values()):
            name = f"attention.{i}"
            weights = place.weights / place.rows
            parts[name] = weights
            mean = weights.double().mean(0)
            parts[f"{name}.region"] = (place.reach @ mean if len(mean) > 1 else mean[0]).float()
            parts[f"{name}.grid"] = torch.tensor(place.grid.shape)
            parts[f"{name}.factor"] = torch.tensor(place.grid.factor)
            parts[f"{name}.layer"] = torch.tensor(checks["layers"].index(place.layer))
            if isinstance(place.step, float):
                parts[f"{name}.step"] = torch.tensor(place.step)
            if place.branch is not None:
                parts[f"{name}.branch"] = torch.tensor(checks["branches"].index(place.branch))
        return parts


def to_players(credit: Tensor, players: Players) -> Tensor:
    """Credit of the pixels ``[H * W]`` summed over each player's: its group's, else those labelled with it."""
    if players.groups is not None:
        return to_positions(credit, players)
    labels = players.geometry["labels"].reshape(-1).long().cpu()
    owned = labels >= 0
    return credit.new_zeros(len(players)).index_add_(0, labels[owned], credit[owned])


def _steps(step: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if step is None:
        return ()
    return step if isinstance(step, tuple) else (step,)


def _distinct(names: Any) -> list[Any]:
    return list(dict.fromkeys(names))
