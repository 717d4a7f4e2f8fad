"""Networks for graphs: explained exactly, whatever becomes of the nodes, and trained fold by fold."""

import pytest
import torch
from graph_cases import doubled
from reference.shapley import by_pairs
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

import explain
from models import pooling
from models.folds import without_fold
from models.motif_nets import Schedule
from models.motifs import ba_2motif
from models.splits import folds

LABEL = 1
GRAPHWISE = {
    "GIN": pooling.GIN,
    "GIN, all layers": lambda *sizes: pooling.GIN(*sizes, hidden=4, norm="batch_norm", jump="cat"),
    "DeepSets": pooling.DeepSets,
    "line graph": lambda *sizes: pooling.LineGraph(*sizes, hidden=4),
    "SortPool": lambda *sizes: pooling.SortPool(*sizes, k=3),
    "SAGPool": lambda *sizes: pooling.SAGPool(*sizes, layers=2),
    "DiffPool": lambda *sizes: pooling.DiffPool(*sizes, clusters=2),
}


def small():
    edges = torch.tensor([[0, 1, 2, 3, 2], [1, 2, 3, 0, 1]])
    return doubled(Data(x=torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), edge_index=edges))


@torch.no_grad()
def worth(net, data, players, kept):
    """The logit of the graph that a coalition leaves."""
    x, edges = data.x, data.edge_index
    gone = players.index[[i for i in range(len(players)) if i not in kept]]
    if players.kind == "edges":
        edges = edges[:, torch.ones(edges.size(1), dtype=torch.bool).index_fill(0, gone, False)]
    elif players.kind == "features":
        x = x.index_fill(1, gone, 0.0)
    else:
        stay = torch.ones(len(x), dtype=torch.bool).index_fill(0, gone, False)
        x, edges = x[stay], subgraph(stay, edges, relabel_nodes=True)[0]
    return float(net(x, edges, torch.zeros(len(x), dtype=torch.long))[0, LABEL])


@pytest.mark.parametrize("name", GRAPHWISE)
@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_exact_shapley_values_are_those_of_brute_force(name, kind):
    torch.manual_seed(0)
    net, data = GRAPHWISE[name](3, 2).double().eval(), small()
    target = explain.wrap(net, [data], task="graph").graph(0, label=LABEL)
    players = target.players(kind)
    if kind == "nodes":  # one stays: of no nodes there is no graph
        players = explain.Players("nodes", players.index[1:], players.names[1:] if players.names else None)
    why, known = explain.Shapley(players, estimator="exact").explain(target), {}

    def value(coalition):
        if coalition not in known:
            known[coalition] = worth(net, data, why.players, coalition)
        return known[coalition]

    torch.testing.assert_close(why.scores.double(), by_pairs(value, len(why.players)), rtol=1e-6, atol=1e-8)


def test_folds_are_even_in_every_class_and_hold_every_graph_once():
    labels = torch.tensor([0] * 63 + [1] * 125)
    of = folds(labels, seed=3)
    assert of.bincount().tolist() == [19] * 8 + [18] * 2
    for label in (0, 1):
        counts = of[labels == label].bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 1
    assert not torch.equal(of, folds(labels, seed=4))


@pytest.mark.parametrize("kind", [pooling.DiffPool, pooling.SAGPool, pooling.LineGraph])
def test_a_fold_is_held_out_and_kept(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    graphs = ba_2motif(graphs=40).data
    for graph in graphs:  # a house or a cycle is told by degrees
        graph.x = torch.nn.functional.one_hot(graph.edge_index[0].bincount().clamp(max=5), 6).float()
    schedule = Schedule(epochs=20, lr=1e-2, batch_size=32)
    first = without_fold(kind, graphs, 1, schedule, count=2)
    assert first.facts["tested"] == 20
    assert first.facts["test_accuracy"] >= 0.7
    assert without_fold(kind, graphs, 1, schedule, count=2).cached
    assert not without_fold(kind, graphs, 0, schedule, count=2).cached
