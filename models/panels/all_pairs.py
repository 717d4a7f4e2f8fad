"""Networks in which every node hears every other, or a list of others that the whole graph makes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch_geometric.data import Data

import explain
from explain.analysis import diffusivity
from explain.plot.style import DIVERGING, INK, axes, centred, colour_bar
from models.convolutions import GPS, SGFormer
from models.difformer import CORA_S, DIFFormer
from models.graph_bert import GraphBert, intimacy
from models.nodeformer import CORA, NodeFormer
from models.panels.by_hand import agreement, held, on_node, without_features
from models.panels.nodes import QUICK, case, links, on_club
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


@panel(
    "DIFFormer-a",
    "Wu et al., ICLR 2023",
    conclude="That each diffusion brings all members nearer together, as the theory behind the network has it; what "
    "follows, the norm above all, spreads them again.",
    beware="That the last states are the most alike, or that the graph is not needed: the energy is of what is "
    "diffused among all pairs, beside it the graph is heard.",
)
def falling() -> Finding:
    """The energy before and after each diffusion among all pairs."""
    net, data, name, _ = on_club(DIFFormer, QUICK, kernel="a", hidden=16, layers=4)
    told = {"pairs.*": lambda layer, z: layer.weights(z)}
    found = [one for one in diffusivity(net, data.x, data.edge_index, attention=told) if one.kind == "kernel"]
    energies = torch.tensor([[one.before.everywhere, one.after.everywhere] for one in found])  # type: ignore[union-attr]
    states = [torch.stack(passed(net, data, one.layer)) for one in found]
    spread = torch.stack([(z - z.mean(1, keepdim=True)).square().sum((1, 2)) for z in states])
    falls = (energies[:, 1] / energies[:, 0]).tolist()
    return Finding(
        f"Does each diffusion of a DIFFormer-a bring the members of {name} nearer together?",
        "energy of the states, the sum of squared distances over all pairs",
        zigzag(energies),
        tuple((f"diffusion {place}", f"× {fall:.2f}") for place, fall in enumerate(falls, 1)),
        {"by hand": held("the energies", "2N squared distances from the mean", 2 * len(data.x) * spread, energies)},
    )


def passed(net: nn.Module, data: Data, layer: str) -> tuple[Tensor, Tensor]:
    """What a layer is given and what it gives, ``[nodes, columns]`` each."""
    seen: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda part, given, gives: seen.extend((given[0], gives)))
    with torch.no_grad():
        net(data.x, data.edge_index)
    handle.remove()
    return seen[0], seen[1]


def zigzag(energies: Tensor) -> Axes:
    """Energies ``[steps, 2]`` before and after each step, and on to the next."""
    ax = axes(None, (6.0, 3.4))
    arrow = {"arrowstyle": "->", "color": DIVERGING(0.1), "lw": 2}
    for place, (before, after) in enumerate(energies.tolist()):
        ax.annotate("", (place + 0.5, after), (place, before), arrowprops=arrow)
    ax.plot(torch.arange(energies.numel()) / 2, energies.flatten(), "o:", color=INK, linewidth=0.8, markersize=4)
    ax.set_xticks(torch.arange(len(energies)) + 0.25, [f"diffusion {n}" for n in range(1, len(energies) + 1)])
    ax.set_ylim(bottom=0)
    ax.set_ylabel("energy over all pairs")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


@panel(
    "SGFormer",
    "Wu et al., NeurIPS 2023",
    conclude="Whom the layer that hears everybody adds to a member's state (red) and whom it takes away (blue): from "
    "one community it takes nearly all others away.",
    beware="Shares of attention. The rows sum to 1, but with signs, and a member's own entry, which is left white, is "
    "many times as large as any other.",
)
def contrast() -> Finding:
    """The kernel of all pairs, which has signs."""
    net, data, name, _ = on_club(SGFormer, QUICK, badges=True)
    layer = next(one for one in diffusivity(net, data.x, data.edge_index) if one.kind == "kernel")
    given, gives = passed(net, data, layer.layer)
    with torch.no_grad():
        told = net.get_submodule(f"{layer.layer}.v")(given)[0]
    assert layer.S is not None
    others = layer.S.masked_fill(torch.eye(len(data.x), dtype=torch.bool), 0.0)
    means = [float(others[data.y == community].mean()) for community in range(4)]
    return Finding(
        f"Whom does the all-pair layer of an SGFormer add to a member of {name}, and whom does it take away?",
        "weight of who is heard (columns) in the state of who hears (rows); rows sum to 1",
        by_community(others, data.y),
        tuple((f"community {n} hears, mean", f"{mean:+.4f}".replace("-", "−")) for n, mean in enumerate(means)),
        {
            "by hand": held("the layer", "the weights times its values", layer.S.float() @ told, gives[0]),
            "signs": f"{float((others < 0).float().mean()):.0%} of the weights are below zero, the least of a member's "
            f"own is {float(layer.S.diagonal().min()):.2f}, and of any other at most {float(others.abs().max()):.2f}",
        },
    )


def by_community(weights: Tensor, of: Tensor) -> Axes:
    """``[nodes, nodes]`` with signs, nodes of a community side by side."""
    order, ax = of.argsort(stable=True), axes(None, (5.6, 4.6))
    norm = centred(weights.flatten().tolist())
    ax.imshow(weights[order][:, order].numpy(), cmap=DIVERGING, norm=norm)
    sizes = of.bincount()
    for end in sizes.cumsum(0)[:-1].tolist():
        ax.axhline(end - 0.5, color=INK, linewidth=0.6)
        ax.axvline(end - 0.5, color=INK, linewidth=0.6)
    middles = (sizes.cumsum(0) - sizes / 2 - 0.5).tolist()
    names = [f"community {n}" for n in range(len(sizes))]
    ax.set_xticks(middles, [str(n) for n in range(len(sizes))])
    ax.set_yticks(middles, names)
    ax.set_xlabel("community that is heard")
    colour_bar(ax, norm, "weight")
    return ax


@panel(
    "GPS",
    "Rampášek et al., NeurIPS 2022",
    conclude="Whom the last attention looks at, linked or not; and that looking at all alike would change the logit "
    "only as little as the proof says.",
    beware="Who pushes the logit. Attention has no sign, and here most of what is heard comes along the links beside "
    "it.",
)
def looking() -> Finding:
    """Attention among all members, beside the links."""
    net, data, name, node = on_club(GPS, QUICK, badges=True)
    target = explain.wrap(net, data).node(node)
    why = explain.Attention("nodes", aggregate="last").explain(target)
    linked = torch.isin(why.players.index, data.edge_index[0, data.edge_index[1] == node])
    return Finding.of(
        why,
        f"Whom does a GPS look at to put node {node} of {name} into class {target.label}, and does it matter?",
        f"logit of class {target.label}",
        by_hand=held(
            "the scores", "softmax of queries and keys", looks(net, data, node)[why.players.index], why.scores
        ),
        uniform=f"were all looked at alike, the logit would be {why.value + why.checks['change_under_uniform']:.3f}",
        links=f"{float(why.scores[linked].sum()):.0%} are of the {int(linked.sum())} members it is linked with, "
        f"{int(linked.sum()) / len(data.x):.0%} if all were looked at alike",
    )


@torch.no_grad()
def looks(net: nn.Module, data: Data, node: int) -> Tensor:
    """What a member looks at in the last attention, the mean over heads, ``[nodes]``."""
    name, attention = [found for found in net.named_modules() if isinstance(found[1], nn.MultiheadAttention)][-1]
    projected = F.linear(passed(net, data, name)[0][0], attention.in_proj_weight, attention.in_proj_bias)
    q, k, _ = (part.unflatten(1, (attention.num_heads, -1)).transpose(0, 1) for part in projected.chunk(3, 1))
    return (q[:, node, None] @ k.mT / q.size(-1) ** 0.5).softmax(-1).mean(0)[0]


@panel(
    "Graph-BERT",
    "Zhang et al., 2020",
    conclude="What each of a member's own links is worth, with all that hangs on it: who is on the list of intimates, "
    "how far they are, and what is heard along it.",
    beware="Which of these it was. A link that is gone makes another list, and the attention is over that list.",
)
def intimate() -> Finding:
    """A member's own links; the others stay."""
    net, data, _, node = on_club(GraphBert, QUICK, hidden=16)
    target = explain.wrap(net, data).node(node)
    own = links(target.players("edges", undirected=True), node)
    why = explain.Shapley(own).explain(target)
    best = int(why.order()[0])
    assert isinstance(net, GraphBert)
    assert own.groups is not None
    without = torch.ones(data.num_edges, dtype=torch.bool).index_fill(0, own.groups[best], False)
    before, after = (intimates(net, data.x, edges, node) for edges in (data.edge_index, data.edge_index[:, without]))
    return Finding.of(
        why,
        f"What are node {node}'s own links worth to a Graph-BERT that puts it into class {target.label}?",
        f"logit of class {target.label}",
        by_hand=agreement(target, why, on_node(net, data, node, why)),
        list=f"without {own.names[best]} {len(after - before)} of {len(after)} intimates are others",
    )


def intimates(net: GraphBert, x: Tensor, edge_index: Tensor, node: int) -> set[int]:
    """Those that a node's list has beside it, by personalised PageRank."""
    near = intimacy(edge_index, len(x), net.alpha)[node].index_fill(0, torch.tensor([node]), -1.0)
    return set(near.argsort(descending=True, stable=True)[: net.k].tolist())
