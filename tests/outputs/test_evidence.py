"""What outputs mean is proved by the forward pass or by many rows, never by chance."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import explain
from explain.outputs import Meaning, meaning_of

Z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("rows", "operation", "kind"),
    [
        (Z, "addmm", "logits"),
        (Z.softmax(1), None, "probabilities"),
        (Z[:1].softmax(1), "_softmax", "probabilities"),
        (Z.log_softmax(1), None, "log_probabilities"),
        (Z.sigmoid(), "sigmoid", "probabilities"),
        (Z[:1, :1].sigmoid(), "sigmoid", "probabilities"),
        (Z[:, :1].sigmoid(), "reciprocal", "probabilities"),  # 1 / (1 + exp(-z)) by hand, over the whole data
        (Z[:1, :1].sigmoid(), "reciprocal", "logits"),  # one row shows nothing
        (Z.sigmoid(), "sum", "logits"),  # a dot product that happens to lie there
        (Z.sigmoid(), "mul", "logits"),
        (torch.eye(3), "addmm", "logits"),  # three rows that sum to 1 by chance
        (torch.eye(3).repeat(8, 1), "addmm", "probabilities"),  # label propagation
    ],
)
def test_evidence(rows, operation, kind):
    found = meaning_of(rows, operation)
    assert found.kind == kind
    assert found.assumed.startswith(kind)


FUNCTIONS = {  # how a forward ends, and what that makes its answers, whatever the last operation is called
    "logistic by hand": (lambda z: 1 / (1 + (-z).exp()), "probabilities", False),
    "tanh by hand": (lambda z: (z.tanh() + 1) / 2, "probabilities", False),
    "clamped": (lambda z: z.clamp(0, 1), "probabilities", False),
    "two softmaxes": (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, "probabilities", True),
    "normalised": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), "probabilities", True),
    "log of a mean": (lambda z: z.softmax(1).add((2 * z).softmax(1)).div(2).log(), "log_probabilities", True),
    "small logits": (lambda z: z / 100 + 0.3, "logits", True),
    "square": (lambda z: z.square() / 100, "logits", True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bounds_are_proved_with_other_parameters(name):
    function, kind, exclusive = FUNCTIONS[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3)

        def forward(self, x, edge_index=None):
            return function(self.linear(x))

    torch.manual_seed(0)
    net, x = Net(), torch.randn(7, 5)
    data = Data(x=x, edge_index=torch.zeros(2, 0).long(), y=torch.arange(7) % 3)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for target in (
        explain.wrap(net, (x, data.y), task="classification").example(x[0], payoff="probability"),
        explain.wrap(net.eval(), data, task="node").node(0, payoff="probability"),
    ):
        assert (target.meaning.kind, target.meaning.exclusive) == (kind, exclusive)
        assert "with other parameters" in target.describe()["assumed"]["outputs"]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_labels_decide_between_classes_tasks_and_values():
    several = torch.tensor([[0.0, 1.0, 1.0]] * 40)
    assert meaning_of(Z, labels=several) == Meaning("logits", 3, False, meaning_of(Z, labels=several).assumed)
    assert meaning_of(Z, labels=several[:, :2]).exclusive  # not of these outputs
    assert meaning_of(Z, labels=several, loss="cross_entropy").exclusive
    assert meaning_of(Z[:, :1], labels=torch.randn(40)).kind == "values"
    assert meaning_of(Z[:, :1], labels=(Z[:, 0] > 0).float()).kind == "logits"


def test_only_what_bears_on_the_number_is_told():
    softmax = meaning_of(Z)
    assert softmax.told("probability")["outputs"].endswith("(a softmax): no labels say otherwise")
    assert softmax.told("logit") == {}
    assert meaning_of(Z, labels=torch.arange(40) % 3).told("probability") == {}
    assert "outputs='values'" in meaning_of(Z[:, :1]).told("logit")["outputs"]
    assert meaning_of(Z[:, :1], labels=torch.arange(40) % 2).told("logit") == {}


def test_what_was_given_is_not_assumed_but_checked():
    assert meaning_of(Z.softmax(1), "_softmax", given="logits").assumed is None
    with pytest.raises(ValueError, match=r"lie in \[0, 1\], the model answers -"):
        meaning_of(Z, given="probabilities")
    with pytest.raises(ValueError, match="at most 0, the model answers up to"):
        meaning_of(Z, given="log_probabilities")
