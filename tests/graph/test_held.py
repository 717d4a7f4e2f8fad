"""Fields that follow from the edges: known by computing them again, said, and computed again in each coalition."""

import copy

import pytest
import torch
from graph_cases import doubled, random_graph
from torch import nn
from torch_geometric import transforms
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN, GCNConv, global_add_pool
from torch_geometric.utils import to_dense_adj

import explain
from explain import Shapley, Unsupported
from explain.graph.tensors.derived import derived_fields
from explain.graph.tensors.structure import EDGE, NODE, Structure

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse (invariant|CSC|CSR)"),  # torch's own, of torch_geometric's SIGN
    pytest.mark.filterwarnings("ignore:.*standard errors"),
]


def structure(data: Data) -> Structure:
    fields = {name: value for name, value in data if isinstance(value, torch.Tensor) and name != "edge_index"}
    of_edges = {name: fields.pop(name) for name in ("edge_attr", "edge_weight") if name in fields}
    return Structure({NODE: data.num_nodes}, {NODE: fields}, {EDGE: data.edge_index}, {EDGE: of_edges}, {})


def names(data: Data, weights: torch.Tensor | None = None) -> dict[str, str]:
    return {each.field: each.equals for each in derived_fields(structure(data), weights)}


def adjacency(edge_index: torch.Tensor, nodes: int) -> torch.Tensor:
    return to_dense_adj(edge_index, max_num_nodes=nodes)[0].double()


# --- which fields follow from the edges ---

TRANSFORMS = {
    "laplacian_eigenvector_pe": (transforms.AddLaplacianEigenvectorPE(4, is_undirected=True), "eigenvectors of the"),
    "random_walk_pe": (transforms.AddRandomWalkPE(5), "random-walk codes of 5 steps"),
    "x2": (transforms.SIGN(2), "(D^-1/2 A D^-1/2)^2 x"),
    "edge_weight": (transforms.GCNNorm(), "GCN's normalisation"),
    "edge_attr": (transforms.GDC(), "sum to 1"),
}


@pytest.mark.parametrize("field", TRANSFORMS)
@pytest.mark.parametrize("nodes", [20, 150])  # below and above 100 torch_geometric asks different solvers
def test_what_transforms_made_is_known(field, nodes):
    transform, equals = TRANSFORMS[field]
    made = transform(random_graph(nodes, 3 * nodes))
    made.y = None
    assert equals in names(made)[field]


@pytest.mark.parametrize(
    ("transform", "equals"),
    [
        (transforms.LocalDegreeProfile(), "the local degree profile"),
        (transforms.OneHotDegree(30), "one-hot degrees"),
        (transforms.OneHotDegree(30, cat=False), "one-hot degrees"),
    ],
)
def test_degrees_that_were_joined_to_the_features_are_known(transform, equals):
    assert equals in names(transform(random_graph()))["x"]


def test_powers_paths_and_degrees_are_known():
    data = random_graph(undirected=False)
    A = adjacency(data.edge_index, 24).T  # from u to v at [v, u]
    walk = A / A.sum(1, keepdim=True).clamp_min(1)
    data.square, data.walk, data.both = (
        A @ A,
        (walk @ walk @ walk).float(),
        torch.cat([data.x, walk.float() @ data.x], 1),
    )
    data.pagerank = 0.1 * torch.linalg.inv(torch.eye(24) - 0.9 * walk.float())
    data.degree, data.central = A.sum(1).int(), A.sum(0) / 23
    data.near = ((torch.eye(24) + A.T + A.T @ A.T) > 0).long()
    found = names(data)
    assert found["square"] == "A^2"
    assert found["walk"] == "(D^-1 A)^3"
    assert found["both"] == "features that were passed on, D^-1 A x"
    assert found["pagerank"] == "personalised PageRank of D^-1 A, alpha 0.1"
    assert found["degree"] == "degrees, by the edges into a node"
    assert found["central"] == "degrees, by the edges out of a node"
    assert found["near"] == "which nodes 2 steps join"


def test_weights_that_the_codes_were_made_with_are_looked_at():
    data = random_graph()
    data.edge_weight = torch.rand(data.num_edges)
    data.x1 = adjacency(data.edge_index, 24).float()
    data.x1[tuple(data.edge_index.flip(0))] = data.edge_weight
    data.x1 = data.x1 @ data.x
    assert names(data) == {"x1": "features that were passed on, A x"}
    weights, data.edge_weight = data.edge_weight, None
    assert names(data) == {}
    assert names(data, weights) == {"x1": "features that were passed on, A x"}


def test_of_graphs_in_one_batch_each_has_its_own_eigenvalues():
    transform = transforms.AddLaplacianEigenvectorPE(3, attr_name="pe", is_undirected=True)
    graphs = [transform(random_graph(nodes, 2 * nodes, seed=nodes)) for nodes in (12, 15)]
    assert "eigenvectors" in names(Batch.from_data_list(graphs))["pe"]


def test_nothing_is_named_that_only_looks_alike():
    torch.manual_seed(0)
    for nodes in (8, 9, 30):
        for seed in range(3):
            data = random_graph(nodes, 2 * nodes, seed=seed)
            data.codes, data.more, data.number = torch.randn(nodes, 4), torch.rand(nodes, 10), torch.randn(nodes)
            data.hot, data.ones, data.square = torch.eye(nodes)[:, :5], torch.ones(nodes, 2), torch.eye(nodes)
            data.edge_weight = torch.rand(data.num_edges)
            assert names(data) == {}
    every = torch.combinations(torch.arange(10)).T
    data = Data(x=torch.randn(10, 3), edge_index=torch.cat([every, every.flip(0)], 1), edge_weight=torch.ones(90))
    data.pe = torch.randn(10, 3)
    data.pe -= data.pe.mean(0)  # an eigenvector of a complete graph, as all are
    data.mean = data.x.mean(0).expand(10, -1) - data.x / 9
    assert names(data) == {}
    data.number = torch.full((10,), 9.0)  # the degree of each, and of whatever else
    assert names(data) == {}


# --- what is said of them ---


class WithCodes(nn.Module):
    """Two layers on features and codes of positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = GCNConv(width, 6), GCNConv(6, 3)

    def forward(self, x, edge_index, pe):
        return self.second(self.first(torch.cat([x, pe], 1), edge_index).tanh(), edge_index)


class Sign(nn.Module):
    """One layer on features that were passed on before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(15, 3)

    def forward(self, x, x1, x2):
        return self.layer(torch.cat([x, x1, x2], 1)).tanh()


def walk_codes(data: Data) -> torch.Tensor:
    """``diag(P^2), diag(P^3)`` of the walk ``P = D^-1 A``."""
    A = adjacency(data.edge_index, data.num_nodes)
    walk = A / A.sum(1, keepdim=True).clamp_min(1)
    return torch.stack([(walk @ walk).diagonal(), (walk @ walk @ walk).diagonal()], 1).to(data.x)


def passed(data: Data) -> Data:
    """``x1 = A x`` and ``x2 = A A x``, in the data object."""
    A = adjacency(data.edge_index, data.num_nodes).to(data.x)
    data.x1, data.x2 = A @ data.x, A @ A @ data.x
    return data


def with_codes() -> tuple[nn.Module, Data]:
    data = doubled(random_graph(nodes=10, edges=12))
    data.pe = walk_codes(data)
    return WithCodes(7).double().eval(), data


def test_a_held_field_is_said_and_warned_of_where_its_edges_are_taken_out():
    net, data = with_codes()
    model = explain.wrap(net, data)
    with pytest.warns(UserWarning, match=r"data.pe follows from the edges, random-walk codes of 2 steps"):
        why = Shapley("nodes").explain(model.node(0))
    assert why.checks["held"] == "pe"
    assert "recompute={'pe': transform}" in why.doubts[0]
    assert "random-walk codes" in why.target["assumed"]["pe"]
    for kind, removal in (("features", "delete"), ("edges", "message"), ("nodes", "features")):
        target = model.node(0, removal=removal)
        assert "held" not in target.game(kind).checks  # codes are not of x, and messages alone are zero


def test_propagated_features_are_held_while_features_are_absent():
    data = passed(random_graph(nodes=10, edges=12))
    target = explain.wrap(Sign().eval(), data).node(2)
    with pytest.warns(UserWarning, match=r"data.x1 follows from the edges, features.*; data.x2"):
        assert target.game("features").checks["held"] == "x1, x2"


def test_a_field_of_a_data_object_that_is_not_read_is_not_warned_of():
    class OfData(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = WithCodes(7)

        def forward(self, data):
            return self.net(data.x, data.edge_index, data.pe)

    _, data = with_codes()
    data.unread = adjacency(data.edge_index, 10).sum(0)
    target = explain.wrap(OfData().double().eval(), data).node(0)
    with pytest.warns(UserWarning, match=r"data.pe follows"):
        assert target.game("edges").checks["held"] == "pe"


def test_training_edges_are_asked_about_with_the_same_words():
    net, data = with_codes()
    target = explain.wrap(net, data, weight_decay=0.1).node(0)
    with pytest.warns(UserWarning, match=r"data.pe follows"):
        target.objective(remove="edges")


# --- computed again in each coalition ---


def by_hand(net, data, function, edges, masks, node, label):
    """The number on the graph with only these edges, its fields computed from it."""
    values = []
    for mask in masks:
        kept = torch.ones(data.num_edges, dtype=torch.bool)
        kept[edges[~mask]] = False
        made = copy.copy(data)
        made.edge_index = data.edge_index[:, kept]
        values.append(net(*function(made))[node, label])
    return torch.stack(values).detach().double()


def random_masks(players: int, count: int = 24) -> torch.Tensor:
    return torch.rand(count, players, generator=torch.Generator().manual_seed(0)) < 0.6


def test_codes_of_each_coalition_are_its_own():
    net, data = with_codes()
    target = explain.wrap(net, data, recompute={"pe": walk_codes}).node(0)
    game = target.game("edges")
    masks = random_masks(len(game.players))
    expected = by_hand(
        net, data, lambda d: (d.x, d.edge_index, walk_codes(d)), game.players.index, masks, 0, target.label
    )
    torch.testing.assert_close(game(masks), expected, rtol=0, atol=1e-10)
    assert game.checks["recompute_gap"] < 1e-12
    assert "held" not in game.checks
    held = explain.wrap(net, data).node(0)
    with pytest.warns(UserWarning, match="data.pe"):
        other = held.game(game.players)
    assert float((other(masks) - expected).abs().max()) > 1e-3  # so it is another question


def test_a_network_without_layers_of_its_own_is_asked_about_the_edges_it_was_computed_from():
    data = passed(doubled(random_graph(nodes=10, edges=12)))
    net = Sign().double().eval()
    target = explain.wrap(net, data, recompute=dict.fromkeys(("x1", "x2"), passed)).node(2)
    game = target.game("edges")
    assert len(game.players) > 4
    masks = random_masks(len(game.players))

    def arguments(d):
        made = passed(d)
        return made.x, made.x1, made.x2

    expected = by_hand(net, data, arguments, game.players.index, masks, 2, target.label)
    torch.testing.assert_close(game(masks), expected, rtol=0, atol=1e-10)
    features = target.game("features")
    x = data.x.clone()
    data.x[:, 1:3] = 0
    without = net(*arguments(data))[2, target.label]
    data.x = x
    mask = torch.tensor([[True, False, False, True, True]])
    assert float(features(mask)) == pytest.approx(float(without.detach()), abs=1e-10)


def test_as_many_columns_as_nodes_make_no_graph_of_what_was_passed_on():
    data = doubled(random_graph(nodes=5, edges=6))
    data.x = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double()
    data, net = passed(data), Sign().double().eval()
    own = net(data.x, data.x1, data.x2)[2, 1].item()
    assert explain.wrap(net, data).node(2, label=1).value() == pytest.approx(own, abs=1e-12)
    target = explain.wrap(net, data, recompute=dict.fromkeys(("x1", "x2"), passed)).node(2, label=1)
    game = target.game("edges")
    masks = random_masks(len(game.players))

    def arguments(d):
        made = passed(d)
        return made.x, made.x1, made.x2

    expected = by_hand(net, data, arguments, game.players.index, masks, 2, 1)
    torch.testing.assert_close(game(masks), expected, rtol=0, atol=1e-10)


def test_nodes_leave_the_graph_before_its_fields_are_computed():
    net, data = with_codes()
    target = explain.wrap(net, data, recompute={"pe": walk_codes}).node(0)
    game = target.game("nodes")
    mask = torch.ones(1, len(game.players), dtype=torch.bool)
    mask[0, 1:3] = False
    kept = torch.ones(10, dtype=torch.bool)
    kept[game.players.index[1:3]] = False
    smaller = data.subgraph(kept)
    expected = net(smaller.x, smaller.edge_index, walk_codes(smaller))[0, target.label]
    assert float(game(mask)) == pytest.approx(float(expected.detach()), abs=1e-10)


def test_eigenvectors_have_the_signs_of_the_data():
    """Their transform draws signs: without those of the data the number would not be one of its input."""
    transform = transforms.AddLaplacianEigenvectorPE(2, attr_name="pe", is_undirected=True)
    data = transform(doubled(random_graph(nodes=10, edges=14)))
    data.pe = data.pe.double()
    net = WithCodes(7).double().eval()
    before = torch.get_rng_state()
    model = explain.wrap(net, data, recompute={"pe": transform})
    target = model.node(0)
    game = target.game("edges")
    masks = random_masks(len(game.players), 6)

    def arguments(d):
        pe = transform(d.clone()).pe.double()
        return d.x, d.edge_index, torch.where((pe * data.pe).sum(0) < 0, -pe, pe)

    found = game(masks)
    assert torch.equal(before, torch.get_rng_state())
    expected = by_hand(net, data, arguments, game.players.index, masks, 0, target.label)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert model.checks["recompute_gap"] < 1e-4


def test_graphs_of_a_list_each_have_their_own():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = WithCodes(7)

        def forward(self, x, edge_index, pe, batch):
            return global_add_pool(self.net(x, edge_index, pe), batch)

    graphs = [doubled(random_graph(nodes=9, edges=10, seed=seed)) for seed in range(2)]
    for each in graphs:
        each.pe, each.y = walk_codes(each), None
    net = Pooled().double().eval()
    target = explain.wrap(net, graphs, task="graph", recompute={"pe": walk_codes}).graph(1)
    game = target.game("edges")
    masks = random_masks(len(game.players), 8)
    batch = torch.zeros(9, dtype=torch.long)
    expected = by_hand(
        net,
        graphs[1],
        lambda d: (d.x, d.edge_index, walk_codes(d), batch),
        game.players.index,
        masks,
        0,
        target.label,
    )
    torch.testing.assert_close(game(masks), expected, rtol=0, atol=1e-10)


def test_training_without_an_edge_has_its_own_codes():
    net, data = with_codes()
    target = explain.wrap(net, data, weight_decay=0.1, recompute={"pe": walk_codes}).node(0)
    objective = target.objective(remove="edges")
    edited = objective.edited(3)
    (batch,) = objective.batches()
    kept = torch.arange(data.num_edges) != int(objective.players.index[3])
    smaller = Data(x=data.x, edge_index=data.edge_index[:, kept])
    rows = net(data.x, smaller.edge_index, walk_codes(smaller))[data.train_mask]
    expected = nn.functional.cross_entropy(rows, data.y[data.train_mask], reduction="none")
    found = edited.train_loss(edited.params, batch)
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=1e-10)


# --- bad input ---


@pytest.mark.parametrize(
    ("recompute", "error", "words"),
    [
        ({"pe": lambda data: 2 * walk_codes(data)}, ValueError, "gives other numbers on the whole graph .* off by 1"),
        ({"pe": lambda data: walk_codes(data)[:, :1]}, ValueError, r"here \[10, 2\], got \[10, 1\]"),
        ({"pe": lambda data: None}, ValueError, "must take a data object and give the field.* got NoneType"),
        ({"pe": lambda data: data.clone().to_dict()}, ValueError, "got dict"),
        ({"codes": walk_codes}, ValueError, "recompute names 'codes', and the data holds no such field"),
        ({"pe": "walk"}, TypeError, "must map names of the data's fields to functions"),
        (walk_codes, TypeError, "must map names of the data's fields to functions"),
        ({}, TypeError, "must map names"),
    ],
)
def test_what_does_not_give_the_field_is_refused(recompute, error, words):
    net, data = with_codes()
    with pytest.raises(error, match=words):
        explain.wrap(net, data, recompute=recompute)


def test_features_that_are_computed_again_do_not_play():
    data = random_graph(nodes=10, edges=12)
    data.x = adjacency(data.edge_index, 10).float()
    net = GCN(10, 4, 2, 3).eval()
    again = {"x": lambda d: adjacency(d.edge_index, d.num_nodes).float()}
    target = explain.wrap(net, data, recompute=again).node(0)
    with pytest.raises(Unsupported, match="x is computed again in each coalition"):
        target.players("features")
    with pytest.raises(Unsupported, match="x is computed again"):
        explain.wrap(net, data, recompute=again).node(0, removal="features")
    assert len(target.players("edges"))
