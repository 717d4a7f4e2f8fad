"""Influence among molecules, by the defaults, of networks that chemists train: the definition, by plain autograd."""

import os

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy
from torch_geometric.data import Batch, Data
from torch_geometric.nn import (
    GCNConv,
    GINConv,
    GINEConv,
    GPSConv,
    MessagePassing,
    TransformerConv,
    global_add_pool,
    global_mean_pool,
)

import explain
from explain import Influence, SelfInfluence
from models.motifs import mutag

WIDTH, DECAY = 3, 1.0


def two_layers(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Tanh(), nn.Linear(outputs, outputs))


class Gin(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = GINConv(two_layers(7, WIDTH)), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x, edge_index, batch):
        return self.out(global_add_pool(self.norm(self.conv(x, edge_index)).tanh(), batch) / 10)


class Gine(nn.Module):
    def __init__(self):
        super().__init__()
        self.atoms = nn.Linear(7, WIDTH)
        self.conv, self.out = GINEConv(two_layers(WIDTH, WIDTH), edge_dim=2), nn.Linear(WIDTH, 2)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.out(global_mean_pool(self.conv(self.atoms(x), edge_index, edge_attr), batch))


class Gps(nn.Module):
    def __init__(self):
        super().__init__()
        self.atoms, self.out = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 2)
        self.conv = GPSConv(WIDTH, GCNConv(WIDTH, WIDTH))

    def forward(self, x, edge_index, batch):
        return self.out(global_mean_pool(self.conv(self.atoms(x), edge_index, batch), batch))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = TransformerConv(7, WIDTH, heads=2, edge_dim=2), nn.Linear(2 * WIDTH, 2)

    def forward(self, x, edge_index, edge_attr, batch):
        return self.out(global_mean_pool(self.conv(x, edge_index, edge_attr).tanh(), batch))


class Equivariant(MessagePassing):
    """EGNN (Satorras et al. 2021), one layer: places move, and messages see distances."""

    def __init__(self):
        super().__init__(aggr="add")
        self.atoms, self.out = nn.Linear(7, WIDTH), nn.Linear(WIDTH, 2)
        self.first, self.move = two_layers(2 * WIDTH + 1, WIDTH), nn.Linear(WIDTH, 1)
        self.second = two_layers(2 * WIDTH + 1, WIDTH)

    def forward(self, x, pos, edge_index, batch):
        h = self.atoms(x)
        source, sink = edge_index
        for message in (self.first, self.second):
            apart = pos[sink] - pos[source]
            m = message(torch.cat([h[sink], h[source], apart.square().sum(1, keepdim=True)], 1))
            pos = pos.index_add(0, sink, apart * self.move(m))
            h = h.index_add(0, sink, m)
        return self.out(global_mean_pool(h, batch))


needs_data = pytest.mark.skipif("EXPLAIN_DATA" not in os.environ, reason="EXPLAIN_DATA has no molecules")


@pytest.fixture(scope="module")
def molecules():
    generator = torch.Generator().manual_seed(0)

    def one(graph):
        count, bonds = graph.num_nodes, graph.edge_index.size(1)
        return Data(
            x=graph.x.double(),
            edge_index=graph.edge_index,
            y=graph.y,
            edge_attr=torch.randn(bonds, 2, generator=generator, dtype=torch.float64),
            pos=torch.randn(count, 3, generator=generator, dtype=torch.float64),
        )

    return [one(graph) for graph in mutag().data[:10]]


def by_definition(net, graphs, asked, why):
    """Scores and self-influence by the whole matrix named in the answer."""
    params = list(net.parameters())
    together = Batch.from_data_list(graphs)

    def outputs(batch):
        names = ("x", "pos", "edge_index", "edge_attr", "batch")
        wanted = [name for name in names if name in net.forward.__code__.co_varnames]
        return net(*(batch[name] for name in wanted))

    def row(value, **options):
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, params, materialize_grads=True, **options)])

    logits = outputs(together)
    losses = cross_entropy(logits, together.y, reduction="none")
    each = torch.stack([row(loss, retain_graph=True) for loss in losses])
    if why.checks["curvature"] == "hessian":
        A = torch.stack([row(g, retain_graph=True) for g in row(losses.mean(), create_graph=True)])
    else:
        J = torch.stack([row(z, retain_graph=True) for z in logits.reshape(-1)]).view(len(graphs), 2, -1)
        p = logits.softmax(1).detach()
        A = torch.einsum("nap,nab,nbq->pq", J, torch.diag_embed(p) - p[:, :, None] * p[:, None], J) / len(graphs)
    A = A + (DECAY + why.checks["damping"]) * torch.eye(len(A), dtype=A.dtype)
    number = row(outputs(Batch.from_data_list([asked]))[0, 1])
    along, inverse = -each @ torch.linalg.solve(A, number), torch.linalg.solve(A, each.T)
    return along / len(graphs), (each * inverse.T).sum(1) / len(graphs)


@needs_data
@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
@pytest.mark.parametrize("kind", [Gin, Gine, Gps, Transformer, Equivariant])
def test_the_defaults_are_the_definition(kind, molecules):
    torch.manual_seed(0)
    net = kind().double().eval()
    asked = explain.wrap(net, molecules, weight_decay=DECAY).graph(2, label=1)
    why, own = Influence().explain(asked), SelfInfluence().explain(asked)
    with sdpa_kernel(SDPBackend.MATH):  # attention that can be differentiated twice
        scores, _ = by_definition(net, molecules, molecules[2], why)
        _, self_influence = by_definition(net, molecules, molecules[2], own)
    torch.testing.assert_close(why.scores, scores, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(own.scores, self_influence, rtol=1e-4, atol=1e-7)
