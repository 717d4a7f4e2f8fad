"""Energies over edges and pairs, and the steps that lower them."""

from itertools import pairwise

import pytest
import torch

from explain.analysis import best_diffusivity, energy
from explain.analysis.energy import PENALTIES

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def sphere(nodes=60, seed=0):
    drawn = torch.randn(nodes, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(drawn)


@pytest.mark.parametrize("penalty", ["s", "a"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_every_step_of_difformer_lowers_the_energy(penalty, tau):
    z, falling = sphere(), []
    for _ in range(12):
        falling.append(energy(z, EDGES, penalty).everywhere)
        z = (1 - tau) * z + tau * best_diffusivity(z, penalty) @ z
    falling.append(energy(z, EDGES, penalty).everywhere)
    assert all(after < before for before, after in pairwise(falling))
    assert falling[-1] < (0.9 if tau == 0.1 else 0.01) * falling[0]


@pytest.mark.parametrize("penalty", sorted(PENALTIES))
def test_f_is_the_derivative_of_delta(penalty):
    delta, f = PENALTIES[penalty]
    u = torch.linspace(0, 4, 41, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(delta(u).sum(), u)
    assert torch.allclose(slope, f(u.detach()))
    assert float(delta(torch.zeros(1, dtype=torch.float64))) == pytest.approx(0, abs=1e-12)


def test_on_unit_vectors_the_kernels_are_those_of_the_paper():
    z = sphere(12)
    cosine = z @ z.T
    for penalty, kernel in (("s", 1 + cosine), ("a", torch.sigmoid(cosine))):
        assert torch.allclose(best_diffusivity(z, penalty), kernel / kernel.sum(1, keepdim=True), atol=1e-9)


def test_sums_are_over_edges_and_ordered_pairs():
    z = sphere(7, seed=1)
    pairs = sum(float((a - b).square().sum()) for a in z for b in z)
    found = energy(z, EDGES)
    assert found.everywhere == pytest.approx(pairs)
    assert found.local == pytest.approx(sum(float((z[i] - z[j]).square().sum()) for i, j in EDGES.T))


def test_what_is_no_state_or_penalty_is_refused():
    with pytest.raises(ValueError, match="one of squares, s, a"):
        energy(sphere(), EDGES, "cubes")
    with pytest.raises(ValueError, match=r"falls beyond a distance of 2, and two states are 6 apart: give states"):
        energy(torch.tensor([[0.0], [6.0], [0.0]]), EDGES, "s")
    with pytest.raises(ValueError, match=r"finite numbers \[nodes, columns\]"):
        energy(torch.full((3, 2), float("nan")), EDGES)
