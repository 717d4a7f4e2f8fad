"""Networks for graphs, each with the question that suits it."""

from __future__ import annotations

import explain
from models import dcnn, gat, gcn
from models.additive import Additive
from models.convolutions import CHEBNET, JK, JK_CORA, MONET, SAGE, ChebNet, MoNet
from models.panels.by_hand import agreement, held, on_node, without_features
from models.panels.nodes import CLUB, case
from models.panels.panel import Finding, panel


@panel("GCN", "Kipf and Welling, ICLR 2017")
def convolution() -> Finding:
    """Links, both directions of a pair as one player."""
    net, data, name, node = case(gcn.GCN, gcn.PAPER, gcn.KARATE)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley(target.players("edges", undirected=True), seed=0).explain(target)
    return Finding.of(
        why,
        f"Which links make a GCN put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


@panel("ChebNet", "Defferrard et al., NeurIPS 2016")
def chebyshev() -> Finding:
    """Features, along the straight line from none of them; four hops away is half of Cora, too many to play."""
    net, data, name, node = case(ChebNet, CHEBNET)
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=50).explain(target)
    return Finding.of(
        why,
        f"Which columns of x make a ChebNet put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=without_features(net, data, node, why),
    )


@panel("MoNet", "Monti et al., CVPR 2017")
def mixture() -> Finding:
    """Edges, each by itself: the Gaussians weigh the two directions of a pair differently."""
    net, data, name, node = case(MoNet, MONET)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley("edges", seed=0).explain(target)
    return Finding.of(
        why,
        f"Along which edges does a MoNet hear that node {node} of {name} is of class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


@panel("GraphSAGE", "Hamilton et al., NeurIPS 2017")
def sampled() -> Finding:
    """Links; their recipe has no citation graph, so that of the GCN is used."""
    net, data, name, node = case(SAGE, gcn.PAPER)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley(target.players("edges", undirected=True), seed=0).explain(target)
    return Finding.of(
        why,
        f"Which links make a GraphSAGE put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


@panel("GAT", "Veličković et al., ICLR 2018")
def attending() -> Finding:
    """Edges, which attention weighs one way only."""
    net, data, name, node = case(gat.GAT, gat.PAPER, gat.KARATE)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley("edges", seed=0).explain(target)
    return Finding.of(
        why,
        f"Along which edges does a GAT hear that node {node} of {name} is of class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


@panel("DCNN", "Atwood and Towsley, NeurIPS 2016")
def walks() -> Finding:
    """Nodes: a walk of two steps hears them along many edges."""
    net, data, name, node = case(dcnn.DCNN, dcnn.CORA)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley("nodes", seed=0).explain(target)
    return Finding.of(
        why,
        f"Which nodes make a DCNN put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
    )


@panel("JK", "Xu et al., ICML 2018")
def jumping() -> Finding:
    """Features, along the straight line from none of them; six hops reach most of a graph."""
    net, data, name, node = case(JK, JK_CORA)
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=50).explain(target)
    return Finding.of(
        why,
        f"Which columns of x make a JK network put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=without_features(net, data, node, why),
    )


@panel("Additive network", "Hastie and Tibshirani 1986, on a graph")
def glass_box() -> Finding:
    """Edges of a network whose exact shares are its own terms."""
    net, data, name, node = case(Additive, CLUB)
    assert isinstance(net, Additive)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley("edges", seed=0).explain(target)
    own = net.contributions(data.x, data.edge_index)[1].detach().sum(1)[why.players.index, target.label]
    return Finding.of(
        why,
        f"What does each edge tell an additive network of node {node} of {name}?",
        f"logit of class {target.label}",
        its_own_terms=held("the scores", "the network's own terms", own, why.scores),
    )
