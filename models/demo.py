"""``make demo``: train a GAT and a GCN, ask why of one node by every method, compare, and write it all down."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.figure import Figure
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph
from tqdm.auto import tqdm

import explain
from explain.graph.model import GraphModel
from explain.summary import own_check, top_players
from models import gat, gcn
from models.checkpoints import Trained, trained
from models.datasets import cora, karate_club


class Dataset(StrEnum):
    """Which graph."""

    KARATE = "karate"
    CORA = "cora"


@dataclass(frozen=True)
class Answer:
    """An explanation of one model, and the warnings that came with it."""

    model: str
    explanation: explain.Explanation
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """For file names."""
        return f"{self.model}-{self.explanation.method}-{self.explanation.players.kind}".lower()


def main(
    data: Annotated[Dataset, typer.Option(help="karate: inside torch_geometric; cora: from EXPLAIN_DATA")] = (
        Dataset.KARATE
    ),
    node: Annotated[int | None, typer.Option(help="the explained node; a bridge between classes when left out")] = None,
    seed: Annotated[int, typer.Option(help="of the training and of every explainer")] = 0,
    out: Annotated[Path, typer.Option(help="folder for explanations, pictures and report.html")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="train again, whatever the cache holds")] = False,
) -> None:
    """Explain one node of a trained GAT and GCN by every method; write explanations, pictures and a report."""
    started = time.perf_counter()
    mpl.use("agg")
    try:
        graph = karate_club(labelled=3) if data is Dataset.KARATE else cora()
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    if node is not None and not 0 <= node < graph.num_nodes:
        raise typer.BadParameter(f"a node from 0 to {graph.num_nodes - 1}, got {node}", param_hint="--node")
    with one_thread():
        nets = train_both(graph, data, seed, fresh)
        chosen = bridge(graph, nets) if node is None else node
        print(introduction(graph, data, nets, chosen))
        answers = [answer for name, net in nets.items() for answer in ask_all(name, net, graph, chosen, seed)]
    comparisons = compare_all(answers)
    out.mkdir(parents=True, exist_ok=True)
    write(answers, comparisons, out, f"Why class {label(nets, graph, chosen)}? Node {chosen} of {NAMES[data]}")
    print(table(answers))
    print(f"\n{out / 'report.html'} tells it all · {time.perf_counter() - started:.0f} s")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes with one thread: on small graphs several only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


NAMES = {Dataset.KARATE: "Zachary's karate club", Dataset.CORA: "Cora"}


# --- models ---


def train_both(graph: Data, data: Dataset, seed: int, fresh: bool) -> dict[str, Trained]:
    """A GAT and a GCN: on Cora as in their papers, on the karate club to an optimum without dropout."""
    if data is Dataset.CORA:
        return {
            "GAT": trained(gat.GAT, graph, gat.PAPER, seed=seed, fresh=fresh),
            "GCN": trained(gcn.GCN, graph, gcn.PAPER, seed=seed, fresh=fresh),
        }
    return {
        "GAT": trained(gat.GAT, graph, gat.KARATE, seed=seed, fresh=fresh, dropout=0.0),
        "GCN": trained(gcn.GCN, graph, gcn.KARATE, seed=seed, fresh=fresh, dropout=0.0),
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


def ask_all(name: str, net: Trained, graph: Data, node: int, seed: int) -> Iterator[Answer]:
    """One node of one model, by every method."""
    model = explain.wrap(net.module, graph, weight_decay=gcn.PAPER.weight_decay)
    asked = list(questions(model, node, name == "GAT", seed))
    for explainer, target in tqdm(asked, desc=f"explaining {name}"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = explainer.explain(target)
        yield Answer(name, found, tuple(dict.fromkeys(str(w.message) for w in caught)))


def compare_all(answers: list[Answer]) -> dict[tuple[str, str], explain.Comparison]:
    """How far methods agree on the size of credit, by model and kind of players; attention and masks have no sign."""
    groups: dict[tuple[str, str], list[explain.Explanation]] = {}
    for answer in answers:
        groups.setdefault((answer.model, answer.explanation.players.kind), []).append(answer.explanation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kept as the comparison's own notes
        return {key: explain.compare(*group, absolute=True) for key, group in groups.items() if len(group) > 1}


# --- what is left behind ---


def write(answers: list[Answer], comparisons: dict[tuple[str, str], explain.Comparison], out: Path, title: str) -> None:
    """Every explanation as a file and a picture, the agreements as pictures, an overview, and the report."""
    for answer in answers:
        answer.explanation.save(out / f"{answer.name}.safetensors")
        _picture(answer.explanation.plot().figure, out / f"{answer.name}.png")
    for (model, kind), comparison in comparisons.items():
        _picture(comparison.plot().figure, out / f"agreement-{model.lower()}-{kind}.png")
    overview = _overview(answers, comparisons)
    explain.report.write(
        [answer.explanation for answer in answers],
        out / "report.html",
        title=title,
        comparisons={f"Agreement on {model}, {kind}": found for (model, kind), found in comparisons.items()},
        figures={"The GAT: credit of edges, attention, training nodes behind it, agreement of methods": overview},
    )
    _picture(overview, out / "overview.png")


def _overview(answers: list[Answer], comparisons: dict[tuple[str, str], explain.Comparison]) -> Figure:
    """The GAT in four pictures: credit of edges, attention, training nodes behind the answer, agreement of methods."""
    found = {(a.explanation.method, a.explanation.players.kind): a.explanation for a in answers if a.model == "GAT"}
    figure, axes = plt.subplots(2, 2, figsize=(13, 9.5), layout="constrained")
    found["Shapley", "edges"].plot(axes[0, 0])
    found["Attention", "edges"].plot(axes[0, 1])
    found["Influence", "train"].plot(axes[1, 0])
    comparisons["GAT", "edges"].plot(axes[1, 1])
    return figure


def _picture(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=80, facecolor="white")
    plt.close(figure)


def table(answers: list[Answer]) -> str:
    """One line an explanation, and below what the methods warned about."""
    rows = [("method", "model", "players", "top 3", "own check", "calls", "seconds")]
    notes: list[str] = []
    for answer in answers:
        found = answer.explanation
        marks = [f" [{len(notes) + i}]" for i in range(1, len(answer.warnings) + 1)]
        notes += [f"{mark.strip()} {text}" for mark, text in zip(marks, answer.warnings, strict=True)]
        players = f"{len(found.players)} {'training nodes' if found.players.kind == 'train' else found.players.kind}"
        cost = (f"{found.calls}", f"{found.seconds:.2f}")
        rows.append((found.method + "".join(marks), answer.model, players, top_players(found), own_check(found), *cost))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(["", lines[0], "─" * max(map(len, lines)), *lines[1:], "", *notes])


if __name__ == "__main__":
    typer.run(main)
