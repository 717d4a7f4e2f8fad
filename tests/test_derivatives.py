"""Torch's derivative against small steps: functions whose own derivative is known, right, kinked, jumping or wrong."""

import pytest
import torch

from explain.derivatives import derivative

SIZE = 12
W = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / SIZE**0.5


def hidden(x):
    return x @ W[0].to(x.dtype)


def through(rounded):
    """A straight-through gradient."""

    def f(x):
        h = hidden(x)
        return (h + (rounded(h) - h).detach()).sum(1)

    return f


def eigen(x):
    """The first eigenvector of ``1 + x`` on the diagonal: any, where no eigenvalue is the smallest."""
    return torch.linalg.eigh(torch.diag_embed(1 + x))[1][:, 0, 0] ** 2


def measured(f, x, seed=0):
    x = x[None].clone().requires_grad_()
    told = f(x)
    (gradient,) = torch.autograd.grad(told.sum(), x)
    owned = torch.ones_like(x, dtype=torch.bool)
    return derivative(f, x, float(told.detach()), gradient, owned, torch.Generator().manual_seed(seed))


def inputs(dtype, seed=0):
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


RIGHT = {
    "linear": lambda x: hidden(x).sum(1) + 3,
    "smooth": lambda x: (hidden(x).tanh() @ W[1].to(x.dtype)).log_softmax(1)[:, 0],
    "kinks": lambda x: (hidden(x).relu() @ W[1].to(x.dtype)).relu().sum(1),
    "largest": lambda x: hidden(x).amax(1) + hidden(x).topk(3)[0].sum(1),
    "shifted by what cancels": lambda x: (hidden(x) - hidden(x).detach().amax()).softmax(1)[:, 0],
    "far from nought": lambda x: hidden(x).tanh().sum(1) + 300,
    "nothing of the inputs": lambda x: (0 * x).sum(1) + 5,
    "the root of what may vanish": lambda x: (x.abs() + 1e-3).sqrt().sum(1),
}
WRONG = {
    "detached": lambda x: (hidden(x) * hidden(x).tanh().detach()).sum(1),
    "data": lambda x: (hidden(x) * hidden(x).data.cos()).sum(1),
    "straight through a sign": through(torch.sign),
    "straight through a rounding": through(lambda h: (5 * h).round() / 5),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RIGHT)
def test_what_torch_says_is_right(name, dtype):
    for seed in range(8):
        assert measured(RIGHT[name], inputs(dtype, seed), seed).doubt == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_kink_right_there_is_no_fault(dtype):
    for name in ("kinks", "largest"):
        for seed in range(8):
            assert measured(RIGHT[name], torch.zeros(SIZE, dtype=dtype), seed).doubt == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WRONG)
def test_what_torch_says_is_another_derivative(name, dtype):
    for seed in range(8):
        found = measured(WRONG[name], inputs(dtype, seed), seed)
        assert found.doubt
        assert found.gap > 0.03


def test_vectors_of_equal_eigenvalues_jump():
    x = torch.zeros(1, SIZE, dtype=torch.float64)
    for seed in range(8):
        found = derivative(eigen, x, float(eigen(x)), torch.zeros_like(x), x == 0, torch.Generator().manual_seed(seed))
        assert "the number jumps" in found.doubt


def test_inputs_that_a_number_does_not_know_are_not_held_against_it():
    def strict(x):
        if (x < 0).any():
            raise ValueError("counts")
        return x.sum(1)

    assert measured(strict, torch.zeros(SIZE)).doubt == ""
    assert measured(lambda x: (x.log() * x).sum(1), torch.full((SIZE,), 1e-3)).doubt == ""


def test_only_owned_atoms_move():
    x = inputs(torch.float64)[None]
    owned = torch.arange(SIZE)[None] < 6
    f = lambda x: x[:, :6].sum(1) + x[:, 6:].detach().sum(1)  # noqa: E731 - a formula
    gradient = owned.double()
    assert derivative(f, x, float(f(x)), gradient, owned, torch.Generator().manual_seed(0)).gap < 1e-9
    assert derivative(f, x, float(f(x)), gradient, owned | True, torch.Generator().manual_seed(0)).gap > 0.1
