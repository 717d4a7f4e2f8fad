import pytest
import torch
from torch import nn

from explain.analysis import by_magnitude, by_saliency, pruning_curve, weights_kept


@pytest.fixture(scope="module")
def trained():
    """Two of ten columns decide, four are noise, and four are nearly always 0, with the largest weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 10, generator=generator)
    x[:, 6:] = 0.001
    y = (x[:, 0] * 2 - x[:, 1] > 0).long()
    torch.manual_seed(0)
    net = nn.Linear(10, 2)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    with torch.no_grad():
        net.weight[:, 6:] += 5.0
    return net, x, y


def test_weights_by_attribution_go_cheaper_than_by_magnitude_and_by_chance(trained):
    net, x, y = trained
    number = weights_kept(net, lambda net: float((net(x).argmax(1) == y).double().mean()))
    before = [parameter.clone() for parameter in net.parameters()]
    saliency = by_saliency(net, lambda net: nn.functional.cross_entropy(net(x), y, reduction="none"))
    assert {int(weight) % 10 for weight in saliency[-4:]} == {0, 1}
    attributed, magnitude = (pruning_curve(order, number) for order in (saliency, by_magnitude(net)))
    assert attributed.values[0] == attributed.chance[0]
    assert attributed.values[0] > 0.9
    assert attributed.values[3] > magnitude.values[3] + 0.1  # the large weights decide nothing
    assert attributed.area > max(magnitude.area, attributed.area_of_chance)
    assert all(torch.equal(old, now) for old, now in zip(before, net.parameters(), strict=True))
    assert all(low <= mean <= high for low, mean, high in zip(*_spread(attributed), strict=True))


def _spread(curve):
    return curve.lowest, curve.chance, curve.highest


def test_weights_that_are_gone_are_zero():
    net = nn.Linear(4, 3)
    keep = torch.tensor([True, False, False] * 4)
    seen = weights_kept(net, lambda net: float(net.weight.detach().ne(0).flatten().eq(keep).all()))
    assert seen(keep) == 1.0
    assert net.weight.ne(0).all()


def test_losses_are_asked_of_each_example():
    with pytest.raises(ValueError, match=r"one an example, \[examples\]"):
        by_saliency(nn.Linear(2, 1), lambda net: net(torch.ones(2)).sum())


def test_edges_go_by_any_order():
    worth = torch.arange(10.0)
    curve = pruning_curve(worth.argsort(), lambda keep: float(worth[keep].sum()), (0, 0.5, 1))
    assert curve.values == (45.0, 35.0, 0.0)


@pytest.mark.parametrize(
    ("order", "shares", "draws", "words"),
    [
        (torch.tensor([0, 0, 1]), (0, 1), 1, "each part once"),
        (torch.arange(3), (0.5, 0.2), 1, "must grow within 0 to 1"),
        (torch.arange(3), (0.5, 2), 1, "must grow within 0 to 1"),
        (torch.arange(3), (0, 1), 0, "draws of 1 or more"),
    ],
)
def test_what_is_no_order_or_share_is_refused(order, shares, draws, words):
    with pytest.raises(ValueError, match=words):
        pruning_curve(order, lambda keep: 0.0, shares, draws=draws)
