"""Performers (Choromanski et al. 2021) in torch_geometric's GPS layers: no weight is formed, and all are said."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GPSConv

import explain
from explain.attention import Attention, NothingCaptured, capture

N, EDGES = 6, torch.tensor([[0, 1, 2, 3, 4, 5, 0, 3], [1, 2, 3, 4, 5, 0, 2, 0]])
LAYERS = ["layers.0.attn.fast_attn", "layers.1.attn.fast_attn"]


class GPS(nn.Module):
    """Two layers of messages beside attention on all nodes, by positive features of ReLU."""

    def __init__(self):
        super().__init__()
        own = {"heads": 2, "attn_type": "performer", "attn_kwargs": {"head_channels": 4}}
        self.into, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.layers = nn.ModuleList(GPSConv(8, GCNConv(8, 8), **own) for _ in range(2))

    def forward(self, x, edge_index):
        x = self.into(x)
        for layer in self.layers:
            x = layer(x, edge_index)
        return self.out(x)


def kernel(layer, q, k, v):
    """``f(q_i) f(k_j) / sum_j f(q_i) f(k_j)``, ``f(x) = relu(W x) + 0.001``, ``[batch, heads, n, n]``."""
    q, k = ((each @ layer.projection_matrix.T).relu() + 0.001 for each in (q, k))
    weights = torch.einsum("bhir,bhjr->bhij", q, k)
    return weights / weights.sum(-1, keepdim=True)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return GPS().double().eval()


@pytest.fixture(scope="module")
def x():
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def test_weights_that_are_said_are_those_of_the_layer_and_its_output_stays(net, x):
    plain, met = net(x, EDGES), []
    handles = [
        layer.attn.fast_attn.register_forward_hook(lambda _, args, out: met.append((args[2], out)))
        for layer in net.layers
    ]
    with capture(net, attention={"layers.*.attn.fast_attn": kernel}) as maps:
        watched = net(x, EDGES)
    for handle in handles:
        handle.remove()
    assert torch.equal(watched, plain)
    assert [one.module for one in maps] == LAYERS
    for one, (v, out) in zip(maps, met, strict=True):
        assert one.weights.shape == (1, 2, N, N)
        assert float((one.weights.sum(-1) - 1).abs().max()) < 1e-12
        torch.testing.assert_close(one.weights @ v, out)  # what the layer sums with them, and never forms
    with pytest.raises(NothingCaptured, match=r"say its weights, attention=\{layer: function"), capture(net):
        net(x, EDGES)


@torch.no_grad()
def test_rollout_of_said_weights_by_hand_and_rows_that_do_not_add_up(net, x):
    model = explain.wrap(net, Data(x=x, edge_index=EDGES), task="node", outputs="logits")
    why = Attention("nodes", attention={"layers.*.attn.fast_attn": kernel}).explain(model.node(4))
    row = torch.eye(N).double()[4]
    for layer in (1, 0):
        row = (row + row @ why.parts[f"attention.{layer}"][0].mean(0)) / 2
    torch.testing.assert_close(why.scores, row[why.players.index])
    assert why.checks["row_sum_error"] < 1e-12
    assert why.checks["deviation_from_uniform"] > 0.1
    assert why.checks["change_under_uniform"] is None  # what is said and not computed cannot be made uniform
    for said, message in (
        (
            lambda layer, q, k, v: kernel(layer, q, k, v) * 1.01,
            "must be shares.*a sum of 1, got rows that miss it by 0.01",
        ),
        (lambda layer, q, k, v: 2 * torch.eye(N).double() - kernel(layer, q, k, v), "never negative"),
    ):
        with pytest.raises(ValueError, match=message):
            Attention("nodes", attention={LAYERS[0]: said}).explain(model.node(4))
