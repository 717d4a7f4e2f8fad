"""Where attention over an image looks: the true height and width of its tokens, and which tokens are the image's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.attention.interception import by_name
from explain.attention.maps import AttentionMap
from explain.attention.reads import Read, first_call, follow, reads
from explain.types import Unsupported


@dataclass(frozen=True)
class Grid:
    """An image ``size = (H, W)`` seen as cells of ``factor x factor`` pixels, smaller in the last row and column.

    >>> Grid((4, 6), 2).shape, Grid((4, 6), 2).spread(torch.tensor([1.0, 0, 0, 0, 0, 0])).reshape(4, 6)[0]
    ((2, 3), tensor([0.2500, 0.2500, 0.0000, 0.0000, 0.0000, 0.0000]))
    """

    size: tuple[int, int]
    factor: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in cells, ``ceil(H / factor), ceil(W / factor)``."""
        height, width = self.size
        return -(-height // self.factor), -(-width // self.factor)

    def cells(self) -> Tensor:
        """The cell of each pixel, int64 ``[H * W]``."""
        rows, columns = (torch.arange(length) // self.factor for length in self.size)
        return (rows[:, None] * self.shape[1] + columns).reshape(-1)

    def gather(self, pixels: Tensor) -> Tensor:
        """The share of these pixels that lies in each cell, float64 ``[cells]``, summing to 1."""
        return torch.bincount(self.cells()[pixels], minlength=self.shape[0] * self.shape[1]).double() / len(pixels)

    def spread(self, shares: Tensor) -> Tensor:
        """The shares of the cells, evenly over the pixels of each: ``[cells] -> [H * W]``, the sum as before."""
        cells = self.cells()
        return (shares / torch.bincount(cells))[cells]


def grid_of(tokens: int, size: tuple[int, int]) -> Grid | None:
    """The grid with ``ceil(H / f) * ceil(W / f) == tokens``, or None. There is never more than one height and width.

    Where several ``f`` give it (an odd size), the one that divides the image, else a power of two, else the smallest.
    """
    height, width = size
    found = [Grid(size, factor) for factor in range(1, max(size) + 1)]
    found = [grid for grid in found if grid.shape[0] * grid.shape[1] == tokens]

    def likeliest(grid: Grid) -> tuple[bool, bool, int]:
        f = grid.factor
        return bool(height % f or width % f), bool(f & (f - 1)), f

    return min(found, key=likeliest, default=None)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The image's tokens among the positions of a map: ``positions [cells]``, row by row over ``grid``."""

    positions: Tensor
    grid: Grid


@dataclass(frozen=True, eq=False)
class Layout:
    """What each dense map of a network is about, found by moving the image and watching which tokens follow.

    A layer whose keys and values stay looks at a text or a label, not at the image. In joint attention over image and
    text they are told apart at the first layer with so many tokens, before they have mixed. The image's tokens are
    taken to lie row by row.

    ``reasons``: why a map ``(module, queries, keys)`` is not one over the image, or None where it is. ``tokens``: the
    image's tokens in sequences of each length.
    """

    reasons: dict[tuple[str, int, int], str | None]
    tokens: dict[int, Tokens]

    def reason(self, attention: AttentionMap) -> str | None:
        """Why this map is left out, or None."""
        if attention.edge_index is not None:
            return "it runs along edges"
        return self.reasons.get((attention.module, attention.queries, attention.keys), "the first pass had no such map")


def image_layout(net: nn.Module, run: Callable[[], Any], size: tuple[int, int]) -> Layout:
    """The layout of the maps that ``run`` makes ``net`` compute, from two passes with its first call's arguments.

    A network of latents is asked about pixels: its tokens are squares of them.

    Raises:
        Unsupported: the network is not called with images ``[batch, C, H, W]`` of this size, or a fraction of it.
    """
    args, kwargs = first_call(net, run)
    images = [value for value in (*args, *kwargs.values()) if _is_image(value, size)]
    if not images:
        images = [_latent(by_name(net, args, kwargs), size)]
    generator = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not any(value is image for image in images):
            return value
        return value + torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)

    before = reads(net, args, kwargs)
    after = reads(net, tuple(map(moved, args)), {name: moved(value) for name, value in kwargs.items()})
    if [read.module for read in before] != [read.module for read in after]:
        raise Unsupported("this network runs other attention layers for other images: its maps cannot be averaged")
    return _told(before, after, len(images[0]), size)


def _told(before: list[Read], after: list[Read], rows: int, size: tuple[int, int]) -> Layout:
    kinds: dict[tuple[str, int, int], tuple[bool, bool]] = {}
    follows: dict[int, Tensor] = {}
    for one, other in zip(before, after, strict=True):
        queries = follow(one.queries, other.queries)
        keys = follow(one.keys, other.keys) | follow(one.values, other.values)
        if not queries.any() and len(queries) == len(keys):  # the same tokens, which look by their place alone
            queries = keys
        kinds[one.module, len(queries), len(keys)] = (one.rows == rows, bool(keys.any() and queries.any()))
        for moved in (queries, keys):
            if moved.any():
                follows[len(moved)] = moved & follows.get(len(moved), moved)
    tokens = {}
    for count, moved in follows.items():
        positions = moved.nonzero().view(-1).cpu()
        grid = grid_of(len(positions), size)
        if grid is not None:
            tokens[count] = Tokens(positions, grid)

    def reason(queries: int, keys: int, whole: bool, image: bool) -> str | None:
        if not image:
            return "its queries or keys do not follow the image"
        if not whole:
            return "it looks within parts of the image: its rows are not those of the batch"
        if queries not in tokens or keys not in tokens:
            return f"no downsampling of {size[0]}x{size[1]} pixels has its number of image tokens"
        return None

    return Layout({(name, q, k): reason(q, k, *kind) for (name, q, k), kind in kinds.items()}, tokens)


def _is_image(value: Any, size: tuple[int, int]) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 4 and value.shape[2:] == size


def _latent(named: Mapping[str, Any], size: tuple[int, int]) -> Tensor:
    """The latent image whose pixels are squares of those of this size.

    Raises:
        Unsupported: there is none.
    """
    image, (height, width) = denoised(named)
    if size[0] % height or size[1] % width or size[0] // height != size[1] // width:
        raise Unsupported(
            f"attention over patches needs a network that is called with images [batch, channels, {size[0]}, {size[1]}]"
            f", or with their latents; this one has {height} x {width}"
        )
    return image


def denoised(named: Mapping[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """What the network denoises, and its height and width: by its shape, or packed by the places that come along.

    Raises:
        Unsupported: no such argument.
    """
    places = named.get("img_ids")
    if isinstance(places, Tensor):
        rows, columns = places.reshape(-1, places.size(-1))[: places.size(-2), 1:3].long().cpu().T
        size = int(rows.max()) + 1, int(columns.max()) + 1
        packed = named.get("hidden_states")
        in_order = torch.equal(rows * size[1] + columns, torch.arange(size[0] * size[1]))
        if not in_order or not isinstance(packed, Tensor) or packed.size(1) != len(rows):
            raise Unsupported("packed latents whose places (img_ids) are not one image row by row have no known grid")
        return packed, size
    images = [value for value in named.values() if isinstance(value, Tensor) and value.is_floating_point()]
    image = next((value for value in images if value.dim() == 4), None)
    if image is None:
        shapes = ", ".join(str(list(value.shape)) for value in images) or "no tensors"
        raise Unsupported(f"image tokens are those of a network of images [batch, channels, H, W], got {shapes}")
    return image, (image.size(2), image.size(3))
