"""What the image puts onto each word of a prompt: one map a word, from every layer, head and step that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from explain.attention.image_tokens import Grid
from explain.attention.maps import AttentionMap
from explain.attention.selection import NothingCaptured
from explain.attention.text_tokens import Place, TextLayout
from explain.types import Unsupported

WordAggregate: TypeAlias = Literal["mean", "daam", "output"]


class WordMaps:
    """Takes maps as they come, and keeps for each word its map over the latent image, its baseline, and its shares by
    layer and step.

    Args:
        layout: where each map has the image and the text.
        tokens: by the number of text tokens, the positions of each word's among them; none for a word that the text
            does not hold.
        aggregate: see `Attention`.
        branch: the guidance branch that is read; None for all that is not "uncond".
    """

    def __init__(
        self,
        layout: TextLayout,
        tokens: Mapping[int, Sequence[Tensor]],
        aggregate: WordAggregate = "mean",
        branch: str | None = None,
    ) -> None:
        self.layout, self.tokens, self.aggregate, self.branch = layout, tokens, aggregate, branch
        words = len(next(iter(tokens.values())))
        self.sum = torch.zeros(words, *layout.size, dtype=torch.float64)
        self.chance = torch.zeros(words, dtype=torch.float64)
        self.weight = self.maps = self.skipped = 0
        self.by_layer: dict[str, tuple[Tensor, int]] = {}
        self.by_step: dict[float, tuple[Tensor, int]] = {}
        self.branches: dict[str, None] = {}
        self.left_out: dict[str, str] = {}
        self.row_sum_error = self.deviation = 0.0

    def __call__(self, attention: AttentionMap) -> None:
        """Take one map in; nothing of it is kept elsewhere."""
        place = self.layout.place(attention)
        if not isinstance(place, str) and self.aggregate == "output" and not place.joint:
            place = "its text has no output: it is looked at, and does not look"
        if isinstance(place, str):
            self.skipped += 1
            self.left_out[attention.module] = place
            return
        self.maps += 1
        for branch, rows in attention.branches().items():
            if self.branch is None and branch == "uncond":
                continue
            if branch is not None:
                self.branches[branch] = None
            self._add(attention.part(rows), place)

    def _add(self, attention: AttentionMap, place: Place) -> None:
        """One map of one branch: ``[words, H, W]`` summed over so many heads."""
        groups = [place.text[positions] for positions in self.tokens[len(place.text)]]
        made = self._alike if self.aggregate == "output" else self._looked
        found, chance, weight = made(attention, place, groups)
        share = found.mean((1, 2)) / weight
        there = chance > 0
        if there.any():
            ratio = found[there] / weight / chance[there, None, None]
            self.deviation = max(self.deviation, float((ratio - 1).abs().max()))
        self.sum += found
        self.chance += weight * chance
        self.weight += weight
        _count(self.by_layer, attention.module, share)
        if isinstance(attention.step, float):
            _count(self.by_step, attention.step, share)

    def _looked(self, attention: AttentionMap, place: Place, groups: list[Tensor]) -> tuple[Tensor, Tensor, int]:
        """What each place of the image puts onto each word, and by chance, and over how many heads that is summed."""
        positions = place.image.positions.tolist()
        looking = attention if len(positions) == attention.queries else attention.part(queries=positions)
        mass = looking.columns([*groups, torch.arange(attention.keys)]).double().cpu()
        self.row_sum_error = max(self.row_sum_error, float((mass[..., -1] - 1).abs().max()))
        heads = mass[..., :-1].mean(0).transpose(1, 2)
        chance = looking.chance(groups).double().cpu().mean((0, 1)).T
        if self.aggregate == "daam":
            found, weight = _bicubic(heads, place.image.grid), len(heads)
        else:
            found, weight = _spread(heads.mean(0), place.image.grid), 1
        return found, _spread(chance, place.image.grid).mean((1, 2)), weight

    def _alike(self, attention: AttentionMap, place: Place, groups: list[Tensor]) -> tuple[Tensor, Tensor, int]:
        """How like each place of the image is to each word in what the layer makes of them."""
        found = _spread(_of_outputs(attention.output, place, groups), place.image.grid)
        read = torch.tensor([len(group) > 0 for group in groups])
        return found, read.double() / read.sum(), 1

    def scores(self) -> Tensor:
        """The share of the image's attention that each word gets, float64 ``[words]``.

        Raises:
            Unsupported: output-space maps, and no attention of image and text together.
            NothingCaptured: the image looks at the text in no map.
        """
        if not self.weight:
            found = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items()) or "none was computed"
            if self.aggregate == "output" and any("no output" in reason for reason in self.left_out.values()):
                raise Unsupported(
                    "aggregate='output' compares what image and text tokens become, and in cross-attention the text "
                    "becomes nothing: use aggregate='mean' or 'daam'"
                )
            raise NothingCaptured(f"no attention map of the image over the text: {found}")
        return self.sum.mean((1, 2)) / self.weight

    def uniform(self) -> Tensor:
        """What `scores` would be by chance, float64 ``[words]``."""
        return self.chance / self.weight

    def read(self) -> list[int]:
        """Which words a text holds; the others were cut off, or are of another text."""
        return [i for i in range(len(self.sum)) if any(len(positions[i]) for positions in self.tokens.values())]

    def parts(self) -> dict[str, Tensor]:
        """See `Attention`."""
        maps = self.sum if self.aggregate == "daam" else self.sum / self.weight
        parts = {"maps": maps.float(), "uniform": self.uniform(), "by_layer": _means(self.by_layer)}
        if self.by_step:
            parts["by_step"], parts["steps"] = _means(self.by_step), torch.tensor(list(self.by_step))
        return parts

    def checks(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        return {
            "maps": self.maps,
            "summed": self.weight,
            "layers": list(self.by_layer),
            "steps": list(self.by_step),
            "branches": list(self.branches),
            "grid": list(self.layout.size),
            "uniform": self.uniform().tolist(),
            "row_sum_error": self.row_sum_error,
            "deviation_from_uniform": self.deviation,
            "left_out": self.skipped,
            "left_out_layers": [f"{name}: {reason}" for name, reason in self.left_out.items()],
        }


def _of_outputs(output: Tensor, place: Place, groups: list[Tensor]) -> Tensor:
    """``softmax(o_q . o_w)`` over the words, ``[words, cells]``; heads side by side, a word the mean of its tokens."""
    output = output.double().transpose(1, 2).flatten(2)
    image = output[:, place.image.positions.to(output.device)]
    words = torch.stack(
        [output[:, group.to(output.device)].mean(1) if len(group) else output[:, 0] for group in groups], 1
    )
    likeness = image @ words.mT
    silent = torch.tensor([not len(group) for group in groups], device=output.device)
    return likeness.masked_fill(silent, float("-inf")).softmax(-1).mean(0).T.cpu()


def _bicubic(heads: Tensor, grid: Grid) -> Tensor:
    """``[heads, words, cells] -> [words, H, W]``: each upsampled, what falls below zero cut off, and all summed."""
    shaped = heads.reshape(*heads.shape[:2], *grid.shape)
    return F.interpolate(shaped, grid.size, mode="bicubic", align_corners=False).clamp_min(0).sum(0)


def _spread(shares: Tensor, grid: Grid) -> Tensor:
    """``[words, cells] -> [words, H, W]``: each pixel as the cell that it lies in."""
    return shares[:, grid.cells()].reshape(len(shares), *grid.size)


def _count(sums: dict[Any, tuple[Tensor, int]], key: Any, share: Tensor) -> None:
    before, count = sums.get(key, (torch.zeros_like(share), 0))
    sums[key] = before + share, count + 1


def _means(sums: Mapping[Any, tuple[Tensor, int]]) -> Tensor:
    return torch.stack([total / count for total, count in sums.values()], 1)
