"""Networks that walk along edges before or after they learn anything, and one that walks from edge to edge."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import to_dense_adj

import explain
from models.convolutions import APPNP, SGC, SIGN, LineGraphNet
from models.panels.by_hand import agreement, held, on_node, pairs, table_of
from models.panels.nodes import on_club
from models.panels.panel import Finding, panel


@panel(
    "SGC",
    "Wu et al., ICML 2019",
    conclude="Which columns make the logit: all of it but a constant. The network is linear, so that its gradient is "
    "the same everywhere, and every method that shares out a sum says the same.",
    beware="That this is so of other networks: there, a gradient at one place says what a small change would do.",
)
def linear() -> Finding:
    """Features of a network that is a matrix."""
    net, data, _, node = on_club(SGC)
    target = explain.wrap(net, data, feature_names=[f"being {member}" for member in range(34)]).node(node)
    why = explain.Gradient("features", method="input_x_gradient").explain(target)
    weights = net.get_parameter("layers.0.lin.weight").detach()[target.label]
    own = (step(data).matrix_power(2)[node] @ data.x * weights)[why.players.index]
    shapley = explain.Shapley("features", samples=2048, seed=0).explain(target)
    return Finding.of(
        why,
        f"Which columns of x, which say who a member is, make an SGC put node {node} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=held("the scores", "the row of A² x, times the weights", own, why.scores),
        shapley=held("the scores", "Shapley values", shapley.scores, why.scores),
    )


def step(data: Data) -> Tensor:
    """``D^-1/2 (adjacency + I) D^-1/2``, ``[nodes, nodes]``, a row for who hears."""
    edges, weight = gcn_norm(data.edge_index, None, len(data.x))
    return to_dense_adj(edges, edge_attr=weight, max_num_nodes=len(data.x))[0].T


@panel(
    "SIGN",
    "Rossi et al., 2020",
    conclude="Which links count, though the network never sees one: A x and A² x are computed before, and here again "
    "for every coalition.",
    beware="This from the columns that the network is given. With them held as they are no link has any credit: a "
    "right answer to another question.",
)
def ahead() -> Finding:
    """Links, to a network that is given powers of the adjacency."""
    net, data, name, node = on_club(SIGN, badges=True, hidden=8)
    assert isinstance(net, SIGN)
    walked = powers(net)
    model = explain.wrap(PrecomputedSIGN(net), walked(data), recompute=dict.fromkeys(("x1", "x2"), walked))
    target = model.node(node)
    why = explain.Shapley(target.players("edges", undirected=True), samples=512, seed=0).explain(target)
    return Finding.of(
        why,
        f"Which links make a SIGN, which is given A x and A² x, put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


class PrecomputedSIGN(nn.Module):
    """What a `SIGN` makes of powers that were computed before, as its authors run it."""

    def __init__(self, net: SIGN) -> None:
        super().__init__()
        self.each, self.out = net.each, net.out

    def forward(self, x: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
        """``x``, ``A x`` and ``A² x`` to logits."""
        parts = [layer(part) for layer, part in zip(self.each, (x, x1, x2), strict=True)]
        return self.out(torch.cat(parts, 1).relu())


def powers(net: SIGN) -> Callable[[Data], Data]:
    """A transform that writes ``A x`` and ``A² x`` into a graph."""

    def walked(data: Data) -> Data:
        _, x1, x2 = net._walked(data.x, data.edge_index)
        return Data(x=data.x, x1=x1, x2=x2, edge_index=data.edge_index, y=data.y)

    return walked


@panel(
    "APPNP",
    "Gasteiger et al., ICLR 2019",
    conclude="How far away it is heard what nodes say of themselves: each node's part is its own row of personalised "
    "PageRank times what the network makes of its features.",
    beware="What would be without a node. Here everyone keeps their links and only has nothing to say.",
)
def reach() -> Finding:
    """Nodes that say nothing and stay where they are."""
    net, data, name, node = on_club(APPNP, hidden=16)
    assert isinstance(net, APPNP)
    target = explain.wrap(net, data).node(node, removal="features")
    why = explain.Shapley("nodes", samples=2048, seed=0).explain(target)
    said, none = (net.second(net.first(x).relu()).detach()[:, target.label] for x in (data.x, 0 * data.x))
    own = (pagerank(data, net.walk.K, net.walk.alpha)[node] * (said - none))[why.players.index]
    away = hops(data.edge_index, node, len(data.x))[why.players.index]
    shares = [float(why.scores[away == far].abs().sum() / why.scores.abs().sum()) for far in (1, 2)]
    return Finding.of(
        why,
        f"How far does an APPNP hear for whether node {node} of {name} is of class {target.label}?",
        f"logit of class {target.label}",
        by_hand=held("the scores", "PageRank times what each node says", own, why.scores),
        reach=f"{shares[0]:.0%} of all credit, up or down, is of neighbours, {shares[1]:.0%} of their neighbours, "
        f"{1 - sum(shares):.0%} of others",
    )


def pagerank(data: Data, steps: int, alpha: float) -> Tensor:
    """``alpha sum_{k < K} (1 - alpha)^k A^k + (1 - alpha)^K A^K``, ``[nodes, nodes]``."""
    found, walk = torch.zeros(len(data.x), len(data.x)), torch.eye(len(data.x))
    for _ in range(steps):
        found, walk = found + alpha * walk, (1 - alpha) * step(data) @ walk
    return found + walk


def hops(edge_index: Tensor, node: int, nodes: int) -> Tensor:
    """Edges from each node to this one, ``[nodes]``; ``nodes`` where there is no way."""
    found = torch.full((nodes,), nodes).index_fill(0, torch.tensor([node]), 0)
    for _ in range(nodes):
        found = found.scatter_reduce(0, edge_index[0], found[edge_index[1]] + 1, "amin")
    return found


@panel(
    "Line graph",
    "Chen et al., ICLR 2019",
    conclude="Which edges need each other (red), and which stand in for each other (blue). Those into the node share "
    "one mean; what goes out counts only by what comes back along the next edge.",
    beware="Which of two made the other count: an interaction has no direction.",
)
def edge_to_edge() -> Finding:
    """Pairs of the edges at a node between two camps, out of it and into it."""
    net, data, name, _ = on_club(LineGraphNet, badges=True)
    node, near = 19, (data.edge_index == 19).any(0).nonzero()[:, 0]
    names = tuple(f"{a}→{b}" for a, b in data.edge_index[:, near].T.tolist())
    target = explain.wrap(net, data).node(node)
    why = explain.Interactions(explain.Players("edges", near, names)).explain(target)
    table = table_of(on_node(net, data, node, why), len(near))
    found = why.parts["interactions"] * (1 - torch.eye(len(near)))
    return Finding.of(
        why,
        f"Which edges at node {node} of {name} act on a network of edges together? Those not at it stay.",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
        pairs=held("the interactions", f"all {len(table)} coalitions by hand", pairs(table), found),
    )
