"""Layers and functions that work in place write onto copies: the data stays, and scores are those of a plain twin."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCNConv, HeteroConv, SAGEConv, global_add_pool
from torch_geometric.utils import to_dense_adj

import explain
from explain import Gradient, Influence, Lime, Mask, Occlusion, Shapley


def written(x, in_place):
    """A usual first line of a forward, ``relu(2 x)``."""
    return torch.relu_(x.mul_(2)) if in_place else torch.relu(x * 2)


class Table(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place, self.line = in_place, nn.Linear(4, 2)

    def forward(self, x):
        return self.line(written(x, self.in_place))


class Graph(nn.Module):
    def __init__(self, in_place, residual=True):
        super().__init__()
        torch.manual_seed(0)
        self.in_place, self.residual = in_place, residual
        self.one, self.two, self.beside = GCNConv(4, 4), GCNConv(4, 2), nn.Linear(4, 2)

    def forward(self, x, edge_index, edge_weight=None):
        if self.in_place:
            edge_index.clamp_(min=0)
            if edge_weight is not None:
                edge_weight.abs_()
        elif edge_weight is not None:
            edge_weight = edge_weight.abs()
        x = written(x, self.in_place)
        return self.two(torch.tanh(self.one(x, edge_index, edge_weight)), edge_index, edge_weight) + self.beside(x)


class Traced(nn.Module):
    """In place in a way that has a fast path, the features read twice."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.relu, self.conv, self.beside = nn.ReLU(inplace=in_place), GCNConv(4, 2), nn.Linear(4, 2)

    def forward(self, x, edge_index):
        x = self.relu(x)
        return self.conv(x, edge_index) + self.beside(x)


class Pooled(Graph):
    def forward(self, x, edge_index, batch):
        return global_add_pool(super().forward(x, edge_index), batch)


class Dense(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place, self.line = in_place, nn.Linear(4, 2)

    def forward(self, x, adj):
        adj = adj.mul_(0.5).add_(torch.eye(len(adj))) if self.in_place else adj * 0.5 + torch.eye(len(adj))
        return adj @ self.line(written(x, self.in_place)) / len(adj)


def small_graph(weights=False):
    generator = torch.Generator().manual_seed(1)
    index = torch.tensor([[0, 1, 2, 3, 4, 1, 3], [1, 2, 3, 4, 0, 0, 1]])
    data = Data(torch.randn(5, 4, generator=generator), index, y=torch.arange(5) % 2)
    data.train_mask = torch.ones(5, dtype=torch.bool)
    if weights:
        data.edge_weight = torch.randn(7, generator=generator)
    return data


def kept(data):
    return [value.clone() for store in data.stores for value in store.values() if isinstance(value, torch.Tensor)]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


TABLES = [Shapley("features"), Lime("features", seed=0), Gradient("features", steps=8), Occlusion("features")]
NODES = [
    *(Shapley("edges"), Shapley("nodes"), Shapley("features"), Lime("edges", seed=0), Occlusion("nodes")),
    *(Gradient("edges", steps=8), Gradient("features", steps=8), Mask("edges", epochs=3, seed=0)),
]
BEHIND = [
    Influence(damping=0.5, curvature="ggn", seed=0),
    Influence(damping=0.5, curvature="ggn", remove="nodes", seed=0),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of networks that were not trained
@pytest.mark.parametrize("explainer", [*TABLES, BEHIND[0]], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("baseline", [None, "background"])
def test_tables(explainer, baseline):
    x, labels = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 2
    before, found = x.clone(), []
    for in_place in (True, False):
        net = Table(in_place)
        model = explain.wrap(net, (x, labels), task="classification", background=x[:3], weight_decay=0.1)
        target = model.example(x[0], 1, baseline=baseline or torch.full((4,), -5.0))
        found.append(explainer.explain(target))
        assert torch.equal(x, before), "the user's data"
    assert torch.allclose(found[0].scores, found[1].scores, atol=1e-6)
    assert found[0].value == pytest.approx(found[1].value)


def test_the_field_case_in_numbers():
    x, base, line = torch.tensor([1.0, -2.0, 3.0, -4.0]), torch.full((4,), -5.0), nn.Linear(4, 1)

    class Clamped(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = line

        def forward(self, x):
            x.clamp_(min=0)
            return self.line(x)

    target = explain.wrap(Clamped(), task="regression").example(x, baseline=base)
    why = Shapley("features").explain(target)
    assert torch.allclose(why.scores, (line.weight[0] * torch.tensor([1.0, 0.0, 3.0, 0.0])).double(), atol=1e-6)
    assert x.tolist() == [1, -2, 3, -4]
    assert base.tolist() == [-5] * 4


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("net", [Graph, Traced])
@pytest.mark.parametrize("explainer", [*NODES, *BEHIND], ids=lambda e: type(e).__name__)
def test_nodes(explainer, net):
    found = []
    for in_place in (True, False):
        data = small_graph(weights=net is Graph and not isinstance(explainer, Mask))
        before = kept(data)
        inputs = {"edge_weight": "edge_weight"} if "edge_weight" in data else None
        target = explain.wrap(net(in_place), data, weight_decay=0.1, inputs=inputs).node(1, label=0)
        found.append(explainer.explain(target))
        assert same(before, kept(data)), "the user's data"
    assert torch.equal(found[0].players.index, found[1].players.index)
    assert torch.allclose(found[0].scores, found[1].scores, atol=1e-5)
    assert found[0].value == pytest.approx(found[1].value, abs=1e-5)


@pytest.mark.parametrize("removal", ["delete", "message", "features"])
def test_other_removals(removal):
    found = []
    for in_place in (True, False):
        data = small_graph()
        before = kept(data)
        target = explain.wrap(Graph(in_place), data).node(1, label=0, removal=removal)
        found.append(Shapley("nodes").explain(target).scores)
        assert same(before, kept(data))
    assert torch.allclose(*found, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_graphs_dense_matrices_and_types():
    for made in (_pooled, _dense, _typed):
        found = []
        for in_place in (True, False):
            data, target = made(in_place)
            before = [kept(each) for each in data]
            for explainer in (Shapley("nodes"), Lime("nodes", seed=0)):
                found.append(explainer.explain(target).scores)
            if made is _pooled:
                found.append(BEHIND[0].explain(target).scores)
            assert all(same(*pair) for pair in zip(before, map(kept, data), strict=True)), made.__name__
        half = len(found) // 2
        for one, other in zip(found[:half], found[half:], strict=True):
            assert torch.allclose(one, other, atol=1e-5), made.__name__


def _pooled(in_place):
    data = [small_graph() for _ in range(4)]
    for number, each in enumerate(data):
        del each.train_mask
        each.x = each.x + number
        each.y = torch.tensor([number % 2])
    return data, explain.wrap(Pooled(in_place), data, weight_decay=0.1).graph(1, label=0)


def _dense(in_place):
    data = small_graph()
    data = Data(data.x, adj=to_dense_adj(data.edge_index)[0])
    return [data], explain.wrap(Dense(in_place), data).node(1, label=0)


def _typed(in_place):
    class Typed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = HeteroConv({("a", "to", "b"): SAGEConv((4, 4), 2)})

        def forward(self, x_dict, edge_index_dict):
            return self.conv({kind: written(x, in_place) for kind, x in x_dict.items()}, edge_index_dict)["b"]

    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    for kind in "ab":
        data[kind].x = torch.randn(4, 4, generator=generator)
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1, 2], [1, 1, 0]])
    return [data], explain.wrap(Typed(), data).node(("b", 1), label=0)


def test_large_graphs_are_copied_at_the_first_call_only(monkeypatch):
    """Of 4 MiB of features nothing is copied once it is known that nothing is written."""
    data = Data(torch.randn(1000, 1024), torch.stack([torch.arange(1000), torch.arange(1000).roll(1)]))
    net = GCNConv(1024, 2)
    target = explain.wrap(net, data).node(0)
    copied = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **k: copied.append(self.nbytes) or clone(self, **k))
    target.value(), target.run()
    assert max(copied, default=0) < data.x.nbytes

    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.often = net, False

        def forward(self, x, edge_index):
            return self.conv(x.relu_() if self.often else x, edge_index)

    moody = Sometimes()
    target = explain.wrap(moody, data).node(0)
    moody.often = True
    with pytest.raises(ValueError, match=r"wrote onto the graph.*x\.clone"):
        target.value()


class Denoiser(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.in_place, self.conv = in_place, nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, label):
        if self.in_place:
            t.mul_(0)
            label.sub_(1.0)
        else:
            label = label - 1.0
        return self.conv(written(x, self.in_place)) + label.mean(1).view(-1, 1, 1, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_denoisers():
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(4, 1, 4, 4, generator=generator), torch.randn(4, 3, generator=generator)
    before, found = (images.clone(), labels.clone()), []
    for in_place in (True, False):
        options = {"betas": torch.linspace(1e-4, 0.02, 10), "shape": (1, 4, 4), "time": "step", "draws": 2}
        model = explain.wrap(Denoiser(in_place), null=torch.zeros(3), weight_decay=0.1, **options)
        step = model.step(images[0], t=5, label=labels[0], seed=0, draws=2, payoff=lambda clean: clean.sum((1, 2, 3)))
        run = model.trajectory(
            labels[0], payoff=lambda found: found.relu_().sum((1, 2, 3)), steps=3, guidance=2.0, seed=0
        )
        found.append(Shapley("patches", samples=96, seed=0).explain(step).scores)
        found.append(Gradient("patches", steps=4).explain(step).scores)
        found.append(Shapley("steps").explain(run).scores)
        found.append(Influence((images, labels), curvature="ggn", damping=0.5, seed=0).explain(step).scores)
        assert torch.equal(images, before[0])
        assert torch.equal(labels, before[1])
    for one, other in zip(found[:4], found[4:], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_functions_of_the_user():
    """A payoff, a loss, a decoder and a call that work in place."""
    x, labels = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.randn(9, 2)
    found = []
    for in_place in (True, False):
        data = small_graph()
        before = kept(data)

        def payoff(rows, in_place=in_place):
            return written(rows, in_place)[:, 0]

        def loss(outputs, labels, in_place=in_place):
            gap = outputs.sub_(labels) if in_place else outputs - labels
            return gap.square().sum(1)

        def decoder(z, pairs, in_place=in_place):
            z = written(z, in_place)
            return (z[pairs[0]] * z[pairs[1]]).sum(1)

        def call(net, data, in_place=in_place):
            return net(written(data.x, in_place), data.edge_index)

        table = explain.wrap(Table(False).double(), (x.double(), labels.double()), task="regression", loss=loss)
        found.append(Shapley("features").explain(table.example(x[0].double(), payoff=payoff)).scores)
        found.append(Influence(curvature="ggn", damping=0.5, seed=0).explain(table.example(x[0].double(), 0)).scores)
        found.append(
            Shapley("edges")
            .explain(explain.wrap(Graph(False).double(), data.clone().apply(_double), call=call).node(1, payoff=payoff))
            .scores
        )
        learned = Stored()
        link = explain.wrap(learned, data, task="edge", decoder=decoder).edge(0, 3)
        found.append(Shapley("edges").explain(link).scores)
        assert torch.equal(learned.table.detach(), Stored().table.detach())
        assert same(before, kept(data))
    for one, other in zip(found[:4], found[4:], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def _double(value):
    return value.double() if value.is_floating_point() else value


class Stored(nn.Module):
    """An encoder that answers with its own parameter where there are no edges to look at."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(5, 3))

    def forward(self, x, edge_index):
        return self.table if not edge_index.numel() else self.table + edge_index.sum() * 0.01
