"""DIFFormer: its all-pair diffusion written out, its energy, and what it learns."""

import itertools
import math

import pytest
import torch
from graph_cases import random_graph
from reference.networks import difformer, difformer_weights
from torch import nn

from models.datasets import karate_club
from models.difformer import AllPairs, DIFFormer
from models.training import Recipe, accuracy, train


def network(**sizes):
    torch.manual_seed(0)
    return DIFFormer(5, 3, hidden=6, layers=2, **sizes).double().eval()


@pytest.mark.parametrize(
    "sizes",
    [{}, {"heads": 2}, {"norm": "rows"}, {"graph": False}, {"kernel": "a", "tau": 0.2}, {"kernel": "a", "heads": 2}],
    ids=str,
)
def test_it_is_the_paper_s_sum_over_all_pairs(sizes):
    net, data = network(**sizes), random_graph(nodes=9, edges=12)
    expected = difformer(net, data.x.double(), data.edge_index)
    torch.testing.assert_close(net(data.x.double(), data.edge_index), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kernel", "norm"), [("s", "tensor"), ("s", "rows"), ("a", "tensor")])
def test_its_weights_are_what_it_applies_and_each_row_sums_to_one(kernel, norm):
    torch.manual_seed(0)
    pairs, z = AllPairs(4, heads=2, kernel=kernel, norm=norm).double(), torch.randn(7, 4).double()
    weights = pairs.weights(z)
    torch.testing.assert_close(weights, difformer_weights(pairs, z))
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 7).double())
    torch.testing.assert_close((weights @ z).mean(0), pairs(z))
    assert weights.min() >= 0


def test_the_norm_of_the_whole_tensor_leaves_next_to_no_attention():
    z, spread = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), {}
    for norm in ("tensor", "rows"):
        torch.manual_seed(0)
        weights = AllPairs(4, norm=norm).weights(z).detach()
        spread[norm] = float((60 * weights - 1).abs().max())  # from 1/N each
    assert spread["tensor"] < 0.1 < 0.5 < spread["rows"]


PENALTIES = {  # delta(u) - delta(0), of which the kernel's f(u) is the derivative, on unit vectors
    "s": lambda u: 2 * u - u.square() / 4,
    "a": lambda u: u - 2 * ((u / 2 - 1).exp() + 1).log() + 2 * math.log(math.exp(-1) + 1),
}


def apart_in(z):
    """``|z_i - z_j|^2`` of all pairs."""
    return (z[:, None] - z).square().sum(2)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kernel", ["s", "a"])
def test_each_step_lowers_the_energy(kernel, tau):
    """``sum_ij delta(|z_i - z_j|^2)`` falls with ``z' = (1 - tau) z + tau S z``, and ``S`` is ``f = delta'`` of it."""
    pairs = AllPairs(8, kernel=kernel, norm="rows").double()
    for layer in (pairs.query, pairs.key):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    for seed in range(5):
        z = nn.functional.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(seed)).double(), dim=1)
        apart = apart_in(z).requires_grad_()
        slope = torch.autograd.grad(PENALTIES[kernel](apart).sum(), apart)[0]
        torch.testing.assert_close(pairs.weights(z)[0], slope / slope.sum(1, keepdim=True))
        energies = []
        for _ in range(13):
            energies.append(float(PENALTIES[kernel](apart_in(z)).sum()))
            with torch.no_grad():
                z = (1 - tau) * z + tau * pairs(z)
        resolved = [energy for energy in energies if energy > 1e-12 * energies[0]]
        assert len(resolved) > 3
        assert all(after < before for before, after in itertools.pairwise(resolved))


def test_it_learns_the_karate_club():
    club = karate_club(labelled=3)
    for kernel in ("s", "a"):
        net = DIFFormer(34, 4, hidden=16, layers=2, kernel=kernel)
        train(net, club, Recipe(epochs=60, lr=0.01, weight_decay=5e-3), seed=0, progress=False)
        assert accuracy(net, club, club.test_mask) >= 0.6  # the largest community is 38 % of the nodes


def test_another_kernel_is_refused():
    with pytest.raises(ValueError, match='kernel must be "s" or "a"'):
        AllPairs(4, kernel="softmax")
