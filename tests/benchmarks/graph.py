"""How long explanations of a graph network take, and how far off they are, beside other libraries, in one process.

``python -m tests.benchmarks.graph [shapes] [cora] [exact] [large] [all-cora] [--quick]`` prints processor seconds of
one thread, and keeps them with what they were measured on, see ``record.py``. Quick: exact, and the smallest of shapes.

- shapes: nodes of BA-Shapes with about 20, 110 and 230 edges, a three-layer GCN; cora: the two-layer GCN and GAT of
  their papers (needs ``EXPLAIN_DATA``). All have 2048 model evaluations: Shapley on the fast path and on the generic
  one, shap's KernelExplainer on a function that runs the model on the whole graph, captum's ShapleyValueSampling on the
  k-hop graph; torch_geometric's GNNExplainer (100 epochs) answers another question. "cold" is the first explanation of
  a freshly wrapped model, "warm" the best of the later ones. The error is the relative L2 distance to the exact values
  where 2^P coalitions can be asked, else to permutations of a hundredfold budget on the fast path.
- exact: all 2^20 coalitions. large: a node of a graph of a million nodes and ten million edges.
  all-cora: every test node of Cora.
"""

from __future__ import annotations

import argparse
import gc
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import captum.attr
import numpy as np
import shap
import torch
import torch_geometric.transforms as T
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.explain import Explainer as PygExplainer
from torch_geometric.explain import GNNExplainer
from torch_geometric.nn import GAT, GCN

import explain
from explain import Explanation, Players
from explain.graph.model import GraphModel
from explain.graph.targets import GraphTarget
from explain.shapley import Shapley
from tests.benchmarks.record import record

SAMPLES = 2048
EXACT = 20  # players whose exact values are computed for the error
# times that shap's KernelExplainer takes of ours, by the players that a case was chosen for
GOALS = {"fast path": {20: 1000, 110: 300, 230: 200}, "generic path": {20: 100, 110: 25, 230: 15}}
CAPTUM = 150  # and captum's ShapleyValueSampling of the fast path


@dataclass(frozen=True)
class Case:
    """One node of one model, with the edges that play."""

    name: str
    module: nn.Module
    data: Data
    node: int
    wanted: int


@dataclass(frozen=True)
class Row:
    """What one method took for one node: processor seconds, those of the first time, the relative error."""

    case: str
    node: int
    edges: int
    method: str
    seconds: float
    cold: float
    error: float | None


Rows = list[dict[str, Any]]  # as they are kept


# --- models and nodes ---


def shapes() -> tuple[nn.Module, Data]:
    """BA-Shapes (Ying et al. 2019) with constant features, and a GCN of three layers trained on it."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generators of torch_geometric draw from the global state
    random.seed(0)
    made = ExplainerDataset(BAGraph(300, 5), "house", 80, transform=T.Constant())[0]
    data = Data(x=made.x, edge_index=made.edge_index, y=made.y)  # without the masks of the motifs, which are the answer
    net = GCN(1, 20, 3, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.005)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.x, data.edge_index), data.y).backward()
        optimizer.step()
    return net.eval(), data


def citations() -> Iterator[tuple[str, nn.Module, Data]]:
    """Cora with the GCN and the GAT of their papers."""
    from models import gat, gcn
    from models.checkpoints import trained
    from models.datasets import cora

    data = cora()
    yield "Cora GCN", trained(gcn.GCN, data, gcn.PAPER, seed=0).module, data
    yield "Cora GAT", trained(gat.GAT, data, gat.PAPER, seed=0).module, data


def cases(what: str) -> Iterator[Case]:
    """Nodes whose edges number about 20, 110 and 230."""
    found = [("BA-Shapes GCN", *shapes())] if what == "shapes" else list(citations())
    for name, module, data in found:
        sizes = _players(data, 3 if what == "shapes" else 2)
        for wanted in (20, 110, 230):
            node = min(sizes, key=lambda v: abs(sizes[v] - wanted))
            yield Case(name, module, data, node, wanted)


def _players(data: Data, hops: int) -> dict[int, int]:
    """Edges that can carry a message, for some of the nodes."""
    model = GraphModel(_Hops(hops), Data(x=data.x[:, :1], edge_index=data.edge_index))
    nodes = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))[:400].tolist()
    from explain.graph.tensors.cuts import cut

    graph = model.whole_structure
    assert graph is not None
    return {v: int(cut(graph, (("", v),), hops, "in").reachable.sum()) for v in nodes}


class _Hops(nn.Module):
    """Only its graph is asked for."""

    def __init__(self, hops: int) -> None:
        super().__init__()
        self.hops = hops

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x


# --- methods ---


def ours(case: Case, generic: bool) -> tuple[float, float, Tensor]:
    """Cold and warm seconds of ours, and the scores."""
    model = GraphModel(case.module, case.data)
    if generic:
        model.state()
        model.findings.program = "not asked for"
    started = time.process_time()
    target = model.node(case.node)
    explainer = Shapley(messages(target), estimator="kernel", samples=SAMPLES, seed=0)
    scores = explainer.explain(target).scores
    cold = time.process_time() - started
    warm = [_seconds(lambda: explainer.explain(target))[0] for _ in range(5 if generic else 9)]
    return cold, min(warm), scores


def messages(target: GraphTarget) -> Players:
    """The edges that carry a message to the node, as other libraries know them: not those of a degree alone."""
    return target.players("edges", degrees=False)


def naive(case: Case, edges: Tensor, label: int) -> Callable[[np.ndarray], np.ndarray]:
    """The model on the whole graph, one coalition after another, as an explainer without graphs has it."""

    def values(masks: np.ndarray) -> np.ndarray:
        found = np.empty(len(masks))
        keep = torch.ones(case.data.num_edges, dtype=torch.bool)
        with torch.no_grad():
            for i, mask in enumerate(masks):
                keep[edges] = torch.from_numpy(mask > 0.5)
                found[i] = case.module(case.data.x, case.data.edge_index[:, keep])[case.node, label]
        return found

    return values


def with_shap(case: Case, edges: Tensor, label: int) -> tuple[float, Tensor]:
    """shap.KernelExplainer, no feature selection."""
    background = np.zeros((1, len(edges)))

    def run() -> np.ndarray:
        explainer = shap.KernelExplainer(naive(case, edges, label), background)
        return explainer.shap_values(np.ones(len(edges)), nsamples=SAMPLES, l1_reg=0, silent=True)

    seconds, found = _seconds(run)
    return seconds, torch.as_tensor(np.asarray(found)).double().view(-1)


def with_captum(case: Case, model: GraphModel, players: int) -> tuple[float, Tensor]:
    """captum.attr.ShapleyValueSampling on the computation graph: whole permutations within the budget."""
    target = model.node(case.node)
    place, graph = target.place, target.place.graph
    x, edge_index = next(iter(graph.nodes.values()))["x"], next(iter(graph.edges.values()))
    inner, row = place.reachable.nonzero().view(-1), place.focus[0][1]

    def value(amounts: Tensor) -> Tensor:
        keep = torch.ones(edge_index.size(1), dtype=torch.bool)
        keep[inner] = amounts[0] > 0.5
        return case.module(x, edge_index[:, keep])[row, target.label].view(1)

    torch.manual_seed(0)
    rounds = max(1, SAMPLES // players)
    with torch.no_grad():
        seconds, found = _seconds(
            lambda: captum.attr.ShapleyValueSampling(value).attribute(torch.ones(1, players), n_samples=rounds)
        )
    order = place.edges[inner].argsort()
    return seconds, found[0, order].double()


def with_gnn_explainer(case: Case) -> float:
    """torch_geometric's GNNExplainer, 100 epochs on the whole graph."""
    explainer = PygExplainer(
        case.module,
        algorithm=GNNExplainer(epochs=100),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    torch.manual_seed(0)
    return _seconds(lambda: explainer(case.data.x, case.data.edge_index, index=case.node))[0]


def reference(model: GraphModel, node: int, players: int) -> Tensor:
    """Exact values, or those of a hundredfold budget."""
    target = model.node(node)
    if players <= EXACT:
        return Shapley(messages(target), estimator="exact").explain(target).scores
    samples = max(100 * SAMPLES, 200 * players)
    return Shapley(messages(target), estimator="permutation", samples=samples, seed=1).explain(target).scores


def _seconds(run: Callable[[], object]) -> tuple[float, object]:
    gc.collect()
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


# --- tables ---


def compare(what: str, quick: bool = False) -> Rows:
    """One table of methods for each node."""
    chosen = (case for case in cases(what) if case.wanted <= EXACT or not quick)
    return [asdict(row) for case in chosen for row in compared(case)]


def compared(case: Case) -> list[Row]:
    """Every method for one node."""
    model = GraphModel(case.module, case.data)
    target = model.node(case.node)
    game = target.game(messages(target))
    edges, players, label = game.players.index, len(game.players), target.label
    note = game.checks["fast_path"]
    exact = reference(model, case.node, players)
    against = "exact" if players <= EXACT else "100 x the samples"
    print(f"\n{case.name}, node {case.node}: {players} edges; fast path: {note}; error against {against}")
    print(f"{'method':34} {'seconds':>10} {'cold':>8} {'x slower':>9} {'error':>7}")
    measured = partial(Row, case.name, case.node, players)
    cold, fast, fast_scores = ours(case, generic=False)
    slow_cold, slow, slow_scores = ours(case, generic=True)
    rows = [
        _shown(measured("Shapley, fast path", fast, cold, _error(fast_scores, exact)), fast),
        _shown(measured("Shapley, generic path", slow, slow_cold, _error(slow_scores, exact)), fast),
    ]
    seconds, scores = with_shap(case, edges, label)
    rows.append(_shown(measured("shap KernelExplainer, naive", seconds, seconds, _error(scores, exact)), fast))
    for path, ratio in (("fast path", seconds / fast), ("generic path", seconds / slow)):
        _goal(f"of the {path}", ratio, GOALS[path][case.wanted])
    _goal_of_error("shap's", _error(fast_scores, exact), _error(scores, exact))
    seconds, scores = with_captum(case, model, players)
    rows.append(_shown(measured("captum ShapleyValueSampling, k-hop", seconds, seconds, _error(scores, exact)), fast))
    _goal("of the fast path", seconds / fast, CAPTUM)
    seconds = with_gnn_explainer(case)
    rows.append(_shown(measured("PyG GNNExplainer, 100 epochs", seconds, seconds, None), fast))
    return rows


def _shown(row: Row, fastest: float) -> Row:
    said = "-" if row.error is None else f"{row.error:.3f}"
    times = row.seconds / fastest
    print(f"{row.method:34} {row.seconds:10.4f} {row.cold:8.3f} {times:9.0f} {said:>7}", flush=True)
    return row


def _goal(what: str, ratio: float, goal: float) -> None:
    print(f"{'':34} {ratio:.0f} x the time {what}: goal {goal:.0f}, {_reached(ratio >= goal)}", flush=True)


def _goal_of_error(whose: str, ours: float, theirs: float) -> None:
    print(f"{'':34} error {ours:.4f}, {whose} {theirs:.4f}: goal below, {_reached(ours < theirs)}", flush=True)


def _reached(reached: bool) -> str:
    return "reached" if reached else "short"


def _error(scores: Tensor, exact: Tensor) -> float:
    return float((scores - exact).norm() / exact.norm())


def all_coalitions() -> Rows:
    """2^20 coalitions on the fast path, as `Shapley("edges", estimator="exact")` asks them."""
    case = next(cases("shapes"))
    target = GraphModel(case.module, case.data).node(case.node)
    chosen = Players("edges", messages(target).index[:20])
    explainer = Shapley(chosen, estimator="exact")
    explainer.explain(target)
    seconds, found = _seconds(lambda: explainer.explain(target))
    said = _reached(seconds <= 1)
    count = len(found.players)  # type: ignore[attr-defined]
    print(f"\nall 2^{count} coalitions: {seconds:.3f} s; goal 1 s, {said}")
    return [{"players": count, "seconds": seconds}]


def large() -> Rows:
    """A node of a random graph of a million nodes and ten million edges."""
    rows: Rows = []
    generator = torch.Generator().manual_seed(0)
    nodes, edges = 10**6, 10**7
    data = Data(
        x=torch.randn(nodes, 16, generator=generator),
        edge_index=torch.randint(nodes, (2, edges), generator=generator),
    )
    for name, net in (("GCN", GCN(16, 32, 2, 5)), ("GAT", GAT(16, 32, 2, 5))):
        with _Peak() as peak:
            seconds, found = _seconds(lambda net=net: shapley_values(explain.wrap(net.eval(), data).node(12345)))
        said = _reached(seconds <= 5 and peak.megabytes <= 1024)
        print(f"\na million nodes, {name}: {seconds:.2f} s, {peak.megabytes:.0f} MB above the loaded graph; {said}")
        count = len(found.scores)  # type: ignore[attr-defined]
        print(f"  {count} edges, {found.checks}")  # type: ignore[attr-defined]
        rows.append({"network": name, "edges": count, "seconds": seconds, "megabytes": peak.megabytes})
    return rows


class _Peak:
    """The most memory of the process above what it had, watched from beside."""

    def __enter__(self) -> _Peak:
        self.before = self.most = _resident()
        self.stop = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.stop.wait(0.005):
            self.most = max(self.most, _resident())

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.watcher.join()
        self.megabytes = (self.most - self.before) / 2**20


def _resident() -> int:
    with open("/proc/self/statm") as lines:
        return int(lines.read().split()[1]) * 4096


def every_test_node() -> Rows:
    """All test nodes of Cora with 2048 samples each."""
    name, module, data = next(citations())
    model = GraphModel(module, data)
    nodes = data.test_mask.nonzero().view(-1).tolist()
    started, paths = time.process_time(), 0
    for node in nodes:
        paths += not shapley_values(model.node(node)).checks["fast_path"].startswith("no")
    seconds = time.process_time() - started
    print(f"\n{name}, {len(nodes)} test nodes: {seconds:.1f} processor seconds, {paths} on the fast path", end="; ")
    print(f"goal 360, {_reached(seconds <= 360)}")
    return [{"case": name, "nodes": len(nodes), "seconds": seconds, "fast": paths}]


def shapley_values(target: GraphTarget) -> Explanation:
    """With 2048 samples, or more where there are many edges."""
    players = messages(target)
    return Shapley(players, samples=max(SAMPLES, 6 * len(players)), seed=0).explain(target)


RUNS: dict[str, Callable[[], Rows]] = {
    "shapes": partial(compare, "shapes"),
    "cora": partial(compare, "cora"),
    "exact": all_coalitions,
    "large": large,
    "all-cora": every_test_node,
}
QUICK: dict[str, Callable[[], Rows]] = {"shapes": partial(compare, "shapes", quick=True), "exact": all_coalitions}


def main() -> None:
    """Run what was asked for, or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*RUNS, []], default=[])
    parser.add_argument("--quick", action="store_true", help=f"the small part of {', '.join(QUICK)}")
    arguments = parser.parse_args()
    runs = QUICK if arguments.quick else RUNS
    if strange := set(arguments.what) - set(runs):
        parser.error(f"no quick part of {', '.join(strange)}: one of {', '.join(runs)}")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in arguments.what or runs:
        rows = runs[name]()
        record(f"graph-{name}{'-quick' * arguments.quick}", rows, {"samples": SAMPLES, "quick": arguments.quick})


if __name__ == "__main__":
    main()
