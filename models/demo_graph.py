"""The graph half of the demo: a GAT and a GCN, asked about one node by every method."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import matplotlib.pyplot as plt
import torch
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph
from tqdm.auto import tqdm

import explain
from explain.graph.model import GraphModel
from models import gat, gcn
from models.answers import Answer, Picture, asked
from models.checkpoints import Trained, trained


class Dataset(StrEnum):
    """Which graph."""

    KARATE = "karate"
    CORA = "cora"


STARTS = (
    4  # of the GAT: LeakyReLU has kinks, on which most runs come to rest; one that ends in a smooth minimum is asked
)
NAMES = {Dataset.KARATE: "Zachary's karate club", Dataset.CORA: "Cora"}


# --- models ---


def train_both(graph: Data, data: Dataset, seed: int, fresh: bool) -> dict[str, Trained]:
    """A GAT and a GCN: on Cora as in their papers, on the karate club to an optimum, the GAT's the best of `STARTS`."""
    if data is Dataset.CORA:
        return {
            "GAT": trained(gat.GAT, graph, gat.PAPER, seed=seed, fresh=fresh),
            "GCN": trained(gcn.GCN, graph, gcn.PAPER, seed=seed, fresh=fresh),
        }
    starts = [trained(gat.GAT, graph, gat.KARATE, seed=seed + k, fresh=fresh, dropout=0.0) for k in range(STARTS)]
    return {
        "GAT": min(starts, key=lambda net: float(net.facts["gradient_norm"])),
        "GCN": trained(gcn.GCN, graph, gcn.KARATE, seed=seed, fresh=fresh, dropout=0.0, smooth=True),
    }


def predictions(net: Trained, graph: Data) -> torch.Tensor:
    """The class of each node, ``[nodes]``."""
    with torch.no_grad():
        return net.module(graph.x, graph.edge_index).argmax(1)


def label(nets: dict[str, Trained], graph: Data, node: int) -> str:
    """What the models say about a node."""
    return " or ".join(sorted({str(int(predictions(net, graph)[node])) for net in nets.values()}))


def bridge(graph: Data, nets: dict[str, Trained]) -> int:
    """The unlabelled node between classes: every model gets it right, and the fewest of its neighbours agree with it.

    Among those of three neighbours or more, at least one of its own class, and at most 64 nodes within two hops, so
    that its story can be drawn. The first unlabelled node where there is none.
    """
    right = torch.stack([predictions(net, graph) == graph.y for net in nets.values()]).all(0) & graph.test_mask
    source, target = graph.edge_index
    degree = torch.bincount(target, minlength=graph.num_nodes)
    alike = torch.bincount(target[graph.y[source] == graph.y[target]], minlength=graph.num_nodes)
    share = alike / degree.clamp(min=1)
    candidates = (right & (degree >= 3) & (alike > 0)).nonzero().view(-1)
    for node in candidates[share[candidates].argsort(stable=True)].tolist():
        if len(k_hop_subgraph(node, 2, graph.edge_index, num_nodes=graph.num_nodes)[0]) <= 64:
            return node
    return int(graph.test_mask.nonzero()[0])


def introduction(graph: Data, data: Dataset, nets: dict[str, Trained], node: int) -> str:
    """What was trained, how well, and which node is asked about."""
    neighbours = graph.edge_index[0][graph.edge_index[1] == node]
    alike = int((graph.y[neighbours] == graph.y[node]).sum())
    how = ", ".join(
        f"{name} {net.facts['test_accuracy']:.1%}{' (cached)' if net.cached else ''}" for name, net in nets.items()
    )
    said = ", ".join(f"{name} says {int(predictions(net, graph)[node])}" for name, net in nets.items())
    labelled = int(graph.train_mask.sum())
    return (
        f"{NAMES[data]}: {graph.num_nodes} nodes, {graph.num_edges // 2} edges, {labelled} nodes labelled\n"
        f"test accuracy: {how}\n"
        f"node {node}: class {int(graph.y[node])}, {said}; {alike} of its {len(neighbours)} neighbours are of its class"
    )


# --- questions ---


def questions(
    model: GraphModel, node: int, attends: bool, seed: int
) -> Iterator[tuple[explain.Explainer, explain.Target]]:
    """Every method over the players it can credit: an edge is both directions of a pair.

    What an edge's *message* is worth is the question that all five methods can answer, so that they can be compared.
    """
    deleted, silenced = model.node(node), model.node(node, removal="message")
    edges = silenced.players("edges", undirected=True)
    yield explain.Shapley("nodes", seed=seed), deleted
    yield explain.Lime("nodes", seed=seed), deleted
    yield explain.Shapley(edges, seed=seed), silenced
    yield explain.Lime(edges, samples=2000, seed=seed), silenced
    yield explain.Gradient(edges, seed=seed), silenced
    yield explain.Mask(edges, seed=seed), silenced
    if attends:
        yield explain.Attention(edges), silenced
    yield explain.Influence(solver="lissa", seed=seed), deleted


def answers(nets: dict[str, Trained], graph: Data, node: int, seed: int) -> Iterator[Answer]:
    """One node of each model, by every method."""
    for name, net in nets.items():
        model = explain.wrap(net.module, graph, weight_decay=gcn.PAPER.weight_decay)
        for explainer, target in tqdm(list(questions(model, node, name == "GAT", seed)), desc=f"explaining {name}"):
            yield asked(name, explainer, target)


def curves(nets: dict[str, Trained], graph: Data, node: int) -> list[explain.Target]:
    """What the report asks again with fewer nodes or edges: as the methods were asked."""
    models = [explain.wrap(net.module, graph, weight_decay=gcn.PAPER.weight_decay) for net in nets.values()]
    return [model.node(node, removal=removal) for model in models for removal in ("delete", "message")]


def story(nets: dict[str, Trained], graph: Data, node: int, found: list[Answer]) -> str:
    """Why the edge whose message brings the most may lead to a node without which the number would be higher.

    Three games, each against the whole graph: the message of an edge silenced, the edge deleted, its end deleted.
    """
    lines = []
    for name, net in nets.items():
        model = explain.wrap(net.module, graph, weight_decay=gcn.PAPER.weight_decay)
        credit = {
            a.explanation.players.kind: a.explanation
            for a in found
            if (a.model, a.explanation.method) == (name, "Shapley")
        }
        edges, nodes = credit["edges"], credit["nodes"]
        friend = edges.players.names[int(edges.scores.argmax())]
        beside = next(end for end in friend.split("–") if end != str(node))
        silenced, deleted = model.node(node, removal="message"), model.node(node)
        value = deleted.value()
        message = _without(silenced, silenced.players("edges", undirected=True), friend)
        edge = _without(deleted, deleted.players("edges", undirected=True), friend)
        whole = _without(deleted, deleted.players("nodes"), beside)
        enemy = nodes.players.names[int(nodes.scores.argmin())]
        line = (
            f"{name}: the best friend is edge {friend}, the worst enemy node {enemy}. The number is {value:.2f}; with "
            f"the message of {friend} silenced {message:.2f}, with the edge deleted {edge:.2f}, with node {beside} "
            f"deleted {whole:.2f}. "
        )
        if message < value < edge:
            line += (
                "These are different games: silenced, a message is missed along with its share of the weights; "
                "deleted, its share goes to the other neighbours, who say this class more clearly"
            )
        elif max(message, edge) < value:
            line += "Both games say so"
        else:
            line += "Credit is a mean over coalitions: beside all others the edge is worth something else"
        lines.append(line + ".")
    return "\n".join(lines)


def _without(target: explain.Target, players: explain.Players, name: str) -> float:
    """The number when all play but this one."""
    present = torch.ones(1, len(players), dtype=torch.bool)
    present[0, players.names.index(name)] = False
    return float(target.game(players)(present))


def overview(found: list[Answer], comparisons: dict[tuple[str, str], explain.Comparison], story: str) -> Picture:
    """The GAT in four pictures: credit of edges, attention, training nodes behind the answer, agreement of methods."""
    by = {(a.explanation.method, a.explanation.players.kind): a.explanation for a in found if a.model == "GAT"}
    figure, axes = plt.subplots(2, 2, figsize=(13, 9.5), layout="constrained")
    by["Shapley", "edges"].plot(axes[0, 0])
    by["Attention", "edges"].plot(axes[0, 1])
    by["Influence", "train"].plot(axes[1, 0])
    comparisons["GAT", "edges"].plot(axes[1, 1])
    caption = "The GAT: credit of edges, attention, training nodes behind it, agreement of methods. "
    return Picture("overview", caption + story.replace("\n", " "), figure)
