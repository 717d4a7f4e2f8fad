"""Attention that a network writes out itself, in every notation, and attention that only a function tells."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import AGNNConv, FeaStConv, HGTConv, MessagePassing, RGATConv, SAGEConv, SuperGATConv
from torch_geometric.nn.models import AttentiveFP
from torch_geometric.utils import scatter, softmax

import explain
from explain.analysis import diffusivity
from explain.attention import Attention, NothingCaptured, capture
from explain.attention.ablation import uniform
from explain.attention.told import layers_told
from models.convolutions import SGFormer

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2, 4, 1], [1, 0, 3, 2, 5, 4, 2, 0, 1, 4]])


class Heads(nn.Module):
    """Two heads of softmax attention over tokens ``[batch, n, 8]``, in one of many notations."""

    def __init__(self, notation):
        super().__init__()
        self.notation, self.query, self.drop = notation, nn.Linear(8, 8), nn.Dropout(0.5)

    def parts(self, x):
        return self.query(x).view(*x.shape[:2], 2, 4), x.view(*x.shape[:2], 2, 4)

    def forward(self, x):
        q, k = self.parts(x)
        out = getattr(self, self.notation)(q, k)
        return out.reshape(x.shape)

    def matmul(self, q, k):
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        return (self.drop((q @ k.mT).softmax(-1)) @ k).transpose(1, 2)

    def einsum(self, q, k):
        weights = torch.softmax(torch.einsum("nqhd,nkhd->nhqk", [q, k]), dim=3)
        return torch.einsum("nhql,nlhd->nqhd", [self.drop(weights), k])

    def heads_last(self, q, k):
        return torch.einsum("bijh,bjhd->bihd", torch.einsum("bihd,bjhd->bijh", q, k).softmax(2), k)

    def ellipsis(self, q, k):
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        return torch.einsum("...ab,...bc", torch.einsum("...qd,...kd->...qk", q, k).softmax(-1), k).transpose(1, 2)

    def exponentials(self, q, k):
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        e = q @ k.mT
        e = (e - e.amax(-1, True)).exp()
        return (e / e.sum(-1, keepdim=True) @ k).transpose(1, 2)

    def sums(self, q, k):
        weights = torch.einsum("bihd,bjhd->bijh", q, k).softmax(2)
        return (weights[..., None] * k[:, None]).sum(dim=2)

    def columns(self, q, k):
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        return (k.mT @ (k @ q.mT).softmax(-2)).mT.transpose(1, 2)

    def merged(self, q, k):
        q, k = (one.transpose(1, 2).flatten(0, 1) for one in (q, k))
        return torch.bmm(torch.baddbmm(q.new_zeros(()), q, k.mT).softmax(-1), k).unflatten(0, (-1, 2)).transpose(1, 2)


NOTATIONS = ["matmul", "einsum", "heads_last", "ellipsis", "exponentials", "sums", "columns", "merged"]


def heads(notation):
    torch.manual_seed(0)
    return Heads(notation).eval(), torch.randn(3, 5, 8)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_weights_are_those_of_the_softmax_and_outputs_stay_bit_equal(notation):
    net, x = heads(notation)
    with torch.no_grad():
        plain = net(x)
        with capture(net) as maps:
            watched = net(x)
        q, k = (one.transpose(1, 2) for one in net.parts(x))
        expected = (q @ k.mT).softmax(-1)
    assert torch.equal(plain, watched)
    (found,) = maps
    assert torch.allclose(found.weights.reshape(expected.shape), expected, atol=1e-6)
    assert float((found.row_sums() - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("notation", NOTATIONS)
def test_uniform_weights_give_the_mean_of_the_values(notation):
    net, x = heads(notation)
    with torch.no_grad(), uniform(net):
        assert torch.allclose(net(x), x.mean(1, keepdim=True).expand_as(x), atol=1e-6)


def test_masked_keys_stay_masked_and_dropout_is_left_out():
    class Causal(Heads):
        def matmul(self, q, k):
            q, k = q.transpose(1, 2), k.transpose(1, 2)
            later = torch.ones(5, 5, dtype=torch.bool).triu(1)
            weights = self.drop((q @ k.mT).masked_fill(later, -torch.inf).softmax(-1))
            return (weights @ k).transpose(1, 2)

    net, x = Causal("matmul").train(), heads("matmul")[1]
    with capture(net) as maps:
        net(x)
    assert float((maps[0].row_sums() - 1).abs().max()) < 1e-6
    assert float(maps[0].weights.triu(1).abs().max()) == 0
    net.eval()
    with torch.no_grad(), uniform(net):
        means = x.cumsum(1) / torch.arange(1, 6).view(1, 5, 1)
        assert torch.allclose(net(x), means, atol=1e-6)


def test_half_precision_is_read_in_float32_and_left_as_it_is():
    net, x = heads("matmul")
    net, x = net.bfloat16(), x.bfloat16()
    with torch.no_grad(), capture(net) as maps:
        watched = net(x)
    with torch.no_grad():
        assert torch.equal(watched, net(x))
    assert maps[0].weights.dtype == torch.float32
    assert float((maps[0].row_sums() - 1).abs().max()) < 2e-2


def test_what_weighs_nothing_or_is_no_share_is_no_attention():
    class Gates(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Heads("matmul")

        def forward(self, x):
            scaled = x.softmax(-1) * 2  # not followed on
            pooled = torch.einsum("bnd,bne->bde", x.softmax(-1), x)  # its rows add up over d, not over n
            return self.inner(x), scaled @ x.mT, pooled

    net = Gates().eval()
    with capture(net) as maps:
        net(heads("matmul")[1])
    assert [found.module for found in maps] == ["inner"]


def typed():
    x = {"a": torch.randn(5, 4), "b": torch.randn(3, 4)}
    kinds = [("a", "x", "b"), ("b", "y", "a")]
    ends = {kinds[0]: torch.tensor([[0, 1, 2, 4], [0, 0, 1, 2]]), kinds[1]: torch.tensor([[0, 1, 2], [3, 3, 0]])}
    return HGTConv({"a": 4, "b": 4}, 4, (["a", "b"], kinds), heads=2), (x, ends)


class GaAN(MessagePassing):
    """Two heads of attention over neighbours, each behind a gate of the node and its neighbours (Zhang et al. 2018)."""

    def __init__(self):
        super().__init__(aggr="add", node_dim=0)
        self.query, self.key, self.value = (nn.Linear(4, 8) for _ in range(3))
        self.seen, self.gate, self.out = nn.Linear(4, 4), nn.Linear(12, 2), nn.Linear(12, 4)

    def forward(self, x, edge_index):
        q, k, v = (part(x).view(-1, 2, 4) for part in (self.query, self.key, self.value))
        heads = self.propagate(edge_index, q=q, k=k, v=v)
        sent, received = edge_index
        largest, mean = (
            scatter(rows[sent], received, 0, len(x), reduce=how) for rows, how in ((self.seen(x), "max"), (x, "mean"))
        )
        gates = self.gate(torch.cat([x, largest, mean], 1)).sigmoid()
        return self.out(torch.cat([x, (gates[..., None] * heads).flatten(1)], 1))

    def message(self, q_i, k_j, v_j, index, ptr, size_i):
        return softmax((q_i * k_j).sum(-1), index, ptr, size_i)[..., None] * v_j


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: (SuperGATConv(4, 4, heads=2), (torch.randn(6, 4), EDGES)), 1),
        (lambda: (AGNNConv(), (torch.randn(6, 4), EDGES)), 1),
        (lambda: (RGATConv(4, 4, 3, heads=2), (torch.randn(6, 4), EDGES, torch.arange(10) % 3)), 1),
        (
            lambda: (
                AttentiveFP(4, 8, 1, 3, 2, 1),
                (torch.randn(6, 4), EDGES, torch.randn(10, 3), torch.zeros(6, dtype=torch.long)),
            ),
            3,
        ),
        (typed, 1),
        (lambda: (GaAN(), (torch.randn(6, 4), EDGES)), 1),
    ],
)
def test_softmaxes_over_neighbours_are_met_in_every_layer(make, count):
    torch.manual_seed(0)
    net, inputs = make()
    net.eval()
    with torch.no_grad():
        plain = net(*inputs)
        with capture(net) as maps:
            watched = net(*inputs)
    plain, watched = ([one] if isinstance(one, torch.Tensor) else list(one.values()) for one in (plain, watched))
    assert all(map(torch.equal, plain, watched))
    assert len(maps) == count
    assert all(float((one.row_sums() - 1).abs().max()) < 1e-5 for one in maps)
    with uniform(net), capture(net) as alike:
        net(*inputs)
    assert all(one.deviation() < 1e-5 for one in alike)


def test_weights_of_a_layer_are_its_own():
    torch.manual_seed(0)
    net, x = AGNNConv(add_self_loops=False).eval(), torch.randn(6, 4)
    with capture(net) as maps:
        net(x, EDGES)
    unit = nn.functional.normalize(x)
    e = (unit[EDGES[0]] * unit[EDGES[1]]).sum(1).exp()
    sums = torch.zeros(6).index_add(0, EDGES[1], e)
    assert torch.allclose(maps[0].weights[:, 0], e / sums[EDGES[1]], atol=1e-6)


def test_weights_behind_gates_are_those_of_the_softmax():
    torch.manual_seed(0)
    net, x = GaAN().eval(), torch.randn(6, 4)
    with torch.no_grad(), capture(net) as maps:
        net(x, EDGES)
    e = (net.query(x)[EDGES[1]] * net.key(x)[EDGES[0]]).view(-1, 2, 4).sum(-1).exp()
    sums = torch.zeros(6, 2).index_add(0, EDGES[1], e)
    assert torch.allclose(maps[0].weights, e / sums[EDGES[1]], atol=1e-6)


def test_a_softmax_over_the_heads_of_each_edge_is_no_attention():
    """FeaStConv (Verma et al. 2018): its neighbours are averaged, and only matrices are mixed by edge."""
    torch.manual_seed(0)
    net, x = FeaStConv(4, 4, heads=3).eval(), torch.randn(6, 4)
    plain = net(x, EDGES)
    with pytest.raises(NothingCaptured, match="FeaStConv weighs parts of one message"), capture(net):
        net(x, EDGES)
    with uniform(net):
        assert torch.equal(net(x, EDGES), plain)
    both = pyg.Sequential("x, edge_index", [(net, "x, edge_index -> x"), (AGNNConv(), "x, edge_index -> x")]).eval()
    with capture(both) as maps:
        both(x, EDGES)
    assert [one.module for one in maps] == ["module_1"]
    model = explain.wrap(net, Data(x=x, edge_index=EDGES), task="node", outputs="logits")
    with pytest.raises(NothingCaptured, match="ask Gradient, Occlusion, Shapley or Mask about edges"):
        Attention("edges").explain(model.node(2))


def test_sums_over_neighbours_that_are_no_softmax_are_no_attention():
    net = pyg.Sequential(
        "x, edge_index", [(SAGEConv(4, 4), "x, edge_index -> x"), (SuperGATConv(4, 4), "x, edge_index -> x")]
    )
    with capture(net) as maps:
        net(torch.randn(6, 4), EDGES)
    assert len(maps) == 1


class Kernel(nn.Module):
    """Linear attention: ``(1 + q k') / sum`` is never formed."""

    def __init__(self):
        super().__init__()
        self.key = nn.Linear(4, 4)

    def forward(self, x):
        q, k = (nn.functional.normalize(one) for one in (x, self.key(x)))
        return (x.sum(0) + q @ (k.T @ x)) / (len(x) + q @ k.sum(0)).unsqueeze(1)

    def weights(self, x):
        q, k = (nn.functional.normalize(one) for one in (x, self.key(x)))
        weights = 1 + q @ k.T
        return weights / weights.sum(1, keepdim=True)


class Kernels(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = Kernel(), Kernel()

    def forward(self, x, edge_index):
        return self.last(self.first(x))


def test_kernels_are_told_by_a_function_of_their_inputs():
    torch.manual_seed(0)
    net, x = Kernels().eval(), torch.randn(6, 4)
    say = {name: (lambda layer, x: layer.weights(x)) for name in ("first", "last")}
    with torch.no_grad(), capture(net, attention=say) as maps:
        out = net(x, EDGES)
    assert torch.equal(out, net(x, EDGES))
    assert [one.module for one in maps] == ["first", "last"]
    assert torch.allclose(maps[1].weights[0, 0] @ net.first(x), out, atol=1e-6)
    model = explain.wrap(net, Data(x=x, edge_index=EDGES), task="node", outputs="logits")
    why = Attention("nodes", attention=say, residual=0).explain(model.node(2))
    looked_at = (maps[1].weights[0, 0] @ maps[0].weights[0, 0])[2]
    assert torch.allclose(why.scores, looked_at[why.players.index].to(why.scores), atol=1e-6)
    assert why.checks["change_under_uniform"] is None


def test_a_pattern_tells_of_layers_and_not_of_their_parts():
    net = nn.Sequential(Kernel(), Kernel()).eval()
    tower = nn.ModuleDict({"steps": net})
    assert list(layers_told(tower, {"steps.*": len})) == ["steps.0", "steps.1"]
    assert list(layers_told(tower, {"*.key": len})) == ["steps.0.key", "steps.1.key"]
    with torch.no_grad(), capture(net, attention={"?": lambda layer, x: layer.weights(x)}) as maps:
        net(torch.randn(6, 4))
    assert [one.module for one in maps] == ["0", "1"]


@pytest.mark.parametrize(
    ("say", "error", "words"),
    [
        ({"first": lambda layer, x: layer.weights(x) * 2}, ValueError, "sum of 1"),
        ({"first": lambda layer, x: x[0]}, TypeError, "weights"),
        ({"second": lambda layer, x: layer.weights(x)}, ValueError, "no module"),
        ({"first": 3}, TypeError, "function"),
        ({"first": lambda layer, x: (EDGES, torch.ones(10))}, ValueError, "add up to 1"),
    ],
)
def test_what_is_told_is_proved(say, error, words):
    net = Kernels().eval()
    with pytest.raises(error, match=words), capture(net, attention=say):
        net(torch.randn(6, 4), EDGES)


def test_kernels_with_signs_are_sent_to_diffusivity():
    torch.manual_seed(0)
    net, x = SGFormer(4, 3, hidden=4).eval(), torch.randn(6, 4)
    signed = torch.eye(6) + torch.tensor([-0.5, 0.5, 0, 0, 0, 0])
    with pytest.raises(NothingCaptured, match=r"explain\.analysis\.diffusivity reads them too, also with signs"):
        Attention("nodes").explain(
            explain.wrap(net, Data(x=x, edge_index=EDGES), task="node", outputs="logits").node(2)
        )
    kernels, said = Kernels().eval(), r"smallest weight of -0\.5; .*explain\.analysis\.diffusivity"
    with pytest.raises(ValueError, match=said), capture(kernels, attention={"first": lambda layer, x: signed}):
        kernels(x, EDGES)
    assert [layer.S.shape for layer in diffusivity(net, x, EDGES) if layer.kind == "kernel"] == [(6, 6)] * 2
