"""Other parameters tell what a model keeps itself, or nothing."""

import torch

from explain.outputs import redrawn

Z = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_answers_that_do_not_follow_the_parameters_show_nothing():
    rows = torch.rand(8, 1, generator=torch.Generator().manual_seed(0))
    assert redrawn({"w": torch.ones(3)}, lambda params: rows) is None


def test_a_forward_without_parameters_shows_nothing_elsewhere():
    assert redrawn({}, lambda params: Z) is None
    assert redrawn({"w": Z}, lambda params: torch.ones(4, 1)) is None  # one answer whatever they are
    assert redrawn({"w": Z}, lambda params: params["other"]) is None
