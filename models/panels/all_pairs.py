"""Networks in which every node hears every other, asked about the columns of x."""

from __future__ import annotations

import explain
from models.difformer import CORA_S, DIFFormer
from models.nodeformer import CORA, NodeFormer
from models.panels.by_hand import without_features
from models.panels.nodes import case
from models.panels.panel import Finding, panel


@panel(
    "DIFFormer-s",
    "Wu et al., ICLR 2023",
    conclude="Which columns make the difference to a graph without features, among all pairs of nodes and along the "
    "edges.",
    beware="Who says it: every node hears every other, and a column is one player at all of them.",
)
def diffused() -> Finding:
    """Features, along the straight line from none of them."""
    net, data, name, node = case(DIFFormer, CORA_S, small={"layers": 2, "hidden": 16})
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=200).explain(target)
    return Finding.of(
        why,
        f"Which columns of x make a DIFFormer-s put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=without_features(net, data, node, why),
    )


@panel(
    "NodeFormer",
    "Wu et al., NeurIPS 2022",
    conclude="Which columns make the difference to a graph without features, for the projection that is kept with the "
    "weights.",
    beware="What the network would say of a new seed: its projection is random, and another is another network.",
)
def random_features() -> Finding:
    """Features again; the projection is the one kept with the weights."""
    net, data, name, node = case(NodeFormer, CORA)
    target = explain.wrap(net, data).node(node)
    why = explain.Gradient("features", method="integrated_gradients", steps=200).explain(target)
    return Finding.of(
        why,
        f"Which columns of x make a NodeFormer put node {node} of {name} into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=without_features(net, data, node, why),
        assumed=NodeFormer.assumed["projection"],
    )
