"""Many numbers in one pass: the same as one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import explain
from explain.influence.scores import measured_gradient, measured_gradients
from explain.influence.together import asked_of
from explain.types import Target


def classifier(net: nn.Module | None = None) -> list[Target]:
    torch.manual_seed(0)
    x, y = torch.randn(20, 6), torch.arange(20) % 3
    wrapped = explain.wrap(
        net or nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), task="classification", train=(x, y)
    )
    payoffs = ("loss", "logit", "probability", "loss")
    return [wrapped.example(x[k], label=k % 3, payoff=payoff) for k, payoff in enumerate(payoffs)]


def nodes() -> list[Target]:
    from torch_geometric.datasets import KarateClub
    from torch_geometric.nn import GCN

    torch.manual_seed(0)
    wrapped = explain.wrap(GCN(34, 8, num_layers=2, out_channels=4), KarateClub()[0])
    return [wrapped.node(k, payoff=payoff) for k, payoff in ((3, "loss"), (8, "logit"), (8, "probability"))]


def one_by_one(targets: list[Target]) -> tuple[list[float], Tensor]:
    values, gradients = zip(*(measured_gradient(each.objective()) for each in targets), strict=True)
    return list(values), torch.stack(gradients, 1)


@pytest.mark.parametrize("asked", [classifier, nodes])
def test_numbers_and_gradients_are_those_of_each_alone(asked):
    targets = asked()
    questions = targets[0].questions(targets)
    assert questions is not None
    values, gradients = measured_gradients(targets[0].objective().params, questions)
    expected, alone = one_by_one(targets)
    assert values == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradients, alone, rtol=1e-4, atol=1e-6)


class Centred(nn.Module):
    """A model whose rows see one another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - x.mean(0))


@pytest.mark.filterwarnings("ignore:rows of a batch see one another")
def test_rows_that_see_one_another_are_asked_one_by_one():
    targets = classifier(Centred())
    assert targets[0].questions(targets) is None
    expected, alone = one_by_one(targets)
    _, values, gradients = asked_of(targets)
    assert values == expected
    torch.testing.assert_close(gradients, alone)


def test_targets_of_two_wrappings_are_asked_one_by_one():
    first, second = classifier(), classifier()
    assert first[0].questions([first[0], second[0]]) is None
    graph, other = nodes(), nodes()
    assert graph[0].questions([graph[0], other[0]]) is None


def test_a_number_of_no_parameter_has_no_gradient():
    x = torch.randn(4, 2)
    wrapped = explain.wrap(nn.Linear(2, 2), task="classification", train=(x, torch.tensor([0, 1, 0, 1])))
    constant = [wrapped.example(x[k], payoff=lambda outputs: torch.ones(len(outputs))) for k in range(2)]
    values, gradients = measured_gradients(constant[0].objective().params, constant[0].questions(constant))
    assert values == [1.0, 1.0]
    assert not gradients.any()
