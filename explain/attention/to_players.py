"""From credit on the entries of attention maps to credit on players."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from explain.attention.maps import AttentionMap
from explain.types import Players


def to_positions(credit: Tensor, players: Players) -> Tensor:
    """Credit of the positions (node ids, token positions) that each player owns, summed: ``[keys] -> [P]``.

    Raises:
        ValueError: a player that the map does not have.
    """
    owned = players.groups or tuple(players.index.view(-1, 1))
    atoms = torch.cat([torch.zeros(0, dtype=torch.int64), *owned]).to(credit.device)
    _check(players.kind, atoms, len(credit))
    owner = torch.repeat_interleave(torch.arange(len(owned)), torch.tensor([len(a) for a in owned], dtype=torch.int64))
    return credit.new_zeros(len(players)).index_add_(0, owner.to(credit.device), credit[atoms])


def to_edges(maps: Sequence[AttentionMap], flows: Sequence[Tensor], players: Players) -> tuple[Tensor, Tensor]:
    """Credit of each edge player summed over the maps, and whether any map has the edge: ``([P], bool [P])``.

    ``flows`` are credits on the entries of each map (`AttentionMap.flow_from`). An edge is found by its ends
    ``players.geometry["ends"] [2, P]``; players with groups are undirected pairs, and get what passes both ways.

    Raises:
        ValueError: players without ends, or with ends that no map has.
    """
    ends = players.geometry.get("ends")
    if ends is None:
        raise ValueError("edge players need geometry['ends'] [2, players], the node ids of each edge, got none")
    _check("the ends of edges", ends, max(max(attention.queries, attention.keys) for attention in maps))
    owner = torch.arange(len(players))
    if players.groups is not None:
        pairs = ends[0] != ends[1]
        ends, owner = torch.cat([ends, ends[:, pairs].flip(0)], 1), torch.cat([owner, owner[pairs]])
    scores, found = torch.zeros(len(players), dtype=torch.float64), torch.zeros(len(players), dtype=torch.bool)
    for attention, flow in zip(maps, flows, strict=True):
        credit, seen = _look_up(attention, flow, ends)
        scores.index_add_(0, owner, credit.cpu())
        found[owner[seen.cpu()]] = True
    return scores, found


def _look_up(attention: AttentionMap, flow: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Credit of the edges with these ends in one map, ``[Q]``, and whether the map has them.

    Parallel edges are told apart by their order, which layers keep; where the map has not as many as there are players
    (a model that coalesced them), they share alike.
    """
    ends = ends.to(flow.device)
    columns = _every_pair(attention) if attention.edge_index is None else attention.edge_index
    nodes = 1 + max([int(t.max()) for t in (columns, ends) if t.numel()], default=0)
    have, want = columns[0] * nodes + columns[1], ends[0] * nodes + ends[1]
    order = have.argsort(stable=True)
    first, last = (torch.searchsorted(have[order], want, right=right) for right in (False, True))
    rank, alike = _ranks(want)
    sums = torch.cat([flow.new_zeros(1), flow.reshape(-1)[order].cumsum(0)])
    shared = (sums[last] - sums[first]) / alike
    own = flow.reshape(-1)[order[(first + rank).clamp(max=max(len(order) - 1, 0))]] if len(order) else shared
    return torch.where(last - first == alike, own, shared), last > first


def _ranks(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Of each key: how many equal ones come before it, and how many there are."""
    order = keys.argsort(stable=True)
    first, last = (torch.searchsorted(keys[order], keys, right=right) for right in (False, True))
    place = torch.empty_like(order)
    place[order] = torch.arange(len(keys), device=keys.device)
    return place - first, last - first


def _every_pair(attention: AttentionMap) -> Tensor:
    """The columns (key, query) of a dense map, in the order of its flattened ``[queries, keys]``."""
    return (
        torch.cartesian_prod(torch.arange(attention.queries), torch.arange(attention.keys))
        .to(attention.weights.device)
        .T.flip(0)
    )


def _check(what: str, atoms: Tensor, positions: int) -> None:
    """Check that the maps have these positions.

    Raises:
        ValueError: they have fewer, and are over something else.
    """
    if atoms.numel() and (int(atoms.min()) < 0 or int(atoms.max()) >= positions):
        raise ValueError(
            f"{what} must be positions of the attention map, 0 to {positions - 1}, got {int(atoms.min())} to "
            f"{int(atoms.max())}: does the network look within a list of its own, such as the nearest of each node? "
            "Shapley, Lime, Occlusion and Gradient ask about the players; `with capture(net) as maps` gives the maps"
        )
