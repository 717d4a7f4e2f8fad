"""Small graphs and networks that several graph tests share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import APPNP, GAT, GCN, GIN, GraphSAGE, SAGEConv, SGConv

import explain

LOCAL = ("gcn", "gat", "sage", "gin", "sgc", "appnp")


def random_graph(nodes: int = 24, edges: int = 44, features: int = 5, seed: int = 0, undirected: bool = True) -> Data:
    """A sparse random graph without loops, the last node isolated."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(nodes - 1, (2, 4 * edges), generator=generator)
    pairs = pairs[:, pairs[0] < pairs[1]].unique(dim=1)
    pairs = pairs[:, torch.randperm(pairs.size(1), generator=generator)[:edges]]
    edge_index = torch.cat([pairs, pairs.flip(0)], 1) if undirected else pairs
    x = torch.randn(nodes, features, generator=generator)
    y = torch.randint(3, (nodes,), generator=generator)
    return Data(x=x, edge_index=edge_index, y=y, train_mask=torch.rand(nodes, generator=generator) < 0.6)


RATES = ("user", "rates", "film")


def rated(pairs: Tensor | None = None) -> HeteroData:
    """Six users rate five films, and films are rated by them; ``pairs`` are the ``edge_label_index`` of the ratings."""
    data = HeteroData()
    data["user"].x, data["film"].x = torch.randn(6, 4), torch.randn(5, 4)
    ends = torch.stack([torch.arange(6), torch.arange(6) % 5])
    data[RATES].edge_index, data["film", "rated", "user"].edge_index = ends, ends.flip(0)
    data[RATES].edge_label_index = ends if pairs is None else pairs
    return data


class Rating(nn.Module):
    """The score of each pair of a user and a film, of what was heard of the film."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv((4, 4), 3)

    def forward(self, x_dict: dict, edge_index_dict: dict, edge_label_index: Tensor) -> Tensor:
        films = self.conv((x_dict["user"], x_dict["film"]), edge_index_dict[RATES])
        return (x_dict["user"][edge_label_index[0], :3] * films[edge_label_index[1]]).sum(-1)


class RatingOfData(Rating):
    """The same, given the data object."""

    def forward(self, data: HeteroData) -> Tensor:
        return super().forward(data.x_dict, data.edge_index_dict, data[RATES].edge_label_index)


class Sgc(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.conv = SGConv(features, classes, K=3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)


class Appnp(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.conv = APPNP(K=3, alpha=0.1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.linear(x), edge_index)


class Typed(nn.Module):
    """Authors write papers, papers cite papers: two layers of GraphSAGE by relation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.writes, self.cites, self.second = SAGEConv((3, 4), 4), SAGEConv(4, 4), SAGEConv(4, 3)

    def forward(self, x_dict: dict, edge_index_dict: dict) -> dict:
        writes, cites = edge_index_dict["author", "writes", "paper"], edge_index_dict["paper", "cites", "paper"]
        heard = self.writes((x_dict["author"], x_dict["paper"]), writes) + self.cites(x_dict["paper"], cites)
        return {"paper": self.second(heard.relu(), cites)}


def network(name: str, features: int = 5, classes: int = 3, seed: int = 0, double: bool = False) -> nn.Module:
    """One of `LOCAL` with random weights, in eval mode."""
    torch.manual_seed(seed)
    made: nn.Module = {
        "gcn": lambda: GCN(features, 8, 2, classes, norm="batch_norm"),
        "gat": lambda: GAT(features, 8, 2, classes, heads=2),
        "sage": lambda: GraphSAGE(features, 8, 2, classes),
        "gin": lambda: GIN(features, 8, 2, classes),
        "sgc": lambda: Sgc(features, classes),
        "appnp": lambda: Appnp(features, classes),
    }[name]()
    return (made.double() if double else made).eval()


def doubled(data: Data) -> Data:
    """The same graph in float64."""
    return Data(**{k: v.double() if v.is_floating_point() else v for k, v in data.to_dict().items()})


DECAY = 0.05  # of `graph_ridge`


def squared(outputs, labels):
    return (outputs - torch.nn.functional.one_hot(labels, 3)).square().sum(1)


def graph_ridge(data, n, train=None):
    """The minimum of ``(1/n) sum_i |h_i W + b - y_i|^2 + DECAY/2 |theta|^2`` with ``h = A^3 x``, in closed form."""
    net = Sgc(5, 3).double()
    train = data.train_mask if train is None else train
    with torch.no_grad():
        net.conv.lin.weight.copy_(torch.eye(3, 5))
        eye = torch.eye(5).double()
        probe = Sgc(5, 5).double()
        probe.conv.lin.weight.copy_(eye)
        probe.conv.lin.bias.zero_()
        h = torch.cat([probe(data.x, data.edge_index), torch.ones(len(data.x), 1).double()], 1)[train]
        y = torch.nn.functional.one_hot(data.y[train], 3).double()
        theta = torch.linalg.solve(2 * h.T @ h / n + DECAY * torch.eye(6).double(), 2 * h.T @ y / n)
        net.conv.lin.weight.copy_(theta[:5].T)
        net.conv.lin.bias.copy_(theta[5])
    return net


def ridge_target():
    """Node 4's logit of class 0 of `graph_ridge` on a graph of 16 nodes."""
    data = doubled(random_graph(nodes=16, edges=24))
    net = graph_ridge(data, int(data.train_mask.sum()))
    return explain.wrap(net, data, weight_decay=DECAY, loss=squared).node(4, label=0)
