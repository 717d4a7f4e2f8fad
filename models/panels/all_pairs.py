"""Networks in which every node hears every other, asked about the columns of x."""

from __future__ import annotations

import torch

import explain
from models.difformer import CORA_S, DIFFormer
from models.nodeformer import CORA, NodeFormer
from models.panels.nodes import case
from models.panels.panel import Finding, panel


@panel("DIFFormer-s", "Wu et al., ICLR 2023")
def diffused() -> Finding:
    """Features, along the straight line from none of them."""
    net, data, name, node = case(DIFFormer, CORA_S, small={"layers": 2, "hidden": 16})
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=200).explain(target)
    nothing = net(torch.zeros_like(data.x), data.edge_index)[node, target.label].item()
    return Finding.of(
        why,
        f"Which columns of x make a DIFFormer-s put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=f"without any feature the network's own answer is {nothing:.4g}",
    )


@panel("NodeFormer", "Wu et al., NeurIPS 2022")
def random_features() -> Finding:
    """Features again; the projection is the one kept with the weights."""
    net, data, name, node = case(NodeFormer, CORA)
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=200).explain(target)
    nothing = net(torch.zeros_like(data.x), data.edge_index)[node, target.label].item()
    return Finding.of(
        why,
        f"Which columns of x make a NodeFormer put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=f"without any feature the network's own answer is {nothing:.4g}",
        assumed=NodeFormer.assumed["projection"],
    )
