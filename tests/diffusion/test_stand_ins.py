"""Stand-ins: the same answers, equal rows evaluated once, and nothing left on the user's modules."""

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from explain.diffusion.pipelines.stand_ins import at_rows, once_each, replaced, standing_in, stepping


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.rows = []

    def forward(self, x, *, beside=None, everywhere=None):
        self.rows.append(len(x))
        out = self.weight * x.flatten(1).sum(1) + (0 if beside is None else beside["b"].flatten(1).sum(1))
        return (out if everywhere is None else out + everywhere.sum(), {"again": out})


def test_a_stand_in_is_of_the_same_class_over_the_same_parameters():
    net = Counting()
    hooks = []
    net.register_forward_hook(lambda *_: hooks.append(1))
    calls = []
    stand_in = standing_in(net, lambda own, args, kwargs: calls.append(kwargs) or own(*args, **kwargs))
    x = torch.ones(2, 3)
    assert isinstance(stand_in, Counting)
    assert stand_in.weight is net.weight
    torch.testing.assert_close(stand_in(x)[0], net(x)[0])
    assert (len(calls), len(hooks)) == (1, 2)  # the user's hook is met once a call
    assert "forward" not in vars(net)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_equal_rows_are_evaluated_once(rows):
    net, generator = Counting(), torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=generator).repeat(2, 1)
    beside = {"b": torch.randn(rows, 1, generator=generator).repeat(2, 1)}
    every = torch.randn(2 * rows + 1, generator=generator)  # not one a row
    found = once_each(net, (x,), {"beside": beside, "everywhere": every}, 2 * rows)
    assert net.rows == [rows]
    expected = net(x, beside=beside, everywhere=every)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1]["again"], expected[1]["again"], rtol=0, atol=0)


def test_rows_that_differ_beside_are_not_the_same():
    net = Counting()
    once_each(net, (torch.ones(2, 3),), {"beside": {"b": torch.tensor([[1.0], [2.0]])}}, 2)
    assert net.rows == [2]


def test_what_is_by_row_can_be_told():
    net = Counting()
    everywhere = torch.arange(2.0)  # as many as rows, by chance
    rows = [True, False]
    found = once_each(net, (torch.ones(2, 3),), {"everywhere": everywhere}, 2, rows)[0]
    assert net.rows == [1]
    torch.testing.assert_close(found, torch.full((2,), 7.0))
    torch.testing.assert_close(at_rows((torch.eye(2), everywhere), rows, torch.tensor([1]))[0], torch.eye(2)[1:])


def test_a_prediction_is_replaced_where_it_was():
    assert replaced((torch.zeros(2), {"a": 1}), torch.ones(2))[0].tolist() == [1, 1]


def test_a_scheduler_is_copied():
    scheduler = DDIMScheduler(10)
    steps = []
    copied = stepping(scheduler, lambda own, args, kwargs: steps.append(args[1]) or own(*args, **kwargs))
    copied.set_timesteps(2)
    copied.step(torch.zeros(1, 1, 2, 2), 5, torch.zeros(1, 1, 2, 2))
    assert steps == [5]
    assert scheduler.num_inference_steps is None
    assert "step" not in vars(scheduler)
