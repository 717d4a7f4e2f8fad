"""Networks for graphs, each with the question that suits it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.transforms import OneHotDegree

import explain
from explain.analysis import clusters
from explain.guard import random_states_kept
from models import dcnn, gat, gcn
from models.additive import Additive
from models.convolutions import CHEBNET, JK, JK_CORA, MONET, RGCN, SAGE, ChebNet, MoNet
from models.motif_nets import Schedule, fit
from models.motifs import ba_2motif
from models.panels.by_hand import agreement, held, on_graph, on_node, without_features
from models.panels.nodes import CLUB, case
from models.panels.panel import Finding, panel
from models.pooling import DiffPool
from models.votes import RELATIONS, votes
from models.votes import train as train_votes


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


@panel("R-GCN", "Schlichtkrull et al., ESWC 2018")
def relational() -> Finding:
    """All edges of a relation as one player, where friends and foes are known to count, and strangers not to."""
    data, node = votes(), 1
    with random_states_kept():
        torch.manual_seed(0)
        net = train_votes(RGCN(2, 2, len(RELATIONS), hidden=8), data)
    target = explain.wrap(net, data).node(node)
    found = explain.Shapley("relations", seed=0).explain(target)
    why = replace(found, players=replace(found.players, names=RELATIONS))

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        heard = coalition[data.edge_type]
        return float(net(data.x, data.edge_index[:, heard], data.edge_type[heard])[node, target.label])

    right = (net(data.x, data.edge_index, data.edge_type).argmax(1) == data.y)[~data.train_mask].float().mean()
    return Finding.of(
        why,
        f"Who makes an R-GCN foresee the vote of person {node}: friends, foes, or strangers?",
        f"logit of vote {target.label}",
        explain.plot.bars(why),
        by_hand=agreement(target, why, worth),
        law=f"a vote is as friends', against foes'; it is foreseen of {right:.0%} of those not trained on",
    )


@panel("DiffPool", "Ying et al., NeurIPS 2018")
def pooled() -> Finding:
    """Links of a graph whose class is the motif in it, with the motif ringed; nodes know how many links they had."""
    benchmark = ba_2motif(graphs=120)
    graphs = [OneHotDegree(24, cat=False)(graph) for graph in benchmark.data]  # of 25 nodes
    with random_states_kept():
        torch.manual_seed(0)
        net = DiffPool(graphs[0].num_features, 2, hidden=16, clusters=4)
    fit(net, graphs[:80], Schedule(epochs=80, lr=0.01, batch_size=16), seed=0)
    asked = 80
    target = explain.wrap(net, graphs[asked], task="graph").graph(label=0)
    with _degrees_stay():
        found = explain.Shapley(target.players("edges", undirected=True), seed=0).explain(target)
        by_hand = agreement(target, found, on_graph(net, graphs[asked], found))
    motif = benchmark.truth(asked)
    ringed = dict(found.players.geometry) | {"focus": graphs[asked].edge_index[:, motif].unique()}
    why = replace(found, players=replace(found.players, geometry=ringed))
    own = motif[why.players.index]
    strongest = own[why.order()[: int(own.sum())]]
    shares = clusters(net, graphs[asked].x, graphs[asked].edge_index, layer="assign").of.bincount()
    return Finding.of(
        why,
        "Which links make a DiffPool see a house in this graph, and not a ring of five? The house is ringed.",
        "logit of the house",
        by_hand=by_hand,
        motif=f"{int(strongest.sum())} of the {len(strongest)} strongest links are the house's own",
        clusters=f"{int(shares.max())} of {int(shares.sum())} nodes are mostly in one cluster",
    )


@contextmanager
def _degrees_stay() -> Iterator[None]:
    """Within: that nodes know how many links they had is no doubt, as the panel says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="data.x follows from the edges")
        yield
