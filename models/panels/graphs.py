"""Networks for nodes, each with the question that suits it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.data import Data

import explain
from explain.guard import random_states_kept
from models import dcnn, gat, gcn
from models.additive import Additive
from models.convolutions import CHEBNET, JK, JK_CORA, MONET, RGCN, SAGE, ChebNet, MoNet
from models.janossy import Janossy
from models.panels.by_hand import agreement, held, on_node, without_features
from models.panels.nodes import CLUB, QUICK, case, links, on_club
from models.panels.panel import Finding, panel
from models.votes import RELATIONS, votes
from models.votes import train as train_votes


@panel(
    "GCN",
    "Kipf and Welling, ICLR 2017",
    conclude="How much each link pushes this logit of this network up or down; together they are what all links bring.",
    beware="That the club would have been otherwise without a link. A credit is about the network, not about the "
    "world.",
)
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


@panel(
    "ChebNet",
    "Defferrard et al., NeurIPS 2016",
    conclude="Which columns make the difference between this node as it is and a graph whose features are all zero, "
    "along the straight line between them.",
    beware="Who the columns are heard from: a column is one player at all nodes together.",
)
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


@panel(
    "MoNet",
    "Monti et al., CVPR 2017",
    conclude="What each edge brings in each of its two directions, which these Gaussians weigh differently.",
    beware="That the edge of the larger credit has the larger weight: what is sent along it counts as well.",
)
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


@panel(
    "GraphSAGE",
    "Hamilton et al., NeurIPS 2017",
    conclude="How much each link pushes this logit; an absent one is no longer a part of the mean.",
    beware="What the message of a link is worth where the others stay as they are: without a link the others weigh "
    "more.",
)
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


@panel(
    "GAT",
    "Veličković et al., ICLR 2018",
    conclude="Along which edges this logit comes; attention is computed anew in each coalition, among those that are "
    "there.",
    beware="That attention is credit: an edge may be looked at and push the logit down.",
)
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


@panel(
    "DCNN",
    "Atwood and Towsley, NeurIPS 2016",
    conclude="What a node brings with its features and all walks through it.",
    beware="What a single walk brings: a node is on many.",
)
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


@panel(
    "JK",
    "Xu et al., ICML 2018",
    conclude="Which columns make the difference to a graph without features, whatever layer they come from.",
    beware="How far away they are heard: the logits read all six layers at once.",
)
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


@panel(
    "Additive network",
    "Hastie and Tibshirani 1986, on a graph",
    conclude="That the method finds what is known: the scores are the network's own terms.",
    beware="That it does as well on a network that is no sum; there is nothing there to hold it to but the definition.",
)
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


@panel(
    "R-GCN",
    "Schlichtkrull et al., ESWC 2018",
    conclude="That friends and foes count and strangers hardly do, as in the law that made the votes.",
    beware="Which friend: all edges of a relation are one player.",
)
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


@panel(
    "Janossy pooling",
    "Murphy et al., ICLR 2019",
    conclude="What each of a member's own links is worth to a network that reads its neighbours two by two, in every "
    "order.",
    beware="That order never matters to a network that reads a sequence: one that read the neighbours as they are "
    "numbered would give other answers to another numbering. This one does not, as the proof says.",
)
def orders() -> Finding:
    """A member's own links, and the same with all members numbered otherwise."""
    net, data, _, node = on_club(Janossy, QUICK, badges=True)
    target = explain.wrap(net, data).node(node)
    why = explain.Shapley(links(target.players("edges", undirected=True), node)).explain(target)
    moved, place = renumbered(data)
    again = explain.wrap(net, moved).node(int(place[node]), label=target.label)
    other = explain.Shapley(links(again.players("edges", undirected=True), int(place[node]))).explain(again)
    ends = [{int(place[int(end)]) for end in name.split("–")} for name in why.players.names]
    same = [[{int(end) for end in name.split("–")} for name in other.players.names].index(pair) for pair in ends]
    return Finding.of(
        why,
        f"What are node {node}'s own links worth to a Janossy pooling that puts it into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
        order=held("the scores", "all members numbered at random", other.scores[same], why.scores),
    )


def renumbered(data: Data) -> tuple[Data, Tensor]:
    """The graph with its nodes in another order, and the new number of each."""
    place = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(0))
    old = place.argsort()
    return Data(x=data.x[old], edge_index=place[data.edge_index], y=data.y[old]), place
