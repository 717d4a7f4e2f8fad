"""Who plays where attention is shared out, and what is said beside the shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from explain.attention.maps import AttentionMap
from explain.attention.pixel_maps import KINDS
from explain.doubts import doubt
from explain.types import Players, Target, Unsupported

_FLAT = 0.01  # closer to uniform than this, a heat-map shows who is connected, not who was chosen


def negative_words(players: Players) -> Tensor:
    """Which words are of a negative prompt, bool ``[P]``."""
    return players.geometry.get("negative", torch.zeros(len(players), dtype=torch.bool))


def warn_when_flat(choice: bool, deviation: float) -> None:
    """Say that attention is within 1 % of uniform, where rows had a choice."""
    if choice and deviation < _FLAT:
        doubt(f"attention is uniform to {deviation:.1%}: these shares say who is connected, not who was chosen")


def warn_of_lists(maps: Sequence[AttentionMap], players: Players) -> None:
    """Say where a dense map has as many rows in its batch as positions: each node may have a list of its own."""
    if players.kind in ("nodes", "edges") and any(1 < each.batch == each.keys for each in maps):
        doubt(
            "these maps are of as many batch rows as positions, and are averaged over them: does each node look within "
            "a list of its own, where a position is a rank? Then these shares are not of nodes: Shapley, Lime, "
            "Occlusion and Gradient ask about them"
        )


def warn_of_unseen(layers: list[str]) -> None:
    """Say which layers may look at words and cannot be seen."""
    if layers:
        doubt(
            f"the attention of {len(layers)} layers cannot be seen, and is missing: {', '.join(layers[:3])}"
            f"{', ...' if len(layers) > 3 else ''}; let them use scaled_dot_product_attention (AttnProcessor2_0)"
        )


def image_players(players: str | Players | None, target: Target) -> Players | None:
    """Patches or superpixels where they are asked for, or where the target has nothing but an image; else None."""
    if isinstance(players, Players):
        return players if players.kind in KINDS else None
    if players in KINDS:
        return target.players(players)
    if players is None and type(target).pixels is not Target.pixels:
        return target.players("patches")
    return None


def chosen_players(players: str | Players | None, target: Target, maps: Sequence[AttentionMap]) -> Players:
    """Those asked for; else edges where a map runs along edges, nodes or tokens where all are dense.

    Raises:
        ValueError: a kind that maps share no credit among.
        Unsupported: dense maps, and neither nodes nor tokens.
    """
    sparse = any(attention.edge_index is not None for attention in maps)
    kinds = ("edges", "nodes", "relations") if sparse else ("nodes", "tokens", "edges")
    kind = players.kind if isinstance(players, Players) else players
    if kind is not None and kind not in kinds:
        raise ValueError(f"attention maps share credit among {', '.join(kinds[:-1])} or {kinds[-1]}, got {kind!r}")
    if isinstance(players, Players):
        return players
    if players is not None or sparse:
        return target.players(players or "edges")
    refusals = []
    for name in ("nodes", "tokens"):
        try:
            return target.players(name)
        except (Unsupported, ValueError) as refusal:
            refusals.append(str(refusal))
    raise Unsupported(f"dense attention needs nodes or tokens as players: {'; '.join(refusals)}")


def map_checks(maps: Sequence[AttentionMap]) -> dict[str, Any]:
    """How many maps, of which layers, how far rows are from 1 and from uniform."""
    gaps = [float((attention.row_sums() - 1).abs().max()) for attention in maps if attention.row_sums().numel()]
    return {
        "maps": len(maps),
        "layers": [attention.module for attention in maps],
        "row_sum_error": max(gaps, default=0.0),
        "deviation_from_uniform": max(attention.deviation() for attention in maps),
    }


def drawn_checks(drawn: Sequence[Sequence[AttentionMap]]) -> dict[str, Any]:
    """`map_checks` of the maps of each draw together; how many there are, and of which layers, is said of one."""
    own = {"maps": len(drawn[0]), "layers": [attention.module for attention in drawn[0]]}
    draws = {"draws": len(drawn)} if len(drawn) > 1 else {}
    return map_checks([attention for maps in drawn for attention in maps]) | own | draws


def drawn_parts(drawn: Sequence[Sequence[AttentionMap]]) -> dict[str, Tensor]:
    """`map_parts`, weights as a mean over the draws."""
    each = [map_parts(maps) for maps in drawn]
    if len(each) == 1:
        return each[0]
    weights = [name for name, part in each[0].items() if part.is_floating_point()]
    return each[0] | {name: torch.stack([parts[name] for parts in each]).mean(0) for name in weights}


def map_parts(maps: Sequence[AttentionMap]) -> dict[str, Tensor]:
    """The weights of each map, and the edges along which it runs."""
    parts = {}
    for i, attention in enumerate(maps):
        parts[f"attention.{i}"] = attention.weights.cpu()
        if attention.edge_index is not None:
            parts[f"attention.{i}.edge_index"] = attention.edge_index.cpu()
    return parts
