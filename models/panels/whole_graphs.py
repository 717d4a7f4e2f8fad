"""Networks for whole graphs: who among 25 nodes makes one see a house. Nodes know how many links they had."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import SortAggregation
from torch_geometric.transforms import OneHotDegree
from torch_geometric.utils import degree

import explain
from explain.analysis import clusters
from explain.guard import random_states_kept
from models.motif_nets import Schedule, fit, share_right
from models.motifs import Benchmark, ba_2motif
from models.panels.by_hand import agreement, held, on_graph
from models.panels.panel import Finding, panel
from models.pooling import GIN, DeepSets, DiffPool, SAGPool, SortPool

ASKED, SIZE = 80, 5  # the graph that is asked about, the first not trained on, and the nodes of a house
NUMBER = "logit of the house"


@cache
def houses() -> Benchmark:
    """120 trees of 20 nodes, each with a house or a ring of five; columns of ``x`` are degrees."""
    benchmark = ba_2motif(graphs=120)
    return replace(benchmark, data=[OneHotDegree(24, cat=False)(graph) for graph in benchmark.data])


def asked() -> Data:
    """The graph that is asked about: it has a house."""
    return houses().data[ASKED]


def house() -> Tensor:
    """Its nodes, ``[5]``."""
    return asked().edge_index[:, houses().truth(ASKED)].unique()


def trained(kind: type[nn.Module], epochs: int, **sizes: Any) -> tuple[nn.Module, str]:
    """A network for these graphs that learned from 80 of them, and how it does on the other 40, in words."""
    graphs: list[Data] = list(houses().data)
    with random_states_kept():
        torch.manual_seed(0)
        net = kind(graphs[0].num_features, 2, hidden=16, **sizes)
    fit(net, graphs[:ASKED], Schedule(epochs=epochs, lr=0.01, batch_size=16), seed=0)
    right = share_right(net, graphs[ASKED:])
    return net, f"{right:.0%} of {len(graphs) - ASKED} graphs that it did not learn from are told right"


def ringed(why: explain.Explanation, nodes: Tensor) -> explain.Explanation:
    """The same answer, whose picture rings these nodes."""
    return replace(why, players=replace(why.players, geometry=dict(why.players.geometry) | {"focus": nodes}))


@panel(
    "DeepSets",
    "Zaheer et al., NIPS 2017",
    conclude="Which degrees are counted. All nodes of a degree are one player; without any link the logit is the same.",
    beware="That it sees the house. It sees a bag of numbers in which a house shows, and takes any other graph with "
    "as many nodes of each degree for the same.",
)
def counted() -> Finding:
    """Nodes by degree."""
    (net, right), graph = trained(DeepSets, epochs=80), asked()
    degrees = degree(graph.edge_index[0], len(graph.x)).long()
    groups = tuple((degrees == each).nonzero()[:, 0] for each in degrees.unique())
    names = tuple(f"{len(own)} of degree {each}" for own, each in zip(groups, degrees.unique().tolist(), strict=True))
    players = explain.Players("nodes", torch.stack([own[0] for own in groups]), names, groups)
    target = explain.wrap(net, [graph], task="graph").graph(label=0)
    with _degrees_stay():
        why = explain.Shapley(players).explain(target)
        by_hand = agreement(target, why, on_graph(net, graph, why))
    unlinked = net(graph.x, graph.edge_index[:, :0], torch.zeros(len(graph.x), dtype=torch.long))[:, 0].detach()
    return Finding.of(
        why,
        "Nodes of which degree make a DeepSets, which looks at no link, take this graph for one with a house?",
        NUMBER,
        explain.plot.waterfall(why),
        by_hand=by_hand,
        without_links=held("the logit", "the graph without any link", unlinked, torch.tensor([why.value])),
        learned=right,
    )


@panel(
    "GIN",
    "Xu et al., ICLR 2019",
    conclude="Without these links the network sees a ring, and without any smaller set a house: each was asked.",
    beware="What a link is worth: those that stay have no credit, however much they say. Nor that no other set of as "
    "many links does the same.",
)
def least() -> Finding:
    """The fewest links to take away."""
    (net, right), graph = trained(GIN, epochs=30), asked()
    target = explain.wrap(net, [graph], task="graph").graph(label=0)
    with _degrees_stay():
        found = explain.Counterfactual(target.players("edges", undirected=True), seed=0).explain(target)
    gone = found.scores.nonzero()[:, 0].tolist()
    smaller = [some for size in range(len(gone)) for some in combinations(range(len(found.players)), size)]
    still = " or ".join({told(net, graph, found, some) for some in smaller})
    return Finding.of(
        ringed(found, house()),
        "What are the fewest links without which a GIN sees a ring in this graph? The house is ringed.",
        NUMBER,
        by_hand=f"a {told(net, graph, found, gone)} without them, a {still} without any of {len(smaller)} smaller sets",
        learned=right,
    )


@torch.no_grad()
def told(net: nn.Module, graph: Data, why: explain.Explanation, gone: Iterable[int]) -> str:
    """What a network sees in the graph without some of the players' links."""
    own = [why.players.groups[player] for player in gone] if why.players.groups else []
    left = torch.ones(graph.num_edges, dtype=torch.bool).index_fill(0, torch.cat(own or [torch.empty(0).long()]), False)
    seen = net(graph.x, graph.edge_index[:, left], torch.zeros(len(graph.x), dtype=torch.long))
    return ("house", "ring")[int(seen.argmax())]


@panel(
    "SortPool",
    "Zhang et al., AAAI 2018",
    conclude="What the logit loses without a node. One that is not among the ten that are read still counts: others "
    "have heard it, and another takes a free place.",
    beware="Shares. What single nodes take with them does not add up to the logit.",
)
def read_in_order() -> Finding:
    """Nodes, one left out at a time."""
    (net, right), graph = trained(SortPool, epochs=40), asked()
    target = explain.wrap(net, [graph], task="graph").graph(label=0)
    with _degrees_stay():
        found = explain.Occlusion("nodes").explain(target)
    why, worth = ringed(found, read(net, graph)), on_graph(net, graph, found)
    without = torch.tensor([worth(one) for one in ~torch.eye(len(graph.x), dtype=torch.bool)])
    unread = found.scores.index_fill(0, read(net, graph), 0.0).abs().max()
    return Finding.of(
        why,
        "Does a node count that a SortPool does not read? The ten that it reads, the first in its order, are ringed.",
        NUMBER,
        by_hand=held("the scores", "the graph without each node", why.value - without, why.scores),
        unread=f"without one of the nodes that are not read the logit changes by up to {unread:.2f}",
        learned=right,
    )


@torch.no_grad()
def read(net: nn.Module, graph: Data) -> Tensor:
    """The nodes that a `SortPool` reads: those with the highest last column."""
    seen: list[Tensor] = []
    (sort,) = (part for part in net.modules() if isinstance(part, SortAggregation))
    handle = sort.register_forward_pre_hook(lambda part, given: seen.append(given[0]))
    net(graph.x, graph.edge_index, torch.zeros(len(graph.x), dtype=torch.long))
    handle.remove()
    return seen[0][:, -1].argsort(descending=True, stable=True)[: sort.k]


@panel(
    "SAGPool",
    "Lee et al., ICML 2019",
    conclude="What the nodes that the first layer keeps bring to the logit, and what those that it drops bring.",
    beware="That dropped nodes say nothing: they were heard by a convolution before they were dropped. Nor that the "
    "same nodes are kept where others are gone: the network chooses anew.",
)
def kept() -> Finding:
    """Two players: nodes that stay, and nodes that go."""
    (net, right), graph = trained(SAGPool, epochs=40), asked()
    target = explain.wrap(net, [graph], task="graph").graph(label=0)
    stays = clusters(net, graph.x, graph.edge_index, layer="pools.0")
    with _degrees_stay():
        why = explain.Shapley(stays.players(target)).explain(target)
        by_hand = agreement(target, why, on_graph(net, graph, why))
    own = int((stays.of[house()] == 0).sum())
    return Finding.of(
        why,
        "Is what a SAGPool drops after its first layer lost to it?",
        NUMBER,
        by_hand=by_hand,
        house=f"{own} of the house's {SIZE} nodes are kept",
        learned=right,
    )


@panel(
    "DiffPool",
    "Ying et al., NeurIPS 2018",
    conclude="Which links push the logit of the house up or down; its own are among the strongest.",
    beware="That a strong link makes a house: the network tells two kinds of graphs apart, and what speaks against a "
    "ring is as good to it.",
)
def pooled() -> Finding:
    """Links, both directions of a pair as one player."""
    (net, right), graph = trained(DiffPool, epochs=80, clusters=4), asked()
    target = explain.wrap(net, [graph], task="graph").graph(label=0)
    with _degrees_stay():
        found = explain.Shapley(target.players("edges", undirected=True), seed=0).explain(target)
        by_hand = agreement(target, found, on_graph(net, graph, found))
    why, own = ringed(found, house()), houses().truth(ASKED)[found.players.index]
    strongest = own[why.order()[: int(own.sum())]]
    shares = clusters(net, graph.x, graph.edge_index, layer="assign").of.bincount()
    return Finding.of(
        why,
        "Which links make a DiffPool see a house in this graph, and not a ring of five? The house is ringed.",
        NUMBER,
        by_hand=by_hand,
        motif=f"{int(strongest.sum())} of the {len(strongest)} strongest links are the house's own",
        clusters=f"{int(shares.max())} of {int(shares.sum())} nodes are mostly in one cluster",
        learned=right,
    )


@contextmanager
def _degrees_stay() -> Iterator[None]:
    """Within: that nodes know how many links they had is no doubt, as the panel says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="data.x follows from the edges")
        yield
