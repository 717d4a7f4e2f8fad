"""Many coalitions as one small graph, for models that read the farthest nodes only by features and in-degree.

A node at the end of the receptive field sends its features and is not updated by anything that the answer reads. So
copies share it, and the edges into it, which only count in its degree, are left out or summed into one weighted edge:
degree-normalised layers see the same degrees. Nodes with a stored loop keep a row in each copy: a loop is no degree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from explain.graph.games.trimming import distinct_columns
from explain.graph.hooks.edge_weights import takes_weights
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import BESIDE, EDGE, NODE, Copies, Fields
from explain.types import Masks


class Kept(NamedTuple):
    """What matters of each coalition.

    ``edges [copies, messages]``: the messages that are sent; ``own``, ``far [copies, n]``: nodes with a row in each
    copy, and those that are not updated; ``degrees [copies, n]``: summed weights of the edges into a node, no loops.
    """

    edges: Tensor
    own: Tensor
    far: Tensor
    degrees: Tensor

    def at(self, copies: Tensor) -> Kept:
        """Some of the copies."""
        return Kept(*(part[copies] for part in self))

    def sizes(self, width: int) -> Tensor:
        """Numbers that each copy holds, with ``width`` features a row; int64 ``[copies]``."""
        return BESIDE * self.edges.sum(1) + (width + BESIDE) * self.own.sum(1)


def condensable(place: Place) -> bool:
    """Whether the graph has one type of nodes and edges, and a cut that follows the messages."""
    one = list(place.graph.counts) == [NODE] and list(place.graph.edges) == [EDGE]
    return one and bool(place.focus) and place.checks.get("direction") == "in"


def weighable(place: Place, module: nn.Module) -> bool:
    """Whether edges can be summed: they have a weight, or nothing and layers that take a weight."""
    fields = place.graph.edge_fields[EDGE]
    if not fields:
        return any(takes_weights(layer) for layer in module.modules())
    weight = next(iter(fields.values()))
    return len(fields) == 1 and weight.is_floating_point() and weight.numel() == place.graph.num_edges


@dataclass(eq=False)
class Condensed:
    """Coalitions of edges or nodes of a place.

    ``owner [e]``: the player that each edge needs, ``P`` for none; of two ends the source, since an edge into an absent
    node is never reached. ``weighted``: whether degrees are kept, as weighted edges.
    """

    place: Place
    owner: Tensor
    players: int
    weighted: bool

    def __post_init__(self) -> None:
        graph = self.place.graph
        source, target = graph.flat_edges
        self.loop = source == target
        varies = self.owner < self.players
        self.live = (self.place.reachable | self.loop | varies).nonzero().view(-1)
        self.messages = (self.place.reachable | self.loop)[self.live].nonzero().view(-1)  # among the live ones
        self.ends = source[self.live], target[self.live]
        self.looped = torch.zeros(graph.num_nodes, dtype=torch.bool, device=source.device)
        self.looped[target[self.loop]] = True
        self.varied = torch.zeros_like(self.looped)
        self.varied[target[varies & ~self.loop]] = True
        weights = graph.edge_fields[EDGE].values()
        x = graph.nodes[NODE].get("x", torch.zeros(0))
        ones = torch.ones(graph.num_edges, dtype=x.dtype if x.is_floating_point() else None, device=source.device)
        self.weight = next(iter(weights)).reshape(-1) if self.weighted and weights else ones
        self.injected = self.weighted and not weights
        fixed = (~varies & ~self.loop).nonzero().view(-1)
        self.base = self.weight.new_zeros(graph.num_nodes).index_add(0, target[fixed], self.weight[fixed])
        self.counts = (varies & ~self.loop)[self.live].nonzero().view(-1)  # live edges that change a degree

    def kept(self, masks: Masks) -> tuple[Kept, Tensor]:
        """What matters, once for coalitions that agree in it, and for each coalition its place among those."""
        present = torch.cat([masks.t(), masks.new_ones(1, len(masks))]).to(self.weight.dtype)
        here = present.index_select(0, self.owner[self.live])
        reached, updated = self._reached(here)
        source, target = self.ends
        first, kind = distinct_columns((here * reached.index_select(0, target)).bool())
        here, reached, updated = here[:, first], reached[:, first].bool(), updated[:, first].bool()
        sent, ends = here.bool()[self.messages], target[self.messages]
        sent &= torch.where((source == target)[self.messages][:, None], reached[ends], updated[ends])
        far = reached & ~updated
        degrees = self.base[:, None].repeat(1, len(first))
        which = self.counts
        weighed = here[which] * self.weight[self.live[which]][:, None]
        degrees.index_add_(0, target[which], weighed)
        own = updated | (far & self.looped[:, None])
        return Kept(*(part.t().contiguous() for part in (sent, own, far, degrees))), kind

    def _reached(self, here: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes within the receptive field of each copy, and those one hop nearer; 0 or 1, ``[n, copies]``."""
        inner = self.place.reachable[self.live].nonzero().view(-1)
        near, source, target = here[inner], self.ends[0][inner], self.ends[1][inner]
        reached = here.new_zeros(self.place.graph.num_nodes, here.size(1))
        reached[self.place.flat_focus().to(reached.device)] = 1
        updated = reached
        for _ in range(self.place.checks["hops"]):
            updated = reached
            reached = reached.index_add(0, source, near * reached.index_select(0, target)).clamp_(max=1)
        return reached, updated

    def made(self, kept: Kept) -> tuple[Copies, Tensor]:
        """The graph of some coalitions, the shared nodes first, and the weight of each of its edges."""
        count, size = kept.own.shape
        node, degree, number = self._shared(kept)
        owner, own = kept.own.nonzero(as_tuple=True)
        number[owner, own] = torch.arange(len(node), len(node) + len(own), device=own.device)
        copy, sent = kept.edges.nonzero(as_tuple=True)
        which = self.messages[sent]
        source, target = self.ends
        table = number.view(-1)
        ends = [table[source[which] + copy * size], table[target[which] + copy * size]]
        edge = self.live[which]
        weights = self.weight[edge]
        if self.weighted:
            again, at = (kept.far & kept.own & (kept.degrees != 0)).nonzero(as_tuple=True)
            into = torch.cat([torch.arange(len(node), device=own.device), number[again, at]])
            summed = torch.cat([degree, kept.degrees[again, at]])
            into, summed = into[summed != 0], summed[summed != 0]
            anywhere = number[0, self.place.focus[0][1]].expand(len(into))  # what it sends is not read
            ends = [torch.cat([ends[0], anywhere]), torch.cat([ends[1], into])]
            weights = torch.cat([weights, summed])
        rows, batch = torch.cat([node, own]), torch.cat([torch.zeros_like(node), owner])
        graph = self.place.graph
        nodes = {name: field.index_select(0, rows) for name, field in graph.nodes[NODE].items()}
        shared = {name: field.repeat(count, *[1] * (field.dim() - 1)) for name, field in graph.shared.items()}
        fields = self._edge_fields(edge, weights)
        small = replace(
            graph,
            counts={NODE: len(rows)},
            nodes={NODE: nodes},
            edges={EDGE: torch.stack(ends)},
            edge_fields={EDGE: fields},
            shared=shared,
        )
        return Copies(small, {NODE: batch}, count, {NODE: table}), weights

    def _shared(self, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
        """Shared nodes, one for each degree: node, degree; and the number of each copy's nodes ``[copies, n]``."""
        copy, node = (kept.far & ~kept.own).nonzero(as_tuple=True)
        level = torch.zeros_like(node)
        if self.weighted:
            varied = self.varied[node].nonzero().view(-1)
            level[varied] = kept.degrees[copy[varied], node[varied]].unique(return_inverse=True)[1]
        key = node + level * kept.own.size(1)
        used = torch.zeros(int(key.max()) + 1 if len(key) else 0, dtype=torch.long, device=key.device)
        used[key] = 1
        number = torch.zeros(kept.own.shape, dtype=torch.long, device=key.device)
        number[copy, node] = (used.cumsum(0) - 1)[key]
        some = torch.zeros_like(used)
        some[key] = torch.arange(len(key), device=key.device)
        some = some[used.bool()]
        return node[some], kept.degrees[copy[some], node[some]], number

    def _edge_fields(self, edge: Tensor, weights: Tensor) -> Fields:
        fields = self.place.graph.edge_fields[EDGE]
        if self.weighted:
            return {name: weights.view(-1, *field.shape[1:]) for name, field in fields.items()}
        return {name: field.index_select(0, edge) for name, field in fields.items()}
