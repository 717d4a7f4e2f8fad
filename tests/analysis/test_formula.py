"""Planted laws are found again, with their fit; the search needs the extra."""

import random

import numpy as np
import pytest
import torch
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
