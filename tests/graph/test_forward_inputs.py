"""What forward is given is what its user gives it: proved, said, or asked for; values are the user's own call's."""

from functools import partial

import pytest
import torch
from graph_cases import RATES, Rating, RatingOfData, rated
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.nn import (
    GAE,
    GAT,
    GCN,
    VGAE,
    GCNConv,
    GraphConv,
    HeteroConv,
    LightGCN,
    global_mean_pool,
)
from torch_geometric.nn.conv.gcn_conv import gcn_norm

import explain
from explain import Influence, Shapley
from explain.graph.tensors.structure import EDGE
from explain.types import Unsupported

NODE, LABEL = 7, 1


def graph(**fields):
    generator = torch.Generator().manual_seed(0)
    return Data(
        x=torch.randn(20, 4, generator=generator),
        edge_index=torch.randint(0, 20, (2, 60), generator=generator).unique(dim=1),
        **fields,
    )


def weighted():
    data = graph()
    data.edge_weight = 5 * torch.rand(data.num_edges, generator=torch.Generator().manual_seed(1))
    return data


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def number(model, node=NODE):
    return model.node(node, label=LABEL).value()


def says(rows, node=NODE):
    return pytest.approx(rows[node, LABEL].item(), rel=1e-5)


matrices = pytest.mark.filterwarnings(  # what torch and torch_geometric say once to everybody who uses them
    "ignore:Sparse CSR tensor support", "ignore:Sparse invariant checks", "ignore:Converting sparse tensor to CSR"
)


def sparse(index, values, size, layout=torch.sparse_csr):
    """``adj_t``: rows are targets."""
    made = torch.sparse_coo_tensor(index.flip(0), values, (size, size), check_invariants=False).coalesce()
    return made if layout == torch.sparse_coo else made.to_sparse(layout=layout)


class Net(nn.Module):
    """One convolution, asked under the names that a subclass's forward gives its arguments."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 3)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = GCNConv(4, 8), nn.Linear(8, 2)

    def forward(self, x, edge_index, batch=None):
        return self.out(global_mean_pool(self.conv(x, edge_index).relu(), batch))


# optional parameters that the data could feed


@pytest.mark.parametrize("inputs", [{"edge_weight": None}, {"x": "x", "edge_index": "edge_index"}])
def test_sources_that_are_given_are_all(inputs):
    net, data = seeded(lambda: GCN(4, 8, 2, 3)), weighted()
    model = explain.wrap(net, data, inputs=inputs)
    assert number(model) == says(net(data.x, data.edge_index))
    assert "edge_weight" not in {name for name, source in model.inputs.sources.items() if source}


def test_an_optional_weight_that_changes_the_number_is_asked_for():
    net, data = seeded(lambda: GCN(4, 8, 2, 3)), weighted()
    full, less = net(data.x, data.edge_index, data.edge_weight), net(data.x, data.edge_index)
    place = int((full - less).abs().argmax())
    with pytest.raises(TypeError, match="only you know how you call GCN") as told:
        explain.wrap(net, data)
    said = str(told.value)
    assert f"Row {place // 3} is {full.flatten()[place]:.4g} with it, {less.flatten()[place]:.4g} without" in said
    for remedy in ("{'edge_weight': 'edge_weight'}", "{'edge_weight': None}"):
        assert f"inputs={remedy}" in said
    assert "call=lambda net, data: net(...)" in said
    model = explain.wrap(net, data, inputs={"edge_weight": "edge_weight"})
    assert number(model) == says(full)
    target = model.node(NODE, label=LABEL).describe()
    assert target["arguments"]["edge_weight"] == "edge_weight"
    assert "assumed" not in target


def test_every_optional_argument_in_doubt_is_asked_for():
    body = "self.conv(x, edge_index) + sum(one[:, None] for one in (a, b) if one is not None)"
    net = seeded(_named("x, edge_index, a=None, b=None", body))
    data = graph(a=torch.rand(20), b=torch.rand(20))
    with pytest.raises(TypeError, match=r"optional 'a' .*optional 'b' "):
        explain.wrap(net, data)
    with pytest.raises(TypeError, match="optional 'b' ") as told:
        explain.wrap(net, data, inputs={"a": None})
    assert "optional 'a'" not in str(told.value)
    assert number(explain.wrap(net, data, inputs={"a": None, "b": None})) == says(net(data.x, data.edge_index))
    assert number(explain.wrap(net, data, inputs={"b": "b"})) == says(net(data.x, data.edge_index, b=data.b))


def test_an_optional_weight_that_changes_nothing_is_not_worth_a_word():
    data = graph()
    data.edge_weight = torch.ones(data.num_edges)
    assert explain.wrap(seeded(lambda: GCN(4, 8, 2, 3)), data).assumed == {}


def test_parameters_that_only_an_argument_reaches_prove_it():
    data = graph()
    data.edge_attr = torch.randn(data.num_edges, 2)
    net = seeded(lambda: GAT(4, 8, 2, 3, edge_dim=2))
    model = explain.wrap(net, data)
    assert number(model) == says(net(data.x, data.edge_index, edge_attr=data.edge_attr))
    assert "parameters of the network" in model.assumed["edge_attr"]


def test_labels_are_passed_only_where_they_are_named():
    class Reuse(Net):
        def forward(self, x, edge_index, y):
            return self.conv(x, edge_index) + y[:, None]

    net, data = seeded(Reuse), graph(y=torch.arange(20))
    assert number(explain.wrap(net, data)) == says(net(data.x, data.edge_index, data.y))


def test_labels_that_could_be_passed_are_asked_for():
    net = seeded(_named("x, edge_index, y=None", "self.conv(x, edge_index) + (0 if y is None else y[:, None])"))
    data = graph(y=torch.arange(20))
    with pytest.raises(TypeError, match=r"optional 'y' given data\.y"):
        explain.wrap(net, data)
    assert number(explain.wrap(net, data, inputs={"y": None})) == says(net(data.x, data.edge_index))
    assert number(explain.wrap(net, data, inputs={"y": "y"})) == says(net(data.x, data.edge_index, data.y))


@pytest.mark.parametrize("name", ["edge_weight", "w"])
def test_edge_features_that_could_be_weights_are_asked_about(name):
    net, data = seeded(_named(f"x, edge_index, {name}=None", f"self.conv(x, edge_index, {name})")), graph()
    data.edge_attr = torch.rand(data.num_edges)
    with pytest.raises(TypeError, match=f"'{name}': 'edge_attr'"):
        explain.wrap(net, data)
    model = explain.wrap(net, data, inputs={name: None})
    assert number(model) == says(net(data.x, data.edge_index))
    model = explain.wrap(net, data, inputs={name: "edge_attr"})
    assert number(model) == says(net(data.x, data.edge_index, data.edge_attr))


def test_masks_of_the_true_reasons_are_no_weights():
    data = ExplainerDataset(BAGraph(10, 2), "house", num_motifs=1)[0]
    data.x = torch.randn(data.num_nodes, 3, generator=torch.Generator().manual_seed(0))
    net = GCN(3, 4, 2, 2).eval()
    assert data.edge_mask.is_floating_point()
    expected = float(net(data.x, data.edge_index)[10, 1].detach())
    assert explain.wrap(net, data).node(10, label=1).value() == pytest.approx(expected, abs=1e-6)


def test_a_data_object_has_its_labels():
    net = seeded(_named("data", "self.conv(data.x, data.edge_index) + data.y[:, None]"))
    data = graph(y=torch.arange(20))
    assert number(explain.wrap(net, data)) == says(net(data))


def test_a_forward_that_answers_with_a_loss_is_asked_for_its_call():
    class Trainer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = GCN(4, 8, 2, 3)

        def forward(self, data, mode="train"):
            return self.model(data.x, data.edge_index).mean(), 0.5

    net, data = seeded(Trainer), graph()
    with pytest.raises(ValueError, match=r"a row for every node.*call=lambda"):
        explain.wrap(net, data)
    model = explain.wrap(net, data, call=lambda n, d: n.model(d.x, d.edge_index))
    assert number(model) == says(net.model(data.x, data.edge_index))


# the user's own call


@pytest.mark.parametrize("passed", [(), ("edge_weight",)])
def test_the_arguments_of_the_call_are_those_that_are_passed(passed):
    net, data = seeded(lambda: GCN(4, 8, 2, 3)), weighted()
    model = explain.wrap(net, data, call=lambda n, d: n(d.x, d.edge_index, *(d[name] for name in passed)))
    target = model.node(NODE, label=LABEL)
    assert target.value() == says(net(data.x, data.edge_index, *(data[name] for name in passed)))
    assert set(target.describe()["arguments"]) == {"x", "edge_index", *passed}
    why = Shapley("edges", samples=256, seed=0).explain(target)
    assert why.checks["call_gap"] == 0
    assert "assumed" not in why.target


def test_a_call_that_computes_its_arguments_is_asked_itself():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(4, 3, normalize=False)

        def forward(self, x, edge_index, edge_weight=None):
            return self.conv(x, edge_index, edge_weight)

    def call(net, data):
        return net(data.x, *gcn_norm(data.edge_index, None, data.num_nodes))

    net, data = seeded(Plain), graph()
    target = explain.wrap(net, data, call=call).node(NODE, label=LABEL)
    assert target.value() == says(call(net, data))
    game = target.game("edges")
    mask = torch.arange(len(game.players)) % 2 == 0
    left = data.clone()
    absent = game.players.index.view(-1)[~mask]
    left.edge_index = data.edge_index[:, ~torch.isin(torch.arange(data.num_edges), absent)]
    assert game(mask[None])[0] == says(call(net, left))


def test_a_call_of_graphs():
    net = seeded(Pooled)
    graphs = [graph(), graph()]
    graphs[1].x = -graphs[1].x
    model = explain.wrap(net, graphs, call=lambda n, d: n(d.x, d.edge_index, d.batch))
    own = net(graphs[1].x, graphs[1].edge_index, torch.zeros(20, dtype=torch.long))
    assert model.graph(1, label=1).value() == says(own, 0)
    assert dict(model.inputs.sources) == {"x": "x", "edge_index": "edge_index", "batch": "batch"}


@pytest.mark.parametrize(
    ("call", "inputs", "said"),
    [
        (lambda n, d: n(d.x, d.edge_index), {"edge_weight": "edge_weight"}, "disagree"),
        (lambda n: n, None, "call= fails on the data"),
        (lambda n, d: n(d.x, d.edge_index)[3], None, "a row for every node"),
        (lambda n, d: n(d.x, d.edge_index).mean(), None, "call="),
    ],
)
def test_calls_that_prove_nothing_are_refused(call, inputs, said):
    with pytest.raises((ValueError, TypeError), match=said):
        explain.wrap(seeded(lambda: GCN(4, 8, 2, 3)), weighted(), call=call, inputs=inputs)


def test_a_call_that_reads_other_data_is_refused():
    net, data = seeded(lambda: GCN(4, 8, 2, 3)), graph()
    other = -data.x
    with pytest.raises(ValueError, match="must read its second argument"):
        explain.wrap(net, data, call=lambda n, _: n(other, data.edge_index))


# the graph as a matrix


class ByMatrix(nn.Module):
    """The large-benchmark idiom: ``adj_t`` normalised once, layers with ``normalize=False``."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 8, normalize=False), GCNConv(8, 3, normalize=False)

    def forward(self, x, adj_t):
        return self.second(self.first(x, adj_t).relu(), adj_t)


@matrices
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
@pytest.mark.parametrize("beside", [True, False])
def test_values_of_adj_t_are_what_the_model_reads(layout, beside):
    data = graph()
    full, values = gcn_norm(data.edge_index, None, 20, dtype=torch.float)
    data.adj_t = sparse(full, values, 20, layout)
    net = seeded(ByMatrix)
    own = net(data.x, data.adj_t)
    if not beside:
        del data.edge_index
    target = explain.wrap(net, data).node(NODE, label=LABEL)
    assert target.value() == says(own)
    game = target.game("edges")
    assert game.ends()[1] == says(own)
    source, to = target.graph.edges[EDGE][:, game.players.index[0]]
    entries = data.adj_t.to_dense()
    entries[to, source] = 0
    mask = torch.arange(len(game.players)) > 0
    assert game(mask[None])[0] == says(net(data.x, entries.to_sparse_csr()))


@matrices
@pytest.mark.parametrize("name", ["adj_t_dict", "edge_index_dict"])
def test_matrices_of_typed_edges(name):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.randn(6, 4, generator=generator), torch.randn(5, 4, generator=generator)
    ends = {
        ("author", "writes", "paper"): (6, 5),
        ("paper", "by", "author"): (5, 6),
        ("paper", "cites", "paper"): (5, 5),
    }
    for kind, sizes in ends.items():
        full = (torch.rand(sizes, generator=generator) < 0.5).float()
        data[kind].adj_t = full.t().to_sparse_csr()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = HeteroConv({kind: GraphConv((4, 4), 3) for kind in ends})

    space: dict = {}
    exec(f"def forward(self, x_dict, {name}):\n    return self.conv(x_dict, {name})", {}, space)
    Net.forward = space["forward"]
    net = seeded(Net)
    target = explain.wrap(net, data).node(("author", 1), label=LABEL)
    assert target.value() == says(net(data.x_dict, data.adj_t_dict)["author"], 1)
    game = target.game("edges")
    kind, edge = game.players.index[0].tolist()
    assert list(ends)[kind] == ("paper", "by", "author")
    entry = target.graph.edges["paper", "by", "author"][:, edge]
    dense = data["paper", "by", "author"].adj_t.to_dense()
    dense[entry[1], entry[0]] = 0
    data["paper", "by", "author"].adj_t = dense.to_sparse_csr()
    mask = torch.arange(len(game.players)) > 0
    assert game(mask[None])[0] == says(net(data.x_dict, data.adj_t_dict)["author"], 1)


@matrices
def test_sparse_features_are_no_graph():
    data = graph()
    data.x = torch.eye(20).to_sparse()
    with pytest.raises(TypeError, match="x is sparse"):
        explain.wrap(seeded(lambda: GCN(20, 8, 2, 3)), data)


@matrices
def test_two_graphs_that_answer_otherwise_are_asked_for():
    net, data = seeded(lambda: GCN(4, 8, 2, 3)), graph()
    data.adj_t = sparse(data.edge_index, 5 * torch.rand(data.num_edges), 20)
    with pytest.raises(TypeError, match=r"given data\.adj_t, or data\.edge_index"):
        explain.wrap(net, data)
    for source in ("adj_t", "edge_index"):
        model = explain.wrap(net, data, inputs={"edge_index": source})
        assert number(model) == says(net(data.x, data[source]))


# names as people write them


def _named(signature, body):
    space: dict = {}
    exec(f"def forward(self, {signature}):\n    return {body}", {"nn": nn}, space)
    return type("Net", (Net,), {"forward": space["forward"]})


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("data", "self.conv(data.x, data.edge_index)"),
        ("batch", "self.conv(batch.x, batch.edge_index)"),
        ("graph", "self.conv(graph.x, graph.edge_index)"),
        ("x, ei", "self.conv(x, ei)"),
        ("x, edges", "self.conv(x, edges)"),
        ("x, edge_index, num_nodes", "self.conv(x, edge_index) * (num_nodes == len(x))"),
        ("h, A", "self.conv(h, A.nonzero().t())"),
        ("feats, graph", "self.conv(feats, graph)"),
        ("edge_index, features", "self.conv(features, edge_index)"),
        ("*args", "self.conv(*args)"),
        ("data, x", "self.conv(x, data.edge_index)"),
        ("x, graph", "self.conv(x, graph.edge_index)"),
        ("x, graph", "self.conv(x, graph)"),
        ("x, edge_index, batch, ptr", "self.conv(x, edge_index) * (ptr[-1] == len(batch))"),
        ("x, edge_index, batch_size", "self.conv(x, edge_index) * batch_size"),
    ],
)
def test_names(signature, body):
    net, data = seeded(_named(signature, body)), graph()
    assert number(explain.wrap(net, data)) == says(net.conv(data.x, data.edge_index))


def test_edges_of_a_tensor_subclass():
    net, data = seeded(_named("x, edge_index", "self.conv(x, edge_index)")), graph()
    own = says(net(data.x, data.edge_index))
    data.edge_index = EdgeIndex(data.edge_index.contiguous(), sparse_size=(20, 20))
    assert number(explain.wrap(net, data)) == own


def test_a_name_with_several_readings_is_asked_for():
    net, data = seeded(_named("x, ei, w", "self.conv(x, ei, w)")), graph()
    data.one, data.two = torch.rand(data.num_edges), torch.rand(data.num_edges)
    with pytest.raises(TypeError, match=r"several readings of .*inputs=\{.*call="):
        explain.wrap(net, data)
    model = explain.wrap(net, data, inputs={"w": "two"})
    assert number(model) == says(net.conv(data.x, data.edge_index, data.two))


def test_two_names_of_the_features_are_not_given_the_same():
    body = "self.conv(h[:, :4], edges) + (x[edges[0]] - x[edges[1]]).square().sum() + h[:, 3:4]"
    net, data = seeded(_named("h, x, edges", body)), graph()
    data.pos = torch.randn(20, 3)
    model = explain.wrap(net, data)
    assert number(model) == says(net(data.x, data.pos, data.edge_index))
    assert model.node(NODE).describe()["assumed"]["x"].startswith("pos, what forward runs on")
    data.pos = torch.randn(20, 4)
    with pytest.raises(TypeError, match=r"several readings of h, x.*inputs="):
        explain.wrap(net, data)
    with pytest.raises(TypeError, match=r"forward needs 'h'.*inputs="):
        explain.wrap(net, graph())


@pytest.mark.parametrize("autoencoder", [GAE, VGAE])
def test_autoencoders(autoencoder):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.spread = GCNConv(4, 6), GCNConv(4, 6)

        def forward(self, x, edge_index):
            if autoencoder is GAE:
                return self.mean(x, edge_index)
            return self.mean(x, edge_index), self.spread(x, edge_index)

    net, data = seeded(lambda: autoencoder(Encoder())), graph()
    target = explain.wrap(net, data, task="edge").edge(1, 2, payoff=lambda rows: rows[:, 0])
    own = net.decode(net.encode(data.x, data.edge_index), torch.tensor([[1], [2]]))
    assert target.value() == pytest.approx(own.item(), rel=1e-5)


def test_lightgcn():
    net, data = seeded(lambda: LightGCN(20, 8, 2)), Data(edge_index=graph().edge_index, num_nodes=20)
    own = net(data.edge_index, torch.tensor([[1], [2]]))
    assert explain.wrap(net, data, task="edge").edge(1, 2, label=1).value() == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize(
    "around",
    [
        lambda net, data: nn.DataParallel(net),
        lambda net, data: torch.compile(net, backend="eager"),
        lambda net, data: torch.jit.trace(net, (data.x, data.edge_index)),
    ],
    ids=["DataParallel", "compile", "trace"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:Converting a tensor")
def test_wrappers_are_the_network_inside(around):
    net, data = seeded(_named("x, edge_index", "self.conv(x, edge_index)")), graph()
    model = explain.wrap(around(net, data), data)
    assert number(model) == says(net(data.x, data.edge_index))
    assert len(Shapley("edges", samples=256, seed=0).explain(model.node(NODE)).scores)


class Positions(nn.Module):
    """A SchNet in two lines: atoms feel those around them by their distance; there are no edges outside."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(10, 4), nn.Linear(4, 1)

    def forward(self, z, pos, batch=None):
        batch = torch.zeros_like(z) if batch is None else batch
        near = torch.exp(-(pos[:, None] - pos).square().sum(-1)) * (batch[:, None] == batch)
        return global_mean_pool(self.out((near @ self.embedding(z)).tanh()), batch)


def test_atoms_and_positions_alone():
    net = seeded(Positions)
    atoms = [Data(z=torch.randint(1, 9, (6,)), pos=torch.randn(6, 3)) for _ in range(2)]
    target = explain.wrap(net, atoms).graph(0, payoff=lambda rows: rows[:, 0])
    z, pos = atoms[0].z, atoms[0].pos
    assert target.value() == pytest.approx(net(z, pos).item(), rel=1e-5)
    game = target.game("nodes")
    mask = torch.tensor([True, False, True, True, False, True])
    assert game(mask[None])[0] == pytest.approx(net(z[mask], pos[mask]).item(), rel=1e-5)


def test_pairs_in_an_edge_store():
    net, data = seeded(Rating), rated(torch.tensor([[0, 1], [2, 3]]))
    own = net(data.x_dict, data.edge_index_dict, torch.tensor([[3], [2]])).item()
    for call in (None, lambda n, d: n(d.x_dict, d.edge_index_dict, d[RATES].edge_label_index)):
        model = explain.wrap(net, data, task="edge", call=call)
        assert model.edge(("user", 3), ("film", 2), label=1).value() == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("call", [None, lambda n, d: n(d)], ids=["forward", "call"])
@pytest.mark.parametrize("pairs", [2, 40])
def test_pairs_in_an_edge_store_of_a_data_object(call, pairs):
    net, data = seeded(RatingOfData), rated()
    data[RATES].edge_label_index = data[RATES].edge_index.repeat(1, 7)[:, :pairs]
    data[RATES].edge_label = (torch.arange(pairs) % 2).float()
    model = explain.wrap(net, data, task="edge", call=call, weight_decay=0.1)
    target = model.edge(("user", 3), ("film", 2), label=1)
    asked = data.clone()
    asked[RATES].edge_label_index = torch.tensor([[3], [2]])
    assert target.value() == pytest.approx(net(asked).item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"edge_label_index is of \('user', 'rates', 'film'\)"):
        model.edge(("film", 3), ("user", 2))
    assert len(players := target.objective().players) == pairs
    assert players.names[:2] == ("user 0–film 0", "user 1–film 1")


def test_a_matrix_of_any_name_is_the_graph_where_there_is_no_other():
    net, data = seeded(_named("X, A_hat", "A_hat @ self.conv.lin(X)")), graph()
    data.A_hat = torch.rand(20, 20) * (torch.rand(20, 20) > 0.7)
    target = explain.wrap(net, data).node(NODE, label=LABEL)
    assert target.value() == says(net(data.x, data.A_hat))
    game = target.game("edges")
    source, to = target.graph.edges[EDGE][:, game.players.index[0]]
    left = data.A_hat.clone()
    left[source, to] = 0
    mask = torch.arange(len(game.players)) > 0
    assert game(mask[None])[0] == says(net(data.x, left))


@pytest.mark.parametrize("signature", ["x, adj", "h, A"])
def test_dense_matrices_keep_their_values(signature):
    features, name = signature.split(", ")
    net, data = seeded(_named(signature, f"{name} @ self.conv.lin({features})")), graph()
    data[name] = torch.rand(20, 20) * (torch.rand(20, 20) > 0.7)
    assert number(explain.wrap(net, data)) == says(net(data.x, data[name]))


@pytest.mark.parametrize("inputs", [None, {"x": "x", "edge_index": "edge_index"}])
def test_arguments_by_position_behind_names(inputs):
    net, data = seeded(_named("x, *args", "self.conv(x, *args)")), graph()
    assert number(explain.wrap(net, data, inputs=inputs)) == says(net.conv(data.x, data.edge_index))


def test_keywords_that_could_be_passed_are_asked_for():
    net, data = seeded(_named("x, edge_index, **more", "self.conv(x, edge_index, **more)")), weighted()
    with pytest.raises(TypeError, match=r"optional 'edge_weight' given data\.edge_weight"):
        explain.wrap(net, data)
    model = explain.wrap(net, data, inputs={"edge_weight": None})
    assert number(model) == says(net.conv(data.x, data.edge_index))
    model = explain.wrap(net, data, inputs={"edge_weight": "edge_weight"})
    assert number(model) == says(net.conv(data.x, data.edge_index, data.edge_weight))


def test_a_mapping_of_all_fields():
    net, data = seeded(_named("inputs", "self.conv(inputs['x'], inputs['edge_index'])")), graph()
    assert number(explain.wrap(net, data)) == says(net.conv(data.x, data.edge_index))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": "x"}, "inputs must map names of forward's parameters"),
        ({"inputs": {"x": 3}}, "inputs must map names of forward's parameters"),
        ({"call": "net(x)"}, "call must be your own call"),
    ],
)
def test_inputs_and_calls_of_other_types(options, said):
    with pytest.raises(TypeError, match=said):
        explain.wrap(seeded(lambda: GCN(4, 8, 2, 3)), graph(), **options)


def test_a_forward_that_fails_says_what_it_was_given():
    net = seeded(_named("x, edge_index, extra=None", "self.conv(x, edge_index) + extra.size"))
    with pytest.raises(ValueError, match=r"forward fails .*it is given x, edge_index: .*call=lambda"):
        explain.wrap(net, graph()).node(NODE)


def test_a_function_of_graphs_is_asked_for_its_module():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module itself, and how you call it"):
        explain.wrap(partial(seeded(lambda: GCN(4, 8, 2, 3)), edge_weight=None), graph())


@matrices
def test_a_matrix_under_the_name_of_the_edges():
    data = graph()
    data.edge_index = sparse(data.edge_index, torch.ones(data.num_edges), 20, torch.sparse_coo)
    with pytest.raises(TypeError, match=r"edge_index must be \[2, edges\].*data.adj_t"):
        explain.wrap(seeded(lambda: GCN(4, 8, 2, 3)), data)


@pytest.mark.parametrize(
    ("signature", "body", "options"),
    [
        ("x, edge_index", "self.conv(x, edge_index)", {"call": lambda n, d: n(d.x, d.seen_edge_index)}),
        ("x, edge_index", "self.conv(x, edge_index)", {"inputs": {"edge_index": "seen_edge_index"}}),
        ("x, edges", "self.conv(x, edges)", {"call": lambda n, d: n(d.x, d.seen_edge_index)}),
        ("x, seen_edge_index", "self.conv(x, seen_edge_index)", {}),
        ("data", "self.conv(data.x, data.seen_edge_index)", {}),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_edges_of_another_name_play(signature, body, options, beside):
    net, data = seeded(_named(signature, body)), graph()
    data.seen_edge_index = data.edge_index[:, ::2].contiguous()
    if not beside:
        del data.edge_index
    target = explain.wrap(net, data, **options).node(NODE, label=LABEL)
    assert target.value() == says(net.conv(data.x, data.seen_edge_index))
    game = target.game("edges")
    mask = torch.arange(len(game.players)) > 0
    kept = torch.arange(data.seen_edge_index.size(1)) != game.players.index[0]
    own = net.conv(data.x, data.seen_edge_index[:, kept])
    assert game(mask[None])[0] == says(own)
    assert own[NODE, LABEL].item() != pytest.approx(target.value())
    assert "seen_edge_index" in {*target.describe()["arguments"].values()} or signature == "data"


@pytest.mark.parametrize(("signature", "edges"), [("x, edge_index, far_edge_index", ""), ("data", "data.")])
def test_edges_beside_those_that_play_are_said(signature, edges):
    net = seeded(
        _named(signature, f"self.conv({edges}x, {edges}edge_index) + self.conv({edges}x, {edges}far_edge_index)")
    )
    data = graph()
    data.far_edge_index = data.edge_index[:, ::3].contiguous()
    target = explain.wrap(net, data).node(NODE, label=LABEL)
    assert target.value() == says(net.conv(data.x, data.edge_index) + net.conv(data.x, data.far_edge_index))
    assert "stay as they are" in target.describe()["assumed"]["far_edge_index"]


@pytest.mark.parametrize("count", [20, 59])  # as many as there are nodes, as edges
def test_other_edges_are_no_rows_of_nodes_or_edges(count):
    net = seeded(_named("x, edge_index, far_edge_index", "self.conv(x, edge_index) + self.conv(x, far_edge_index)"))
    data, far = graph(), torch.randint(0, 20, (2, count), generator=torch.Generator().manual_seed(2))
    assert data.num_edges == 59
    data.far_edge_index = far
    game = explain.wrap(net, data).node(NODE, label=LABEL).game("edges")
    masks = torch.rand(4, len(game.players), generator=torch.Generator().manual_seed(1)) > 0.5
    for mask, value in zip(masks, game(masks), strict=True):
        kept = torch.ones(59, dtype=torch.bool)
        kept[game.players.index[~mask]] = False
        assert value == says(net.conv(data.x, data.edge_index[:, kept]) + net.conv(data.x, far))


@pytest.mark.parametrize(
    "options", [{}, {"call": lambda net, data: net(data.x, data.one_edge_index, data.two_edge_index)}]
)
def test_which_of_several_edges_may_play_is_asked_for(options):
    net = seeded(
        _named("x, one_edge_index, two_edge_index", "self.conv(x, one_edge_index) - self.conv(x, two_edge_index)")
    )
    data = graph()
    ways = {
        "one_edge_index": data.edge_index[:, ::2].contiguous(),
        "two_edge_index": data.edge_index[:, 1::2].contiguous(),
    }
    apart = Data(x=data.x, **ways)
    with pytest.raises(ValueError, match=r"which edges may play.* reads one_edge_index, two_edge_index of the data"):
        explain.wrap(net, apart, **options)
    data.kind = torch.arange(data.num_edges) % 2
    call = lambda net, data: net(data.x, data.edge_index[:, data.kind == 0], data.edge_index[:, data.kind == 1])  # noqa: E731
    assert number(explain.wrap(net, data, call=call)) == says(net(data.x, *ways.values()))


def test_whole_numbers_on_two_edges_are_no_edges():
    net = seeded(_named("x, edge_index, edge_attr", "self.conv(x, edge_index) + edge_attr.sum()"))
    data = Data(
        x=torch.randn(3, 4), edge_index=torch.tensor([[0, 1], [1, 2]]), edge_attr=torch.tensor([[1, 2], [3, 4]])
    )
    assert "edge_attr" not in explain.wrap(net, data).node(1).describe().get("assumed", {})


@pytest.mark.parametrize("signature", ["feat, edge_index", "data"])
def test_features_of_another_name_play(signature):
    held = "data." if signature == "data" else ""
    net, data = seeded(_named(signature, f"self.conv({held}feat, {held}edge_index)")), graph()
    data.feat, x = data.x, data.x
    del data.x
    model = explain.wrap(net, data)
    target = model.node(NODE, label=LABEL)
    expected = explain.wrap(net.conv, Data(x=x, edge_index=data.edge_index)).node(NODE, label=LABEL)
    for kind in ("features", "nodes"):
        found, own = Shapley(kind).explain(target), Shapley(kind).explain(expected)
        torch.testing.assert_close(found.scores, own.scores, rtol=1e-5, atol=1e-6)
    replaced = model.node(NODE, label=LABEL, removal="features").game("nodes")
    assert replaced.ends()[0] != pytest.approx(replaced.ends()[1])


def test_absent_features_where_there_are_none_or_others():
    net, data = seeded(_named("x, pos, edge_index", "self.conv(x + pos, edge_index)")), graph()
    data.pos = torch.randn(20, 4)
    told = explain.wrap(net, data).node(NODE, removal="features").describe()["assumed"]
    assert told["features"] == "x of an absent node is replaced, pos stays"
    atoms = Data(z=torch.arange(20) % 4, edge_index=data.edge_index, num_nodes=20)
    net = seeded(_named("z, edge_index", "self.conv(nn.functional.one_hot(z, 4).float(), edge_index)"))
    with pytest.raises(ValueError, match="forward is given none"):
        explain.wrap(net, atoms).node(NODE, removal="features")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:Converting a tensor", "ignore:the model is not")
def test_what_of_jit_is_asked_and_what_not():
    data = graph(y=torch.arange(20) % 3, train_mask=torch.ones(20, dtype=torch.bool))
    net = seeded(_named("x, edge_index", "self.conv(x, edge_index)"))
    traced = torch.jit.trace(net, (data.x, data.edge_index))
    ask = Influence(curvature="ggn", damping=0.1)
    found, own = (ask.explain(explain.wrap(each, data, weight_decay=0.1).node(NODE)) for each in (traced, net))
    torch.testing.assert_close(found.scores, own.scores)
    with pytest.raises(TypeError, match=r"before torch\.jit\.freeze"):
        explain.wrap(torch.jit.freeze(traced.eval()), data)
    table = explain.wrap(torch.jit.script(nn.Linear(4, 3)), (data.x, data.y), task="classification")
    with pytest.raises(Unsupported, match=r"torch\.nn\.Sequential\(model\)"):
        Influence().explain(table.example(data.x[0]))
