"""What graph networks' outputs mean: probabilities inside, several tasks, regressors, losses that take floats."""

import pytest
import torch
import torch.nn.functional as F
from graph_cases import random_graph
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv, global_mean_pool

import explain
from explain import Influence, Shapley


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


class Ends(nn.Module):
    """A convolution and what comes after it."""

    def __init__(self, last, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = GCNConv(5, outputs), last

    def forward(self, x, edge_index):
        return self.last(self.conv(x, edge_index))


class Pooled(nn.Module):
    def __init__(self, last=lambda z: z, outputs=1):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out, self.last = GCNConv(3, 4), nn.Linear(4, outputs), last

    def forward(self, x, edge_index, batch):
        return self.last(self.out(global_mean_pool(self.conv(x, edge_index).tanh(), batch)))


def graphs(labels):
    made = [torch.Generator().manual_seed(seed) for seed in range(len(labels))]
    return [
        Data(
            x=torch.randn(5, 3, generator=g), edge_index=torch.randint(5, (2, 12), generator=g), y=label.reshape(1, -1)
        )
        for g, label in zip(made, labels, strict=True)
    ]


@pytest.mark.parametrize(
    ("last", "kind", "probability"),
    [
        (lambda z: z.softmax(-1), "probabilities", lambda out: out),
        (lambda z: z.log_softmax(-1), "log_probabilities", lambda out: out.exp()),
        (lambda z: z.exp() / z.exp().sum(-1, keepdim=True), "probabilities", lambda out: out),
        (lambda z: z, "logits", lambda out: out.softmax(-1)),
    ],
)
def test_a_softmax_is_taken_once(last, kind, probability):
    net, data = Ends(last).eval(), random_graph()
    model, true = explain.wrap(net, data), probability(net(data.x, data.edge_index)).double()
    target = model.node(3)
    assert target.describe()["outputs"] == kind
    said = target.describe().get("assumed", {})
    assert (
        said["outputs"].startswith(kind) if kind != "logits" else not said
    )  # classes and no [0, 1]: nothing is assumed
    assert target.label == int(true[3].argmax())
    for payoff, expected in (("probability", true), ("log_probability", true.log()), ("loss", -true.log())):
        assert model.node(3, label=1, payoff=payoff).value() == pytest.approx(float(expected[3, 1]), rel=1e-5)
    odds = true[3, 1].log() - (1 - true[3, 1]).log() if kind != "logits" else net.conv(data.x, data.edge_index)[3, 1]
    assert model.node(3, label=1, payoff="logit").value() == pytest.approx(float(odds), rel=1e-4)
    assert Shapley("nodes").explain(target).checks["efficiency_gap"] < 1e-6


@pytest.mark.parametrize("labels", [None, torch.arange(24) % 2, (torch.arange(24) % 2).float()])
def test_a_sigmoid_inside_is_decided_at_one_half(labels):
    net, data = Ends(torch.sigmoid, 1).eval(), random_graph()
    data.y = labels
    out = net(data.x, data.edge_index)[:, 0]
    assert 0 < int((out > 0.5).sum()) < 24
    model = explain.wrap(net, data)
    for node in range(24):
        target = model.node(node, payoff="probability")
        assert target.label == int(out[node] > 0.5)
        assert target.value() == pytest.approx(max(float(out[node]), 1 - float(out[node])), abs=1e-6)
        for asked in (target, target.asking("value")):
            said = asked.describe()["assumed"].get("label", "")
            assert ("the number is 1 - the model's output" in said) == (target.label == 0)
        assert "label" not in model.node(node, label=0).describe()["assumed"]


def test_scores_that_happen_to_lie_between_0_and_1_stay_logits():
    x = torch.rand(24, 5, generator=torch.Generator().manual_seed(0)) / 5
    data = random_graph()
    data.x = x

    class Product(nn.Module):
        def encode(self, x, edge_index):
            return x

        def decode(self, z, pairs):
            return (z[pairs[0]] * z[pairs[1]]).sum(-1)

    target = explain.wrap(Product(), data, task="edge").edge(1, 2, payoff="probability")
    assert target.label == 1
    assert target.value() == pytest.approx(float((x[1] * x[2]).sum().sigmoid()), rel=1e-5)
    assert "nothing in forward keeps them in [0, 1]" in target.describe()["assumed"]["outputs"]


def test_other_parameters_are_asked_also_where_the_answers_of_the_trained_ones_are_known():
    torch.manual_seed(7)
    net, data = GCN(4, 8, 2, 1).eval(), Data(x=torch.randn(8, 4), edge_index=torch.randint(0, 8, (2, 20)))
    with torch.no_grad():  # logits of 8 nodes, all between 0 and 1
        logits = net(data.x, data.edge_index)
        net.convs[-1].lin.weight /= 2 * (logits.max() - logits.min())
        net.convs[-1].bias.fill_(0.5 - float(net(data.x, data.edge_index).mean()))
        logits = net(data.x, data.edge_index)
    assert 0 <= logits.min() < logits.max() <= 1
    target = explain.wrap(net, data).node(1, label=1)
    assert target.value() == pytest.approx(float(logits[1, 0]))  # and with it what all nodes are answered
    assert target.describe()["outputs"] == "logits"
    others = target.everyone({name: 2 * p.detach() for name, p in net.named_parameters()})
    assert not torch.allclose(others, logits)


def test_several_labels_of_a_node_are_each_a_sigmoid():
    data = random_graph()
    data.y = (torch.rand(24, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    net = Ends(lambda z: z, 4).eval()
    for outputs, last in (("logits", lambda z: z), ("probabilities", torch.sigmoid)):
        net.last = last
        target = explain.wrap(net, data).node(3, label=2, payoff="probability")
        assert target.meaning.kind == outputs
        assert target.value() == pytest.approx(float(net.conv(data.x, data.edge_index)[3, 2].sigmoid()), rel=1e-5)
        loss = explain.wrap(net, data).node(3, label=2).objective(None)
        z = net.conv(data.x, data.edge_index)[data.train_mask]
        expected = F.binary_cross_entropy_with_logits(z, data.y[data.train_mask], reduction="none").mean(1)
        torch.testing.assert_close(loss.train_loss(loss.params, torch.arange(len(z))), expected, check_dtype=False)


@pytest.mark.parametrize("outputs", [None, "values"])
def test_a_node_regressor_keeps_its_sign(outputs):
    data = random_graph()
    data.y = torch.randn(24, generator=torch.Generator().manual_seed(0)) if outputs is None else None
    net = Ends(lambda z: z, 1).eval()
    model, said = explain.wrap(net, data, outputs=outputs), net(data.x, data.edge_index)[:, 0]
    assert said.min() < 0 < said.max()
    for node in (int(said.argmin()), int(said.argmax())):
        target = model.node(node)
        assert target.value() == pytest.approx(float(said[node]), rel=1e-6)
        assert (target.label, target.describe()["payoff"], target.has_classes) == (None, "value", False)
    with pytest.raises(ValueError, match="'probability' needs classes"):
        model.node(3, payoff="probability")


def test_a_regressor_of_several_outputs_asks_which():
    data = random_graph()
    data.y = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    net = Ends(lambda z: z).eval()
    with pytest.raises(ValueError, match="which of the regressor's 3 outputs is meant, 0 to 2"):
        explain.wrap(net, data).node(3)
    assert explain.wrap(net, data).node(3, label=2).value() == pytest.approx(float(net(data.x, data.edge_index)[3, 2]))


@pytest.mark.parametrize("outputs", [None, "values"])
def test_a_graph_regressor(outputs):
    data = graphs(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    net = Pooled().eval()
    if outputs:
        data = [Data(x=graph.x, edge_index=graph.edge_index) for graph in data]
    model = explain.wrap(net, data, outputs=outputs, task="graph")
    for index, graph in enumerate(data):
        said = float(net(graph.x, graph.edge_index, torch.zeros(5).long()))
        assert model.graph(index).value() == pytest.approx(said, rel=1e-5)
    if outputs is None:
        why = Influence(curvature="ggn", damping=0.1).explain(model.graph(0))
        assert len(why.scores) == 6
        assert why.target["loss"] == "mse"
        assert why.target["assumed"]["loss"].startswith("mse: labels are real numbers")


def test_a_graph_classifier_with_a_sigmoid_and_several_tasks():
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    data, net = graphs(labels), Pooled(torch.sigmoid, 2).eval()
    target = explain.wrap(net, data, task="graph").graph(1, label=1)
    assert (target.meaning.kind, target.meaning.exclusive) == ("probabilities", False)
    objective = target.objective(None)
    out = torch.cat([net(graph.x, graph.edge_index, torch.zeros(5).long()) for graph in data])
    expected = F.binary_cross_entropy(out, labels, reduction="none").mean(1)
    torch.testing.assert_close(objective.train_loss(objective.params, torch.arange(3)), expected, check_dtype=False)


def test_labels_of_nodes_are_none_of_their_graph():
    data = random_graph()
    data.y = torch.randn(24)

    class Mean(nn.Module):
        def forward(self, x, edge_index):
            return x.mean(0, keepdim=True)

    assert explain.wrap(Mean(), data, task="graph").graph().meaning.kind == "logits"


@pytest.fixture(scope="module")
def logistic():
    """A GCN of one output, trained with BCEWithLogitsLoss to its minimum, whose targets are floats."""
    torch.manual_seed(0)
    data = Data(x=torch.randn(30, 4).double(), edge_index=torch.randint(30, (2, 70)), train_mask=torch.arange(30) < 20)
    data.y = (data.x[:, 0] > 0).double()
    net = GCNConv(4, 1).double()
    optimiser = torch.optim.LBFGS(net.parameters(), max_iter=300, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def loss():
        optimiser.zero_grad()
        out = net(data.x, data.edge_index)[data.train_mask, 0]
        penalty = 0.025 * sum(p.square().sum() for p in net.parameters())
        total = F.binary_cross_entropy_with_logits(out, data.y[data.train_mask]) + penalty
        total.backward()
        return total

    optimiser.step(loss)
    return net.eval(), data


def test_float_labels_are_those_of_the_logistic_loss(logistic):
    net, data = logistic

    def influence(labels, **options):
        given = Data(x=data.x, edge_index=data.edge_index, y=labels, train_mask=data.train_mask)
        return Influence().explain(explain.wrap(net, given, weight_decay=0.05, **options).node(25, label=1))

    found = influence(data.y)
    assert found.checks["gradient_norm"] < 1e-6
    assert found.target["loss"] == "bce"
    for labels in (data.y.long(), data.y.bool(), data.y[:, None]):
        torch.testing.assert_close(influence(labels).scores, found.scores)
    named = influence(data.y, loss="bce")
    torch.testing.assert_close(named.scores, found.scores)
    assert "assumed" not in named.target
    by_hand = influence(data.y, loss=lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y, reduction="none"))
    torch.testing.assert_close(by_hand.scores, found.scores)


def test_probabilities_are_trained_by_their_logarithm(logistic):
    net, data = logistic
    scores = [
        Influence().explain(explain.wrap(each, data, weight_decay=0.05).node(25, label=1, payoff="loss")).scores
        for each in (net, Inside(net))
    ]
    torch.testing.assert_close(*scores)


class Inside(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, edge_index):
        return self.net(x, edge_index).sigmoid()


def test_a_loss_beside_the_logits_and_a_hidden_state_before_them():
    data = random_graph()
    net = Ends(lambda z: (z.square().mean(), z)).eval()
    target = explain.wrap(net, data).node(2, label=1)
    assert target.value() == pytest.approx(float(net(data.x, data.edge_index)[1][2, 1]))
    assert "part 1 of 2" in target.describe()["assumed"]["output"]
    net.last = lambda z: (torch.cat([z, z], 1), z)
    assert explain.wrap(net, data).node(2, label=1).value() == pytest.approx(
        float(net(data.x, data.edge_index)[1][2, 1])
    )
    data.y = None
    with pytest.raises(ValueError, match="several parts that may be the outputs"):
        explain.wrap(net, data).node(2)
    assert explain.wrap(net, data, output=1).node(2, label=1).meaning.count == 3


def test_payoffs_that_look_across_rows_or_are_random():
    model = explain.wrap(GCN(5, 8, 2, 2).eval(), random_graph())
    with pytest.raises(ValueError, match="looks across rows"):
        model.node(0, payoff=lambda out: out.softmax(0)[:, 0])
    with pytest.raises(ValueError, match="random"):
        model.node(0, payoff=lambda out: out[:, 0] * torch.rand(()))
