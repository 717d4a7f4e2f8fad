"""What torch.fx and vmap could not do is said of the function, without advice about torch."""

import pytest
import torch
from torch import fx, nn
from torch.func import vmap

from explain.obstacles import obstacle


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def refused(function, by):
    with pytest.raises(Exception) as met:  # noqa: PT011 - of many kinds
        fx.Tracer().trace(Forward(function)) if by == "fx" else vmap(function)(torch.ones(3, 2))
    return obstacle(met.value)


def fail(x):
    raise ValueError("no such class, please look at https://example.org. Then try again")


@pytest.mark.parametrize(
    ("by", "function", "reason"),
    [
        ("fx", lambda x: x * len(x), "the length of a tensor is asked for"),
        ("fx", lambda x: sum(row for row in x), "a tensor or a shape is looped over or unpacked"),
        ("fx", lambda x: x if x.sum() > 0 else -x, "a branch depends on a tensor or its shape"),
        ("fx", lambda x: x * float(x.sum()), "a number is read out of a tensor or its shape"),
        ("fx", lambda x: [x[i] for i in range(x.size(0))], "a number is read out of a tensor or its shape"),
        ("vmap", lambda x: x * x.sum().item(), "a number is read out of a tensor or its shape"),
        ("vmap", lambda x: x if x.sum() > 0 else -x, "a branch depends on a tensor or its shape"),
        ("vmap", lambda x: x + x.tolist()[0], "a tensor is taken out of torch (numpy, tolist)"),
        ("vmap", lambda x: x[x > 0], "the size of a result depends on the numbers in a tensor (a mask, unique)"),
        ("vmap", torch.unique, "the size of a result depends on the numbers in a tensor (a mask, unique)"),
        ("vmap", torch.rand_like, "random numbers are drawn"),
        ("vmap", fail, "ValueError: no such class"),
    ],
)
def test_a_reason_is_of_the_function(by, function, reason):
    assert refused(function, by) == reason


def test_an_error_without_words_is_its_type():
    assert obstacle(AssertionError()) == "AssertionError"
