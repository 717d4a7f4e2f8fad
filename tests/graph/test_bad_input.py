"""Each wrong question gets one clear error, or the documented answer; nothing of the user's is left changed."""

import re

import numpy as np
import pytest
import torch
from graph_cases import network, random_graph
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GATConv, GCNConv, RGCNConv, global_mean_pool

from explain.gradient import Gradient
from explain.graph.model import GraphModel
from explain.influence import Influence
from explain.lime import Lime
from explain.mask import Mask
from explain.shapley import Shapley
from explain.types import NonFinite, Unsupported


@pytest.fixture
def model():
    return GraphModel(network("gcn"), random_graph())


@pytest.mark.parametrize("node", [-1, 24, 1.5, True, "three"])
def test_unknown_node(model, node):
    with pytest.raises(ValueError, match="node must be a whole number from 0 to 23"):
        model.node(node)


@pytest.mark.parametrize("node", [(0,), ("a", "b", 0), ()])
def test_a_node_of_another_shape(model, node):
    with pytest.raises(ValueError, match=r"node must be a number, or \(type, number\)"):
        model.node(node)


@pytest.mark.parametrize("label", [-1, 3])
def test_wrong_label(model, label):
    with pytest.raises(ValueError, match="label must be a class from 0 to 2"):
        model.node(3, label=label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payoff": "logits"}, "payoff must be one of"),
        ({"removal": "mask"}, "removal must be one of"),
        ({"baseline": "median"}, "baseline must be one of"),
        *(({"batch_size": size}, "batch_size must be a whole number") for size in ("many", 1.5, True, 0)),
    ],
)
def test_unknown_settings(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.node(3, **options)


def test_wrong_task(model):
    with pytest.raises(ValueError, match='wrap it with task="edge"'):
        model.edge(1, 2)
    with pytest.raises(ValueError, match="task must be one of"):
        GraphModel(network("gcn"), random_graph(), task="link")


def test_empty_graph():
    empty = Data(x=torch.zeros(0, 5), edge_index=torch.zeros(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="the graph is empty"):
        GraphModel(network("gcn"), empty)
    with pytest.raises(TypeError, match="non-empty list"):
        GraphModel(network("gcn"), [])


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def forward(self, x, edge_index, batch):
        return self.linear(global_mean_pool(x, batch)).squeeze()


def test_a_row_that_is_squeezed_away_is_kept_by_the_call():
    torch.manual_seed(0)
    net, graphs = Squeezed(), [random_graph(seed=seed) for seed in range(2)]
    options = {"task": "graph", "outputs": "values"}
    with pytest.raises(ValueError, match=r"one number without a row, as squeeze\(\) leaves.*\.view\(-1, 1\)"):
        GraphModel(net, graphs, **options).graph(1)
    call = lambda net, data: net(data.x, data.edge_index, data.batch).view(-1, 1)  # noqa: E731
    own = net(graphs[1].x, graphs[1].edge_index, torch.zeros(graphs[1].num_nodes, dtype=torch.long))
    assert GraphModel(net, graphs, call=call, **options).graph(1).value() == pytest.approx(own.item(), rel=1e-5)


def test_isolated_node_has_an_empty_explanation(model):
    target = model.node(23)
    for explainer in (Shapley("nodes"), Shapley("edges"), Lime("edges")):
        why = explainer.explain(target)
        assert len(why.players) == 0
        assert [why.value, why.base] == pytest.approx([target.value()] * 2, rel=1e-6)


def test_one_player():
    data = Data(x=torch.randn(2, 5), edge_index=torch.tensor([[1], [0]]))
    why = Shapley("edges").explain(GraphModel(network("gcn"), data).node(0, label=0))
    assert float(why.scores[0]) == pytest.approx(why.value - why.base)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_input(value):
    data = random_graph()
    data.x[3, 2] = value
    with pytest.raises(NonFinite, match="x holds NaN or infinity"):
        GraphModel(network("gcn"), data)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_features(layout):
    data = random_graph()
    data.x = data.x.to_sparse(layout=layout)
    with pytest.raises(TypeError, match=r"x is sparse .*data.x.to_dense\(\)"):
        GraphModel(network("gcn"), data)


@pytest.mark.parametrize("tolerance", ["small", True, 0, float("nan")])
def test_tolerance_is_a_positive_number(tolerance):
    with pytest.raises(ValueError, match="tolerance must be a positive number"):
        Shapley("edges", tolerance=tolerance)


def test_non_finite_output():
    net = network("gcn")
    with torch.no_grad():
        net.convs[0].lin.weight[0, 0] = float("inf")
    with pytest.raises(NonFinite, match="the model answers NaN or infinity"):
        GraphModel(net, random_graph()).node(3)


def test_edges_that_point_outside():
    data = random_graph()
    data.edge_index[1, 0] = 99
    with pytest.raises(ValueError, match="edge_index points to nodes"):
        GraphModel(network("gcn"), data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_edges_that_are_no_whole_numbers(dtype):
    data = random_graph()
    data.edge_index = data.edge_index.to(dtype)
    with pytest.raises(TypeError, match=r"edge_index must hold node numbers, int64, got .*: use edge_index.long\(\)"):
        GraphModel(network("gcn"), data)


def test_the_output_of_a_regressor_is_read_as_it_is():
    net, data = network("sage", classes=1), random_graph()
    node = int((net(data.x, data.edge_index)[:, 0] < 0).nonzero()[0])
    target = GraphModel(net, data).node(node, payoff=lambda rows: rows[:, 0])
    assert target.value() == pytest.approx(float(net(data.x, data.edge_index)[node, 0].detach()), rel=1e-5)
    assert target.value() < 0


def test_mismatched_edge_attributes():
    data = random_graph()
    data.edge_weight = torch.ones(3)
    with pytest.raises((ValueError, TypeError), match="edge_weight"):
        GraphModel(network("gcn"), data)


def test_wrong_dtype():
    with pytest.raises(TypeError, match=r"x is torch.float32, the model's parameters torch.float64"):
        GraphModel(network("gcn", double=True), random_graph())


def test_wrong_device():
    data = random_graph()
    data.x = data.x.to("meta")
    with pytest.raises(TypeError, match="x is on meta, the model on cpu"):
        GraphModel(network("gcn"), data)


def test_a_parameter_without_source():
    class Needy(nn.Module):
        def forward(self, x, edge_index, coordinates):
            return x

    with pytest.raises(TypeError, match=r"needs 'coordinates'.*inputs="):
        GraphModel(Needy(), random_graph())
    with pytest.raises(TypeError, match="inputs names"):
        GraphModel(network("gcn"), random_graph(), inputs={"features": "x"})


def test_outputs_that_are_no_rows():
    class Scalar(nn.Module):
        def forward(self, x, edge_index):
            return x[:3]

    with pytest.raises(ValueError, match="one row a node"):
        GraphModel(Scalar(), random_graph()).node(3)

    class Nothing(nn.Module):
        def forward(self, x, edge_index):
            return "yes"

    with pytest.raises(TypeError, match="forward must return floating-point logits"):
        GraphModel(Nothing(), random_graph()).node(3)


def test_train_mode_with_dropout_is_answered_in_eval_mode():
    torch.manual_seed(0)
    net = GCN(5, 8, 2, 3, dropout=0.5)
    data = random_graph()
    net.eval()
    expected = Shapley("edges", seed=0).explain(GraphModel(net, data).node(4, label=0)).scores
    net.train()
    net.convs[0].eval()  # a deliberate mix of modes
    target = GraphModel(net, data).node(4, label=0)
    with pytest.warns(UserWarning, match="training mode"):
        found = Shapley("edges", seed=0).explain(target).scores
    torch.testing.assert_close(found, expected)
    assert net.training
    assert not net.convs[0].training


def test_non_deterministic_model():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(5, 3)

        def forward(self, x, edge_index):
            return nn.functional.dropout(self.conv(x, edge_index), 0.5, training=True)

    with pytest.raises(ValueError, match="not deterministic"):
        GraphModel(Noisy(), random_graph()).node(3)


def test_messages_need_message_passing():
    class Plain(nn.Module):
        def forward(self, x, edge_index):
            return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])

    target = GraphModel(Plain(), random_graph()).node(4, label=0, removal="message")
    with pytest.raises(Unsupported, match='Shapley or Lime with removal="delete"'):
        target.game("edges").ends()


def test_nothing_of_the_user_changes_even_after_an_exception():
    net = network("gcn")
    data = random_graph()
    target = GraphModel(net, data).node(4, label=0, payoff=(failing := _Failing()))
    failing.now = True
    state = {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [len(part._forward_hooks) for part in net.modules()]
    random_state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="enough"):
        Shapley("edges", seed=0).explain(target)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [len(part._forward_hooks) for part in net.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class _Failing:
    now = False

    def __call__(self, outputs):
        if self.now:
            raise RuntimeError("enough")
        return outputs[:, 0]


@pytest.mark.parametrize("given", [np.int64(3), torch.tensor(3)])
def test_whole_numbers_of_other_libraries_are_node_numbers_and_labels(model, given):
    assert model.node(given).value() == model.node(3).value()
    assert model.node(3, label=given - 1).label == 2


@pytest.mark.parametrize("label", [1.0, True, "1"])
def test_labels_that_are_no_whole_number(model, label):
    with pytest.raises(ValueError, match="label must be a class from 0 to 2"):
        model.node(3, label=label)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_batch_sizes_are_refused_when_asked(model, batch_size):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        model.node(3, batch_size=batch_size)


def test_types_where_there_are_none(model):
    with pytest.raises(ValueError, match="nodes here have no types"):
        model.node(("paper", 3))


def test_a_forward_that_fails_says_on_what():
    narrow = random_graph()
    narrow.x = narrow.x[:, :2]
    with pytest.raises(ValueError, match=r"forward fails on this graph \(x \[24, 2\] of torch.float"):
        GraphModel(network("gcn"), narrow).node(3)


class _Asserts(nn.Module):
    """A forward that checks what it is given, and says little."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x, edge_index):
        raise self.kind("no")


@pytest.mark.parametrize("kind", [AssertionError, ValueError, KeyError, ZeroDivisionError, NotImplementedError])
@pytest.mark.parametrize("task", ["node", "edge", "graph"])
def test_a_forward_that_fails_says_what_was_asked(kind, task):
    model = GraphModel(_Asserts(kind), random_graph(), task=task)
    asked = {"node": "node(3)", "edge": "edge(3, 7)", "graph": "graph(0)"}[task]
    said = f"explain.wrap(_Asserts, Data).{asked}: the model's forward fails on this graph"
    with pytest.raises(ValueError, match=re.escape(said)) as told:
        {"node": lambda: model.node(3), "edge": lambda: model.edge(3, 7), "graph": model.graph}[task]()
    assert isinstance(told.value.__cause__, kind)
    assert "call=lambda net, data: net(...)" in str(told.value)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (torch.ones(10, dtype=torch.bool), ValueError, r"mask of the training nodes must be \[24\]"),
        (torch.tensor([1, 99]), ValueError, "training nodes must be from 0 to 23"),
        (torch.tensor([-1, 2]), ValueError, "training nodes must be from 0 to 23"),
        (torch.ones(24, dtype=torch.uint8), TypeError, "must be a bool mask"),
        (torch.rand(24), TypeError, "must be a bool mask"),
        (torch.tensor([1, 1]), ValueError, "given twice"),
        ([4, 99], ValueError, "training nodes must be from 0 to 23"),
    ],
)
def test_training_nodes_that_are_none(model, train, error, message):
    with pytest.raises(error, match=message):
        model.node(3).objective(train)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((24,), -1), "from 0 to 2"),
        (torch.full((24,), 3), "from 0 to 2"),
        (torch.full((24,), 0.5), "label must say which of the regressor's 3 outputs"),
        (
            torch.zeros(24, 2).long(),
            r"which loss was trained\? labels \[5, 2\] of torch.int64 are rows of 0 and 1, the model has 3 logits",
        ),
        (torch.zeros(20).long(), "one label a node, 24, got 20"),
    ],
)
def test_training_labels_that_do_not_fit(labels, message):
    data = random_graph()
    data.y = labels
    with pytest.raises(ValueError, match=message):
        GraphModel(network("gcn"), data).node(3).objective(torch.arange(5))


def test_a_mean_over_no_nodes_says_what_to_ask_instead():
    class Mean(torch.nn.Module):
        def forward(self, x, edge_index):
            return x.mean(0, keepdim=True)

    target = GraphModel(Mean(), random_graph(), task="graph").graph()
    with pytest.raises(NonFinite, match='removal="message" or "features"'):
        target.game("nodes")(torch.zeros(1, 24, dtype=torch.bool))


@pytest.mark.parametrize(
    ("pairs", "labels", "message"),
    [
        ([[0, 1], [2, 24]], [0.0, 1.0], "nodes from 0 to 23"),
        ([[0, 1], [2, 3]], [0.0, 2.0], r"which loss was trained\? .* are real numbers, the model has one output"),
        ([[0, 1], [2, 3]], [0.0, 0.5], r"which loss was trained\?"),
    ],
)
def test_training_pairs_that_do_not_fit(pairs, labels, message):
    def score(z, ends):
        return (z[ends[0]] * z[ends[1]]).sum(-1)

    target = GraphModel(network("gcn"), random_graph(), task="edge", decoder=score).edge(1, 2)
    with pytest.raises(ValueError, match=message):
        target.objective((torch.tensor(pairs), torch.tensor(labels)))


def test_asking_leaves_no_attribute_on_the_layers():
    """torch_geometric's R-GCN remembers on itself how it multiplied: asking for a node must not leave that behind."""
    torch.manual_seed(0)
    data = random_graph()
    data.edge_type = torch.randint(3, (data.num_edges,))
    net = RGCNConv(5, 3, 3).eval()
    before = set(vars(net))
    GraphModel(net, data).node(4, label=1).value()
    assert set(vars(net)) == before


@pytest.mark.parametrize("kind", ["edges", "nodes", "motifs"])
def test_isolated_node_of_a_model_that_reads_edge_features(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GATConv(5, 3, edge_dim=2)

        def forward(self, x, edge_index, edge_attr):
            return self.conv(x, edge_index, edge_attr)

    data, net = random_graph(), Net().eval()
    data.edge_attr = torch.randn(data.num_edges, 2)
    own = net(data.x, data.edge_index, data.edge_attr)[23, 1].item()
    why = Shapley(kind).explain(GraphModel(net, data).node(23, label=1))
    assert len(why.players) == 0
    assert [why.value, why.base] == pytest.approx([own] * 2, rel=1e-6)


def test_nobody_to_remove_is_an_empty_answer():
    data = random_graph()
    data.edge_index = data.edge_index[:, :0]
    target = GraphModel(network("gcn"), data, weight_decay=0.1).node(3)
    assert len(Influence(remove="edges", curvature="ggn", damping=0.1).explain(target).scores) == 0


@pytest.mark.parametrize("kind", ["features", "node_features"])
@pytest.mark.parametrize("beside", [True, False])
def test_features_that_the_model_does_not_read(kind, beside):
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.nodes, self.conv = nn.Embedding(24, 4), GCNConv(4, 3)

        def forward(self, edge_index):
            return self.conv(self.nodes.weight, edge_index)

    data = random_graph()
    if not beside:
        data = Data(edge_index=data.edge_index, num_nodes=24)
    said = "does not read the features x" if beside else "no features x"
    with pytest.raises(ValueError, match=said):
        Shapley(kind).explain(GraphModel(Embedded(), data).node(3))


class _Tail(nn.Module):
    """A convolution, and what comes after it."""

    def __init__(self, tail):
        super().__init__()
        self.conv, self.tail = GCNConv(5, 3), tail

    def forward(self, x, edge_index):
        return self.tail(self.conv(x.flatten(1), edge_index))


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_masks_where_no_gradient_leaves_the_answer(kind):
    target = GraphModel(_Tail(torch.detach).eval(), random_graph()).node(3)
    with pytest.raises(ValueError, match="no mask can be learned: no gradient"):
        Mask(kind, epochs=2, repeats=1, seed=0).explain(target)


def test_features_of_more_dimensions():
    data, net = random_graph(), _Tail(nn.Identity()).eval()
    flat = GraphModel(net, data).node(3, label=1)
    data.x = data.x[..., None]
    target = GraphModel(net, data).node(3, label=1)
    for kind in ("features", "nodes", "node_features"):
        expected = Gradient(kind).explain(flat).scores
        assert torch.allclose(Gradient(kind).explain(target).scores, expected)
    with pytest.raises(Unsupported, match=r"need features x \[nodes, features\]"):
        Mask("edges", epochs=2, repeats=1, seed=0).explain(target)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_network_that_keeps_what_it_computed_can_be_copied():
    net = _Tail(nn.utils.weight_norm(nn.Linear(3, 3))).eval()
    target = GraphModel(net, random_graph()).node(3)
    assert Mask("edges", epochs=2, repeats=1, seed=0).explain(target).value == pytest.approx(target.value())
    assert target.randomised(torch.Generator().manual_seed(0)).value() != target.value()


@pytest.mark.parametrize("number", [None, "first", 1.0, True, (0,), 2])
def test_graphs_have_whole_numbers(number):
    model = GraphModel(_Pooled().eval(), [random_graph(), random_graph()])
    with pytest.raises(ValueError, match="graph must be a whole number from 0 to 1"):
        model.graph(number)


def test_one_graph_has_number_0():
    with pytest.raises(ValueError, match="graph must be a whole number from 0 to 0, got 1"):
        GraphModel(_Pooled().eval(), random_graph(), task="graph").graph(1)


class _Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(5, 3)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.conv(x, edge_index), batch)


def test_a_model_that_reads_only_features_has_no_edges_that_matter():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 3)

        def forward(self, x):
            return self.lin(x)

    target = GraphModel(Own().eval(), random_graph()).node(3)
    for explainer in (Shapley("edges"), Lime("edges", seed=0), Gradient("edges"), Mask("edges", epochs=2, seed=0)):
        assert len(explainer.explain(target).scores) == 0
    assert len(Shapley("nodes").explain(target).scores) == 0
    assert len(Shapley("features").explain(target).scores) == 5


def test_masks_that_nothing_hangs_on():
    target = GraphModel(_Deaf().eval(), random_graph()).node(3)
    with pytest.raises(ValueError, match="no mask of features can be learned: no gradient"):
        Mask("features", epochs=2, seed=0).explain(target)

    class Multiplies(_Tail):
        def forward(self, x, adj):
            return adj.t() @ self.conv.lin(x)

    target = GraphModel(Multiplies(None).eval(), random_graph()).node(3)  # its layer sends no messages
    why = Mask("edges", epochs=2, seed=0).explain(target)
    assert why.checks["entries"] == "the entries of adj"
    assert (why.scores > 0).all()


class _Deaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.state = nn.Parameter(torch.randn(24, 3))

    def forward(self, x, edge_index):
        return self.state * 2


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor", "ignore:Sparse invariant", "ignore:the model is not")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("buffer", [True, False])
def test_a_network_may_hold_its_graph_as_a_sparse_matrix(layout, buffer):
    data = random_graph()
    dense = torch.zeros(24, 24).index_put((data.edge_index[1], data.edge_index[0]), torch.ones(1))

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, sparse = nn.Linear(5, 3), dense.to_sparse(layout=layout)
            if buffer:
                self.register_buffer("matrix", sparse)
            else:
                self.matrix = sparse

        def forward(self, x, edge_index):
            return self.matrix @ self.lin(x)

    torch.manual_seed(0)
    net = Own().eval()
    target = GraphModel(net, data, weight_decay=0.1).node(4, label=1)
    assert target.value() == pytest.approx((dense @ net.lin(data.x))[4, 1].item(), rel=1e-5)
    why = Shapley("features").explain(target)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-5)
    assert torch.isfinite(Influence(curvature="ggn", damping=0.1).explain(target).scores).all()
