import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN

import explain
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


NODES, PLANTED = 24, 12


class Fit(nn.Module):
    """How well a network says the classes of all nodes, one number a graph."""

    def __init__(self, net, y):
        super().__init__()
        self.net, self.y = net, y

    def forward(self, x, edge_index, edge_weight):
        return -nn.functional.cross_entropy(self.net(x, edge_index, edge_weight), self.y).view(1, 1)


@pytest.fixture(scope="module")
def misled():
    """A trained GCN on two communities, into which heavy edges of the wrong kind, the last ones, came afterwards."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(NODES) % 2
    x = torch.randn(NODES, 4, generator=generator)
    x[:, 0] += 0.7 * (2 * y - 1)
    drawn = torch.randint(NODES, (2, 300), generator=generator)
    drawn = drawn[:, drawn[0] != drawn[1]].unique(dim=1)
    drawn = drawn[:, torch.randperm(drawn.size(1), generator=generator)]
    alike = y[drawn[0]] == y[drawn[1]]
    own, wrong = drawn[:, alike][:, :60], drawn[:, ~alike][:, :PLANTED]
    torch.manual_seed(0)
    net = GCN(4, 8, num_layers=2, out_channels=2)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x, own, torch.ones(60)), y).backward()
        optimiser.step()
    weight = torch.cat([torch.ones(60), torch.full((PLANTED,), 3.0)])
    return net.eval(), Data(x=x, y=y, edge_index=torch.cat([own, wrong], 1), edge_weight=weight)


def test_edges_by_attribution_go_cheaper_than_by_magnitude_and_by_chance(misled):
    net, data = misled
    assert data.num_edges == 60 + PLANTED

    def accuracy(keep):
        found = net(data.x, data.edge_index[:, keep], data.edge_weight[keep]).argmax(1)
        return float((found == data.y).double().mean())

    model = explain.wrap(Fit(net, data.y), data, task="graph", outputs="values")
    why = explain.Occlusion("edges").explain(model.graph())
    assert torch.equal(why.players.index, torch.arange(data.num_edges))
    shares = (0.0, PLANTED / data.num_edges, 0.5, 0.75)
    orders = why.scores.argsort(), data.edge_weight.argsort(stable=True)
    attributed, magnitude = (pruning_curve(order, accuracy, shares) for order in orders)
    assert attributed.values[0] == magnitude.values[0] == accuracy(torch.ones(data.num_edges, dtype=torch.bool))
    assert why.scores[-PLANTED:].mean() < 0 < why.scores[:-PLANTED].mean()
    assert attributed.values[1] > attributed.values[0] + 0.1  # what misled the network is gone
    assert attributed.values[1] > max(magnitude.values[1], attributed.highest[1])  # the heavy edges are the wrong ones
    assert attributed.area > max(magnitude.area, attributed.area_of_chance) + 0.05


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
