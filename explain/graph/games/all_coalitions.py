"""The number for every coalition: those that differ only where nothing reaches the explained node are asked once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.graph.games.coalitions import Coalitions
from explain.types import Masks, NonFinite, Values

_BLOCK = 2**17  # coalitions whose edges are followed at one time
_ASKED = 2**14  # coalitions evaluated at one time


def table(game: Coalitions, values_of: Callable[[Masks], Values], hops: int) -> Values:
    """The number for all ``2^P`` coalitions of edges or nodes, bit ``i`` of a position being player ``i``.

    Raises:
        NonFinite: the model answers NaN or infinity.
    """
    players = len(game.players)
    alike = torch.cat([_alike(game, hops, start, min(start + _BLOCK, 2**players)) for start in _starts(players)])
    asked = torch.zeros(2**players, dtype=torch.bool)
    asked[alike] = True
    positions = asked.nonzero().view(-1)
    values = torch.empty(2**players, dtype=torch.float64)
    shifts = torch.arange(players, dtype=torch.int32)[:, None]
    for part in positions.split(_ASKED):
        masks = (part.int() >> shifts & 1).bool().t()  # in memory player by player, as fast paths read them
        values[part] = values_of(masks).detach().to("cpu", torch.float64)
    if not values[positions].isfinite().all():
        raise NonFinite("the model answers NaN or infinity for some coalitions: check its inputs and the payoff")
    return values[alike]


def _starts(players: int) -> range:
    return range(0, 2**players, _BLOCK)


def _alike(game: Coalitions, hops: int, start: int, stop: int) -> Tensor:
    """For each coalition the position of the one without the players that cannot reach the explained node."""
    place, owner = game.place, game.owner.cpu()
    positions = torch.arange(start, stop, dtype=torch.int32)
    present = [(positions >> player & 1).bool() for player in range(len(game.players))]
    source, target = place.graph.flat_edges.cpu()
    everyone = torch.ones(len(positions), dtype=torch.bool)
    present.append(everyone)
    reached = dict.fromkeys(place.flat_focus().tolist(), everyone)
    edges = list(enumerate(zip(source.tolist(), target.tolist(), strict=True)))
    for _ in range(hops):
        for e, (u, v) in edges:
            if v not in reached or reached.get(u) is everyone:
                continue
            carried = reached[v]
            for player in {int(owner[e])} if game.atoms == "edges" else {int(owner[u]), int(owner[v])}:
                carried = carried & present[player]
            reached[u] = carried | reached[u] if u in reached else carried
    return _without_the_rest(game, owner, present, reached)


def _without_the_rest(game: Coalitions, owner: Tensor, present: list[Tensor], reached: dict[int, Tensor]) -> Tensor:
    """The positions with only the players that own something reached, or an edge into it: degrees count those too."""
    counts: dict[int, Tensor] = {}
    edges = enumerate(game.place.graph.flat_edges.t().tolist())
    if game.atoms == "edges":
        owned = [(int(owner[e]), v) for e, (_, v) in edges]
    else:
        owned = [(player, node) for node, player in enumerate(owner.tolist())]
        owned += [(int(owner[u]), v) for _, (u, v) in edges]
    for player, node in owned:
        if node in reached:
            counts[player] = counts[player] | reached[node] if player in counts else reached[node]
    made = torch.zeros(len(present[-1]), dtype=torch.int32)
    for player, counted in counts.items():
        if player < len(game.players):
            made += (counted & present[player]).int() << player
    return made.long()
