"""Where an image looks at a text: which maps of a network do so, and where its tokens are among theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.attention.image_tokens import Tokens, denoised, grid_of
from explain.attention.interception import by_name
from explain.attention.maps import AttentionMap
from explain.attention.reads import Read, first_call, follow, reads
from explain.types import Unsupported


@dataclass(frozen=True, eq=False)
class Place:
    """A map of an image that looks at a text: the image's tokens among the queries, the text's among the keys.

    ``joint``: whether the text looks, too, as in the joint attention of SD3 and Flux.
    """

    image: Tokens
    text: Tensor
    joint: bool


@dataclass(frozen=True, eq=False)
class TextLayout:
    """What each map of a network is about, found by moving the image, then the words, and watching which tokens follow.

    The image's tokens are those that follow the image, in joint attention before it has mixed with the text; they are
    taken to lie row by row. Where none of the keys does, all of them are text; in joint attention the others are, in
    order. That is proved: where the words alone are moved, exactly the keys at their places follow.

    ``size``: height and width of the latent image that the network is given. ``places``: of each map ``(module,
    queries, keys)``, or why it is none of an image that looks at the text. ``unseen``: layers whose attention cannot
    be seen.
    """

    size: tuple[int, int]
    places: dict[tuple[str, int, int], Place | str]
    unseen: list[str]

    def place(self, attention: AttentionMap) -> Place | str:
        """Where a map has the image and the text, or why it does not."""
        if attention.edge_index is not None:
            return "it runs along edges"
        return self.places.get((attention.module, attention.queries, attention.keys), "the first pass had no such map")


def text_layout(net: nn.Module, run: Callable[[], Any], tokens: Sequence[Mapping[int, Sequence[Tensor]]]) -> TextLayout:
    """The layout of the maps that ``run`` makes ``net`` compute, from three passes with its first call's arguments.

    Args:
        net: the network.
        run: what calls it.
        tokens: by the number of text tokens, the positions of each word's among them; of each text that is given.

    Raises:
        Unsupported: the network is given no image or no text that can be told, or the words are not where they should.
    """
    args, kwargs = first_call(net, run)
    named = by_name(net, args, kwargs)
    image, size = denoised(named)
    words = {length: torch.zeros(length, dtype=torch.bool) for of_text in tokens for length in of_text}
    for of_text in tokens:
        for length, positions in of_text.items():
            words[length][torch.cat([torch.zeros(0, dtype=torch.int64), *positions])] = True
    text = _text(named, words, image)
    if not words[text.size(1)].any():
        raise Unsupported("none of the words has a token among those that the network is given")
    generator = torch.Generator().manual_seed(0)

    def passed(moved: Tensor, where: Tensor) -> list[Read]:
        change = torch.randn(moved.shape, generator=generator, dtype=torch.float64) * where
        other = moved + change.to(moved)
        return reads(
            net,
            tuple(other if value is moved else value for value in args),
            {name: other if value is moved else value for name, value in kwargs.items()},
        )

    before = reads(net, args, kwargs)
    by_image = passed(image, torch.ones(()))
    by_words = passed(text, words[text.size(1)].view(1, -1, 1))
    if not [r.module for r in before] == [r.module for r in by_image] == [r.module for r in by_words]:
        raise Unsupported("this network runs other attention layers for other images or texts: no maps can be averaged")
    return TextLayout(size, _told(before, by_image, by_words, words, len(image), size), before.unseen)


def _told(
    before: list[Read],
    by_image: list[Read],
    by_words: list[Read],
    words: Mapping[int, Tensor],
    rows: int,
    size: tuple[int, int],
) -> dict[tuple[str, int, int], Place | str]:
    seen = [_Following.of(*three) for three in zip(before, by_image, by_words, strict=True)]
    images, moved = _unmixed(seen)

    def place(one: _Following) -> Place | str:
        queries, keys = len(one.queries), len(one.keys)
        if one.rows != rows:
            return "it looks within parts of the image: its rows are not those of the batch"
        if not one.queries.any():
            return "its queries do not follow the image"
        image = images[queries]
        grid = grid_of(int(image.sum()), size)
        if grid is None:
            return f"no downsampling of {size[0]}x{size[1]} has its number of image tokens"
        joint = bool(one.keys.any())
        if joint and queries != keys:
            return "its keys follow the image, and are not those that look"
        text = (~image).nonzero().view(-1) if joint else torch.arange(keys)
        if len(text) == 0:
            return "the image looks at itself alone"
        if len(text) not in words:
            return f"it looks at {len(text)} tokens, and the text has {' or '.join(map(str, words))}"
        follows = moved[keys] if joint else one.words
        expected = torch.zeros(keys, dtype=torch.bool).index_copy_(0, text, words[len(text)])
        if not torch.equal(follows, expected):
            return "the keys at the words' places are not those that follow the words"
        return Place(Tokens(image.nonzero().view(-1), grid), text, joint)

    return {(one.module, len(one.queries), len(one.keys)): place(one) for one in seen}


@dataclass(frozen=True, eq=False)
class _Following:
    """Of one attention: which queries and keys follow the image, and which keys the words; bool ``[n]``."""

    module: str
    queries: Tensor
    keys: Tensor
    words: Tensor
    rows: int

    @classmethod
    def of(cls, before: Read, by_image: Read, by_words: Read) -> _Following:
        queries = follow(before.queries, by_image.queries).cpu()
        keys, words = (
            (follow(before.keys, other.keys) | follow(before.values, other.values)).cpu()
            for other in (by_image, by_words)
        )
        if not queries.any() and len(queries) == len(keys):  # the same tokens, which look by their place alone
            queries = keys
        return cls(before.module, queries, keys, words, before.rows)


def _unmixed(seen: Sequence[_Following]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Of sequences of each length: the tokens that follow the image, and in joint attention the words, in every layer.

    So already in the first, before they have mixed.
    """
    images: dict[int, Tensor] = {}
    words: dict[int, Tensor] = {}
    for one in seen:
        for moved in (one.queries, one.keys):
            if moved.any():
                images[len(moved)] = moved & images.get(len(moved), moved)
        if one.keys.any():
            words[len(one.words)] = one.words & words.get(len(one.words), one.words)
    return images, words


def _text(named: Mapping[str, Any], lengths: Mapping[int, Any], image: Tensor) -> Tensor:
    """The text that the network is given, ``[batch, tokens, width]``.

    Raises:
        Unsupported: no argument that has as many tokens.
    """
    usual = named.get("encoder_hidden_states")
    for value in (usual, *named.values()):
        fits = isinstance(value, Tensor) and value.is_floating_point() and value.dim() == 3 and value.size(1) in lengths
        if fits and value is not image:
            return value
    raise Unsupported(
        f"the text of {' or '.join(map(str, lengths))} tokens is none of the network's arguments [batch, tokens, width]"
    )
