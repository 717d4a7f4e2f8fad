"""Graphs with ground truth, networks that provably use it, and the bench over both."""

import itertools
import os

import networkx as nx
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import explain
from explain import metrics
from models import bench, motif_nets, motifs
from models.planted import CYCLE, HOUSE, Planted, planted

needs_data = pytest.mark.skipif("EXPLAIN_DATA" not in os.environ, reason="EXPLAIN_DATA has no molecules")


@pytest.mark.parametrize("motif", [HOUSE, CYCLE, ((2, 1), (1, 0))], ids=["house", "cycle", "path"])
def test_a_planted_network_fires_for_a_whole_motif_only(motif):
    x, edges = torch.eye(1 + max(map(max, motif))), torch.tensor(motif).t()
    net = Planted(motif)
    assert net(x, edges)[0].tolist() == [0.5, 1.0]
    for gone in range(len(motif)):
        keep = torch.arange(len(motif)) != gone
        assert net(x, edges[:, keep])[0].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("motif", [HOUSE, CYCLE], ids=["house", "cycle"])
def test_its_shapley_values_are_equal_shares_of_one(motif):
    benchmark = planted(motif, nodes=12, roots=2)
    root = benchmark.targets[1]
    target = explain.wrap(Planted(motif).double(), benchmark.data.apply(lambda t: t.double(), "x")).node(root)
    players = target.players("edges")
    truth = metrics.truth_of(players, benchmark.truth(root))
    assert int(truth.sum()) == len(motif)
    own = explain.Players("edges", players.index[truth])
    exact = explain.Shapley(own).explain(target)
    assert exact.scores.tolist() == pytest.approx([1 / len(motif)] * len(motif))
    why = explain.Shapley(players, samples=4096, seed=0).explain(target)
    assert metrics.ground_truth({"Shapley": why}, truth).loc["Shapley"].tolist() == [1.0, 1.0]
    others = torch.ones(32, len(players)).bool()
    others[:, ~truth] = torch.rand(32, int((~truth).sum()), generator=torch.Generator().manual_seed(0)) < 0.5
    assert target.game(players)(others).tolist() == [1.0] * 32  # nobody else matters, whoever is there


def test_only_the_roots_have_the_motif():
    benchmark = planted(roots=3)
    out = Planted()(benchmark.data.x, benchmark.data.edge_index)
    assert (out[:, 1] > 0.5).nonzero().view(-1).tolist() == benchmark.targets
    assert torch.equal(out.argmax(1), benchmark.data.y)


@pytest.mark.parametrize(
    ("made", "motif", "edges"),
    [
        (lambda: motifs.ba_shapes(base=60, motifs=6), nx.house_graph(), 12),
        (lambda: motifs.ba_community(base=60, motifs=6, between=30), nx.house_graph(), 12),
        (lambda: motifs.tree_cycles(depth=5, motifs=5), nx.cycle_graph(6), 12),
        (lambda: motifs.tree_grid(depth=5, motifs=5), nx.grid_2d_graph(3, 3), 24),
    ],
    ids=["ba_shapes", "ba_community", "tree_cycles", "tree_grid"],
)
def test_the_truth_of_a_node_is_the_one_motif_that_holds_it(made, motif, edges):
    benchmark = made()
    for node in benchmark.targets[::7]:
        truth = benchmark.truth(node)
        found = nx.Graph(benchmark.data.edge_index[:, truth].t().tolist())
        assert int(truth.sum()) == edges
        assert node in found
        assert nx.is_isomorphic(found, motif)
    assert not (benchmark.data.train_mask & benchmark.data.test_mask).any()


def test_generated_graphs_repeat_and_leave_the_random_states():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other, another = motifs.ba_shapes(1, 40, 3), motifs.ba_shapes(1, 40, 3), motifs.ba_shapes(2, 40, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.data.edge_index, other.data.edge_index)
    assert not torch.equal(one.data.edge_index, another.data.edge_index)


def test_graphs_of_two_motifs_have_the_motif_of_their_class():
    benchmark = motifs.ba_2motif(graphs=6)
    for i, (graph, motif) in enumerate(zip(benchmark.data, itertools.cycle([nx.house_graph(), nx.cycle_graph(5)]))):
        found = nx.Graph(graph.edge_index[:, benchmark.truth(i)].t().tolist())
        assert int(graph.y) == i % 2
        assert nx.is_isomorphic(found, motif)


@needs_data
def test_molecules_have_the_groups_they_are_known_for():
    mutag = motifs.mutag()
    assert len(mutag.data) == 188
    for i in mutag.targets[:20]:
        graph, atoms = mutag.data[i], mutag.data[i].x.argmax(1)
        for u, v in graph.edge_index[:, mutag.truth(i)].t().tolist():
            assert {int(atoms[u]), int(atoms[v])} == {1, 2}  # nitrogen and oxygen
    alkane = motifs.alkane_carbonyl(graphs=40)
    assert len(alkane.data) == 40
    assert sum(int(graph.y) for graph in alkane.data) == 20
    for i in alkane.targets[:5]:
        assert alkane.truth(i).shape[1] == alkane.data[i].num_nodes
        assert alkane.truth(i).any(1).all()


def test_networks_are_trained_on_one_part_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    nodes, graphs = motifs.tree_cycles(depth=4, motifs=6), motifs.ba_2motif(graphs=100)
    for benchmark, schedule in ((nodes, motif_nets.Schedule(60, 1e-2)), (graphs, motif_nets.Schedule(40))):
        first = motif_nets.trained(benchmark, schedule=schedule, progress=False)
        again = motif_nets.trained(benchmark, schedule=schedule, progress=False)
        assert not first.cached
        assert again.cached
        assert first.facts["test_accuracy"] == again.facts["test_accuracy"] > 0.7


def test_the_bench_prints_and_keeps_a_table(tmp_path):
    command = ["graph", "--data", "planted", "--targets", "1", "--out", str(tmp_path)]
    for method in ("Shapley", "Occlusion", "Counterfactual"):
        command += ["--methods", method]
    result = CliRunner().invoke(bench.app, command, catch_exceptions=False)
    assert result.exit_code == 0
    rows = pd.read_csv(tmp_path / "graph-planted.csv", index_col=0)
    assert list(rows.index) == ["Shapley", "Occlusion", "Counterfactual", "random", "distance"]
    assert rows.loc["Shapley", "auroc"] == rows.loc["Occlusion", "auroc"] == 1.0
    assert rows.loc["Shapley", "label fidelity+"] == 1.0
    assert rows.loc["distance", "auroc"] < 1.0
    assert "Shapley" in result.stdout
    assert all(len(line) <= 120 for line in result.stdout.splitlines() if str(tmp_path) not in line)
    assert set(bench.SHORT) <= set(rows.columns)


@pytest.mark.parametrize("option", [("--data", "karate"), ("--methods", "Magic")])
def test_the_bench_names_what_it_knows(option, tmp_path):
    command = ["graph", "--targets", "1", "--out", str(tmp_path), *option]
    command += ["--data", "planted"] if option[0] != "--data" else []
    result = CliRunner().invoke(bench.app, command)
    assert result.exit_code == 2


def test_data_that_is_not_at_hand_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPLAIN_DATA", str(tmp_path))
    result = CliRunner().invoke(bench.app, ["graph", "--data", "mutag", "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "mutag is left out" in result.stdout
