"""A callable payoff is a function of each row alone: asked twice, alone and in a batch."""

import pytest
import torch
from torch import nn

import explain
from explain.payoffs import payoff_name, probed

ROW = torch.tensor([[0.3, -1.2, 0.8]])


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        (lambda out: out[:, 0] - out[:, 0].mean(), "looks across rows"),
        (lambda out: out.softmax(0)[:, 0], "looks across rows"),
        (lambda out: out[:, 0] / len(out), "looks across rows"),
        (lambda out: (out[:, 0] == out[:, 0].max()).float(), "looks across rows"),
        (lambda out: out[:, 0].cumsum(0), "looks across rows"),
        (lambda out: out[:, 0].flip(0), "looks across rows"),
        (lambda out: out[:, 0] + torch.rand(len(out)), "random"),
        (lambda out: out[:, 0] * torch.rand(()), "random"),
        (lambda out: nn.functional.dropout(out, 0.5)[:, 0], "random"),
        (lambda out: out.sum(), r"one number a row, a tensor \[4\], got \[\]"),
        (lambda out: out[:, :1], r"one number a row, a tensor \[4\], got \[4, 1\]"),
        (lambda out: [0.0] * len(out), "got list"),
    ],
)
def test_what_is_no_function_of_a_row_is_refused(payoff, message):
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        probed(payoff, ROW)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "payoff",
    [
        lambda out: out[:, 0] - out.mean(1),
        lambda out: out.softmax(1)[:, 2],
        lambda out: out.sort(1).values[:, 0],
        lambda out: torch.zeros(len(out)),
        lambda out: out.mul_(2)[:, 0],  # in place, on rows of its own
    ],
)
def test_what_is_one_passes_and_leaves_the_rows_alone(payoff):
    rows = ROW.clone()
    probed(payoff, rows)
    assert torch.equal(rows, ROW)


def test_payoffs_are_probed_where_they_are_asked():
    data = explain.wrap(nn.Linear(3, 2), task="classification")
    with pytest.raises(ValueError, match="looks across rows"):
        data.example(ROW[0], payoff=lambda out: out[:, 0] - out[:, 0].mean())
    with pytest.raises(ValueError, match="random"):
        data.example(ROW[0], payoff=lambda out: out[:, 0] + torch.rand(len(out)))


def test_a_function_made_inside_another_goes_by_its_own_name():
    assert payoff_name(doubled_outputs()) == "outputs"


def doubled_outputs():
    def outputs(rows):
        return 2 * rows[:, 0]

    return outputs
