"""Planted laws are found again, with their fit; the search needs the extra."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv

from explain.analysis import formula, messages


def drawn(*shape, seed=0):
    return 0.5 + 1.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_planted_law_is_found_with_its_complexity():
    pytest.importorskip("gplearn")
    x = drawn(120, 3)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    found = formula(x, x[:, 0] * x[:, 1] / x[:, 2], ("mass", "charge", "distance"))
    assert found.held == pytest.approx(1)
    assert found.fit == pytest.approx(1)
    assert found.complexity == 5
    assert all(name in found.text for name in ("mass", "charge", "distance"))
    other = drawn(5, 3, seed=1)
    assert torch.allclose(found.evaluate(other), other[:, 0] * other[:, 1] / other[:, 2])
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_of_noise_the_held_rows_tell():
    pytest.importorskip("gplearn")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, generator=generator), torch.randn(40, generator=generator)
    found = formula(x, y, population=200, generations=3)
    assert found.held < 0.3


class Spring(MessagePassing):
    """A force along each edge, ``w (x_j - x_i)``."""

    def __init__(self):
        super().__init__(aggr="add")

    def forward(self, x, edge_index, weight):
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_i, x_j, weight):
        return weight[:, None] * (x_j - x_i)


def test_the_law_of_a_message_is_found():
    edges = torch.randint(0, 20, (2, 80), generator=torch.Generator().manual_seed(0))
    x, weight = drawn(20, 1), drawn(80, seed=2)
    found = messages(Spring(), "Spring", lambda net: net(x, edges, weight))
    assert sorted(found.names) == ["weight[0]", "x_i[0]", "x_j[0]"]
    assert torch.allclose(found.outputs[:, 0], weight * (x[edges[1]] - x[edges[0]])[:, 0] * -1)
    pytest.importorskip("gplearn")
    law = formula(found.inputs, found.outputs[:, 0], found.names)
    assert law.held == pytest.approx(1)
    assert law.complexity == 5


class Learned(MessagePassing):
    """A message of any form, learned from the sums of what arrives."""

    def __init__(self):
        super().__init__(aggr="add")
        self.sent = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x, edge_index, weight):
        return self.propagate(edge_index, x=x, weight=weight)

    def message(self, x_i, x_j, weight):
        return self.sent(torch.cat([x_i, x_j, weight[:, None]], 1))


def fitted(net, given, wanted, steps, lr):
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.mse_loss(net(*given), wanted).backward()
        optimiser.step()
        falling.step()
    return net


def test_the_law_of_a_trained_message_is_that_of_the_forces_it_learned_from():
    pytest.importorskip("gplearn")
    generator = torch.Generator().manual_seed(0)
    x, edges = 2 * torch.rand(60, 1, generator=generator), torch.randint(0, 60, (2, 200), generator=generator)
    weight = 0.5 + 1.5 * torch.rand(200, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = fitted(Learned(), (x, edges, weight), Spring()(x, edges, weight), steps=400, lr=0.02)
    found = messages(net, "Learned", lambda net: net(x, edges, weight))
    law = formula(
        found.inputs[:100],
        found.outputs[:100, 0],
        found.names,
        functions=("sub", "mul"),
        population=400,
        generations=6,
        seed=1,
    )
    assert 0.95 < law.held < 1  # a network comes near it
    assert law.complexity <= 7
    there = drawn(20, 3, seed=3)
    at = dict(zip(found.names, there.T, strict=True))
    assert torch.allclose(law.evaluate(there), at["weight[0]"] * (at["x_j[0]"] - at["x_i[0]"]))


def test_the_mean_of_a_trained_denoiser_is_that_of_gaussian_data():
    """``E[x_0 | x_t] = (1 + x_t) / 2`` of data ``N(1, 1)`` under noise ``N(0, 1)``."""
    pytest.importorskip("gplearn")
    generator = torch.Generator().manual_seed(0)
    clean = 1 + torch.randn(4000, 1, generator=generator)
    noisy = clean + torch.randn(4000, 1, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = fitted(nn.Linear(1, 1), (noisy,), clean, steps=150, lr=0.05)
    x_t = noisy[:60]
    law = formula(
        x_t, denoiser(x_t)[:, 0], ("x_t",), functions=("add", "mul"), parsimony=1e-4, population=400, generations=8
    )
    assert law.held > 0.99
    asked = torch.linspace(-2, 4, 13)[:, None]
    assert torch.allclose(law.evaluate(asked), (1 + asked[:, 0].double()) / 2, atol=0.1)


def test_what_has_no_messages_or_rows_is_said():
    with pytest.raises(ValueError, match="no message passing layer; there are GCNConv"):
        messages(GCNConv(2, 2), "conv", lambda net: None)
    with pytest.raises(ValueError, match="sent no message in this call"):
        messages(SAGEConv(2, 2), "SAGEConv", lambda net: None)
    pytest.importorskip("gplearn")
    with pytest.raises(ValueError, match=r"8 rows or more, got \[3, 2\] and \[3\]"):
        formula(torch.ones(3, 2), torch.ones(3))
    with pytest.raises(ValueError, match="y must change"):
        formula(drawn(9, 2), torch.ones(9))


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gplearn.genetic", None)
    with pytest.raises(ImportError, match=r"explain-models\[formula\]"):
        formula(drawn(9, 2), drawn(9))
