"""Janossy pooling: the mean over all orders, and what pairs say that a mean cannot."""

import pytest
import torch
from reference.networks import janossy
from torch import nn

from models.janossy import Janossy, JanossyPooling


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_it_is_the_mean_over_all_orders(k):
    torch.manual_seed(0)
    pooling, x = JanossyPooling(4, 3, k=k).double(), torch.randn(8, 4).double()
    index = torch.tensor([2, 0, 0, 2, 0, 0, 3, 0])  # sets of 5, of nobody, of 2 and of 1
    expected = torch.stack([janossy(pooling.read, x[index == group], k) for group in range(4)])
    torch.testing.assert_close(pooling(x, index, 4), expected, rtol=1e-9, atol=1e-12)


def test_the_order_of_edges_does_not_matter():
    torch.manual_seed(0)
    net, x = Janossy(4, 3).double(), torch.randn(6, 4).double()
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 1, 1, 2, 0]])
    torch.testing.assert_close(net(x, edges), net(x, edges[:, [3, 0, 5, 1, 4, 2]]))


def test_pairs_tell_sets_of_one_mean_apart():
    """Whether two signs are alike: linear in the mean of what is said of each is no answer to that."""
    signs = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).sign()
    x, index = signs.view(-1, 1), torch.arange(64).repeat_interleave(2)
    wanted = signs.prod(1)
    left = {}
    for k in (1, 2):
        torch.manual_seed(0)
        pooling, out = JanossyPooling(1, 8, k=k), nn.Linear(8, 1)
        optimizer = torch.optim.Adam([*pooling.parameters(), *out.parameters()], lr=0.03)
        for _ in range(100):
            optimizer.zero_grad()
            loss = (out(pooling(x, index, 64))[:, 0] - wanted).square().mean()
            loss.backward()
            optimizer.step()
        left[k] = float(loss.detach() / wanted.var())
    assert left[2] < 0.05 < 0.9 < left[1]


def test_no_member_at_a_time_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        JanossyPooling(2, 2, k=0)
