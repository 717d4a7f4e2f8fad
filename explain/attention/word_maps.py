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
        tokens: of each guidance branch that is read, and by the number of its text tokens, the positions of each word's
            among them; none for a word that the text does not hold.
        aggregate: see `Attention`.
    """

    def __init__(
        self,
        layout: TextLayout,
        tokens: Mapping[str, Mapping[int, Sequence[Tensor]]],
        aggregate: WordAggregate = "mean",
    ) -> None:
        self.layout, self.tokens, self.aggregate = layout, tokens, aggregate
        words = len(next(iter(next(iter(tokens.values())).values())))
        self.sum = torch.zeros(words, *layout.size, dtype=torch.float64)
        self.chance = torch.zeros(words, dtype=torch.float64)
        self.weight = torch.zeros(words, dtype=torch.float64)  # how many maps were summed
        self.maps = self.skipped = 0
        self.by_layer: dict[str, Tensor] = {}  # sums, and of how many [2, words]
        self.by_step: dict[float, Tensor] = {}
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
        self.maps += any((branch or "cond") in self.tokens for branch in attention.branches())
        for branch, rows in attention.branches().items():
            tokens = self.tokens.get(branch or "cond")
            if tokens is None:
                continue
            if branch is not None:
                self.branches[branch] = None
            self._add(attention.part(rows), place, [place.text[at] for at in tokens[len(place.text)]])

    def _add(self, attention: AttentionMap, place: Place, groups: list[Tensor]) -> None:
        """One map of one branch: ``[words, H, W]`` summed over so many heads."""
        read = torch.tensor([float(len(group) > 0) for group in groups], dtype=torch.float64)
        if not read.any():
            return
        made = self._alike if self.aggregate == "output" else self._looked
        found, chance, weight = made(attention, place, groups)
        there = chance > 0
        ratio = found[there] / weight / chance[there, None, None]
        self.deviation = max(self.deviation, float((ratio - 1).abs().max()) if len(ratio) else 0.0)
        self.sum += found
        self.chance += weight * chance
        self.weight += weight * read
        shares = torch.stack([found.mean((1, 2)) / weight, read])
        keys: list[tuple[dict[Any, Tensor], Any]] = [(self.by_layer, attention.module), (self.by_step, attention.step)]
        for sums, key in keys:
            if key is not None:
                sums[key] = sums.get(key, torch.zeros_like(shares)) + shares

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
        if not self.weight.any():
            found = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items()) or "none was computed"
            if self.aggregate == "output" and any("no output" in reason for reason in self.left_out.values()):
                raise Unsupported(
                    "aggregate='output' compares what image and text tokens become, and in cross-attention the text "
                    "becomes nothing: use aggregate='mean' or 'daam'"
                )
            raise NothingCaptured(f"no attention map of the image over the text: {found}")
        return self.sum.mean((1, 2)) / self.weight.clamp_min(1)

    def uniform(self) -> Tensor:
        """What `scores` would be by chance, float64 ``[words]``."""
        return self.chance / self.weight.clamp_min(1)

    def read(self) -> list[int]:
        """Which words a text holds that is read; the others were cut off, or are of another."""
        return self.weight.nonzero().view(-1).tolist()

    def parts(self) -> dict[str, Tensor]:
        """See `Attention`."""
        maps = self.sum if self.aggregate == "daam" else self.sum / self.weight.clamp_min(1)[:, None, None]
        parts = {"maps": maps.float(), "uniform": self.uniform(), "by_layer": _means(self.by_layer)}
        if self.by_step:
            parts["by_step"], parts["steps"] = _means(self.by_step), torch.tensor(list(self.by_step))
        return parts

    def checks(self) -> dict[str, Any]:
        """What was seen, as JSON values."""
        return {
            "maps": self.maps,
            "summed": self.weight.int().tolist(),
            "layers": list(self.by_layer),
            "steps": list(self.by_step),
            "branches": list(self.branches),
            "grid": list(self.layout.size),
            "uniform": self.uniform().tolist(),
            "row_sum_error": self.row_sum_error,
            "deviation_from_uniform": self.deviation,
            "left_out": self.skipped,
            "left_out_layers": [f"{name}: {reason}" for name, reason in self.left_out.items()],
            "unseen_layers": self.layout.unseen,
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


def _means(sums: Mapping[Any, Tensor]) -> Tensor:
    """``[words, n]``; 0 of words that are not read."""
    return torch.stack([total / count.clamp_min(1) for total, count in sums.values()], 1)
