"""Networks for graphs, each with the question that suits it."""

from __future__ import annotations

import torch

import explain
from models import gcn
from models.convolutions import CHEBNET, MONET, ChebNet, MoNet
from models.panels.by_hand import agreement, on_node
from models.panels.nodes import case
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
    nothing = net(torch.zeros_like(data.x), data.edge_index)[node, target.label].item()
    return Finding.of(
        why,
        f"Which columns of x make a ChebNet put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=f"without any feature the network's own answer is {nothing:.4g}",
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
