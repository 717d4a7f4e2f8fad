"""Capture sees every attention, and the model does not notice."""

from __future__ import annotations

import threading

import pytest
import torch
from reference import attention as paper
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right, causal_upper_left
from torch.nn.functional import scaled_dot_product_attention as bound_by_name
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, HeteroConv, TransformerConv

from explain.attention.capture import NothingCaptured, capture


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def put_together(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return layer.eval()


class Product(nn.Module):
    """``F.scaled_dot_product_attention`` with fixed arguments."""

    def __init__(self, attend=F.scaled_dot_product_attention, **arguments) -> None:
        super().__init__()
        self.attend, self.arguments = attend, arguments

    def forward(self, query, key, value):
        return self.attend(query, key, value, **self.arguments)


HALF = torch.tensor([[True, False, True, True], [True, True, True, False], [False, True, False, False]])
EVERY = torch.ones(3, 4, dtype=torch.bool)
LOWER = torch.tril(EVERY)
LOWER_RIGHT = torch.tril(EVERY, 1)
BIAS = draw(3, 4, seed=9)
PRODUCTS = {
    "plain": ({}, EVERY, None),
    "mask": ({"attn_mask": HALF}, HALF, None),
    "bias": ({"attn_mask": BIAS}, EVERY, BIAS),
    "causal": ({"is_causal": True}, LOWER, None),
    "causal bias": ({"attn_mask": causal_upper_left(3, 4)}, LOWER, None),
    "lower right": ({"attn_mask": causal_lower_right(3, 4)}, LOWER_RIGHT, None),
    "scale": ({"scale": 0.3}, EVERY, None),
    "bound by name": ({"attend": bound_by_name}, EVERY, None),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_scaled_dot_product_is_the_formula_and_the_output_is_untouched(case):
    arguments, allowed, bias = PRODUCTS[case]
    net = Product(**arguments)
    query, key, value = draw(2, 2, 3, 8), draw(2, 2, 4, 8, seed=1), draw(2, 2, 4, 5, seed=2)
    before = net(query, key, value)
    with capture(net) as maps:
        during = net(query, key, value)
    assert torch.equal(before, during)
    assert torch.equal(before, net(query, key, value))
    shape = (2, 2, 3, 4)
    bias = torch.zeros(shape) if bias is None else bias.expand(shape)
    expected = paper.scaled_dot_product(query, key, allowed.expand(shape), bias, arguments.get("scale"))
    torch.testing.assert_close(maps[0].weights, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(maps[0].weights @ value, before, rtol=1e-4, atol=1e-5)
    assert maps[0].module == "Product"
    assert (maps[0].step, maps[0].branch, maps[0].edge_index) == (None, None, None)


def test_grouped_queries_and_other_numbers_of_dimensions():
    net = Product(enable_gqa=True)
    query, key = draw(1, 4, 3, 8), draw(1, 2, 5, 8, seed=1)
    with capture(net) as maps:
        net(query, key, key)
    every = torch.ones(1, 4, 3, 5, dtype=torch.bool)
    torch.testing.assert_close(maps[0].weights, paper.scaled_dot_product(query, key, every, torch.zeros(every.shape)))
    net = Product()
    with capture(net) as maps:
        net(draw(3, 8), draw(5, 8), draw(5, 8))
        net(draw(2, 3, 8), draw(2, 5, 8), draw(2, 5, 8))
        net(draw(6, 2, 4, 3, 8), draw(6, 2, 4, 5, 8), draw(6, 2, 4, 5, 8))
    assert [tuple(a.weights.shape) for a in maps] == [(1, 1, 3, 5), (2, 1, 3, 5), (12, 4, 3, 5)]


def test_half_precision_outputs_are_untouched_and_weights_are_float32():
    net = Product(attn_mask=BIAS.bfloat16())
    query, key = draw(1, 2, 3, 8).bfloat16(), draw(1, 2, 4, 8).bfloat16()
    with capture(net) as maps:
        output = net(query, key, key)
    assert torch.equal(output, net(query, key, key))
    assert maps[0].weights.dtype == torch.float32


def test_a_row_that_may_look_at_nothing_holds_zeros():
    nothing = HALF.clone()
    nothing[1] = False
    net = Product(attn_mask=nothing)
    with capture(net) as maps:
        net(draw(1, 1, 3, 8), draw(1, 1, 4, 8), draw(1, 1, 4, 8))
    assert (maps[0].weights[0, 0, 1] == 0).all()
    torch.testing.assert_close(maps[0].row_sums(), torch.ones(2, dtype=torch.float64))


def test_dropout_and_the_random_state_are_left_alone():
    net = Product(dropout_p=0.5)
    query, key = draw(1, 2, 3, 8), draw(1, 2, 4, 8)
    torch.manual_seed(0)
    before = net(query, key, key), torch.rand(1)
    torch.manual_seed(0)
    with capture(net) as maps:
        during = net(query, key, key), torch.rand(1)
    assert torch.equal(before[0], during[0])
    assert torch.equal(before[1], during[1])
    torch.testing.assert_close(maps[0].row_sums(), torch.ones(6, dtype=torch.float64))


def test_gradients_are_untouched():
    net = put_together(nn.MultiheadAttention(8, 2, batch_first=True))

    def gradient() -> torch.Tensor:
        x = draw(1, 3, 8).requires_grad_()
        net(x, x, x)[0].square().sum().backward()
        return x.grad

    before = gradient()
    with capture(net):
        assert torch.equal(before, gradient())


PADDING = torch.tensor([[False, False, False, True], [False, True, False, False]])
CAUSAL = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
HEADS = {
    "weights": ({}, {"need_weights": True}, ~torch.zeros(2, 1, 4, 4, dtype=torch.bool)),
    "no weights": ({}, {"need_weights": False}, ~torch.zeros(2, 1, 4, 4, dtype=torch.bool)),
    "padding": ({}, {"key_padding_mask": PADDING}, ~PADDING[:, None, None].expand(2, 1, 4, 4)),
    "padding, no weights": (
        {},
        {"key_padding_mask": PADDING, "need_weights": False},
        ~PADDING[:, None, None].expand(2, 1, 4, 4),
    ),
    "causal": ({}, {"attn_mask": CAUSAL}, ~CAUSAL.expand(2, 1, 4, 4)),
    "causal hint": (
        {},
        {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
        ~CAUSAL.expand(2, 1, 4, 4),
    ),
    "per head": (
        {},
        {"need_weights": True, "average_attn_weights": False},
        ~torch.zeros(2, 1, 4, 4, dtype=torch.bool),
    ),
    "sequence first": ({"batch_first": False}, {}, ~torch.zeros(2, 1, 4, 4, dtype=torch.bool)),
    "sequence first, no weights": (
        {"batch_first": False},
        {"need_weights": False, "key_padding_mask": PADDING},
        ~PADDING[:, None, None].expand(2, 1, 4, 4),
    ),
    "other key width": ({"kdim": 6, "vdim": 6}, {}, ~torch.zeros(2, 1, 4, 4, dtype=torch.bool)),
}


@pytest.mark.parametrize("case", HEADS)
@pytest.mark.parametrize("grad", [True, False])
def test_multi_head_attention_is_the_formula_and_the_output_is_untouched(case, grad):
    settings, arguments, allowed = HEADS[case]
    settings = {"batch_first": True} | settings
    net = put_together(nn.MultiheadAttention(8, 2, **settings))
    query, key = draw(2, 4, 8), draw(2, 4, settings.get("kdim", 8), seed=3)
    given = (query, key, key) if settings["batch_first"] else tuple(t.transpose(0, 1) for t in (query, key, key))
    with torch.set_grad_enabled(grad):
        before = net(*given, **arguments)
        with capture(net) as maps:
            during = net(*given, **arguments)
    assert torch.equal(before[0], during[0])
    assert (before[1] is None and during[1] is None) or torch.equal(before[1], during[1])
    with torch.no_grad():
        expected = paper.multi_head(net, query, key, allowed.expand(2, 2, 4, 4))
    torch.testing.assert_close(maps[0].weights, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps[0].row_sums(), torch.ones(16, dtype=torch.float64))
    assert not maps[0].weights.requires_grad


def test_unbatched_and_extra_keys():
    net = put_together(nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True))
    x = draw(4, 8)
    before = net(x, x, x, need_weights=False)[0]
    with capture(net) as maps:
        assert torch.equal(before, net(x, x, x, need_weights=False)[0])
    assert maps[0].weights.shape == (1, 2, 4, 6)  # the learned key and the zero key come last


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_fused_encoder_is_opened(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    net = put_together(nn.TransformerEncoder(layer, 3, enable_nested_tensor=not norm_first))
    x = draw(2, 4, 8)
    with torch.no_grad():
        fused = net(x, src_key_padding_mask=PADDING)
        with capture(net) as maps:
            during = net(x, src_key_padding_mask=PADDING)
        assert torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert torch.equal(net(x, src_key_padding_mask=PADDING), during)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(during[~PADDING], fused[~PADDING], rtol=1e-4, atol=1e-4)
    assert [a.module for a in maps] == [f"layers.{i}.self_attn" for i in range(3)]
    assert all((a.weights[:, :, :, :].transpose(1, 3)[PADDING] == 0).all() for a in maps)


EDGES = torch.tensor([[0, 1, 2, 3, 2, 0, 1, 4, 3], [1, 0, 1, 1, 3, 3, 2, 0, 0]])
LOOPS = torch.arange(5).repeat(2, 1)
GRAPHS = {
    "no loops": EDGES,
    "loops first": torch.cat([LOOPS, EDGES], 1),
    "some loops": torch.cat([EDGES[:, :4], LOOPS[:, 2:4], EDGES[:, 4:]], 1),
    "loops last": torch.cat([EDGES, LOOPS], 1),
}
CONVOLUTIONS = {
    "GAT": (lambda: GATConv(4, 3, heads=2), paper.gat),
    "GATv2": (lambda: GATv2Conv(4, 3, heads=2), paper.gatv2),
    "Transformer": (lambda: TransformerConv(4, 3, heads=2), paper.transformer),
}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_convolutions_give_each_edge_its_own_weight(graph, convolution):
    build, reference = CONVOLUTIONS[convolution]
    net, x, edge_index = put_together(build()), draw(5, 4), GRAPHS[graph]
    before = net(x, edge_index)
    with capture(net) as maps:
        during = net(x, edge_index)
    assert torch.equal(before, during)
    assert torch.equal(before, net(x, edge_index))
    (found,) = maps
    for head in range(2):
        with torch.no_grad():
            expected = reference(net, x, edge_index, head)
        weights = {tuple(e): float(w) for e, w in zip(found.edge_index.T.tolist(), found.weights[:, head], strict=True)}
        assert weights == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(found.row_sums(), torch.ones_like(found.row_sums()))
    sources, targets = found.ends()
    torch.testing.assert_close(found.dense()[0][:, targets, sources].T, found.weights)
    assert found.size == (5, 5)


def test_edge_features_and_parallel_edges():
    net = put_together(TransformerConv(4, 3, heads=2, edge_dim=2))
    x, edge_attr = draw(5, 4), draw(EDGES.size(1), 2, seed=5)
    with capture(net) as maps:
        net(x, EDGES, edge_attr)
    for head in range(2):
        with torch.no_grad():
            expected = paper.transformer(net, x, EDGES, head, edge_attr)
        assert maps[0].weights[:, head].tolist() == pytest.approx(
            [expected[tuple(e)] for e in EDGES.T.tolist()], rel=1e-4
        )
    twice = put_together(GATConv(4, 3, add_self_loops=False))
    with capture(twice) as maps:
        twice(x, torch.tensor([[1, 1, 2], [0, 0, 0]]))
    assert maps[0].weights.shape == (3, 1)
    assert float(maps[0].dense()[0, 0, 0].sum()) == pytest.approx(1)


def test_bipartite_reversed_and_sparse_graphs():
    net = put_together(GATConv((4, 6), 3, add_self_loops=False))
    with capture(net) as maps:
        net((draw(5, 4), draw(2, 6)), torch.tensor([[0, 4, 3], [1, 1, 0]]))
    assert maps[0].size == (5, 2)
    assert maps[0].dense().shape == (1, 1, 2, 5)
    net = put_together(GATConv(4, 3, flow="target_to_source"))
    with capture(net) as maps:
        net(draw(5, 4), EDGES)
    torch.testing.assert_close(maps[0].row_sums(), torch.ones(5, dtype=torch.float64))
    assert torch.equal(maps[0].ends()[1], maps[0].edge_index[0])
    net = put_together(TransformerConv(4, 3))
    ones = torch.ones(EDGES.size(1))
    adjacency = torch.sparse_coo_tensor(EDGES.flip(0), ones, (5, 5), check_invariants=True).coalesce()
    with capture(net) as dense:
        net(draw(5, 4), EDGES)
    with capture(net) as sparse:
        net(draw(5, 4), adjacency)
    torch.testing.assert_close(sparse[0].dense(), dense[0].dense())


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(GATConv(4, 4), nn.Identity())
        self.shared = GATConv(4, 4)

    def forward(self, x, edge_index):
        x = self.inner[0](x, edge_index)
        return self.shared(self.shared(x, edge_index), edge_index)


def test_nested_layers_are_named_and_a_layer_called_twice_gives_two_maps():
    net = put_together(Stack())
    with capture(net) as maps:
        net(draw(5, 4), EDGES)
    assert [a.module for a in maps] == ["inner.0", "shared", "shared"]
    assert not torch.equal(maps[1].weights, maps[2].weights)


def test_subclasses_and_typed_graphs_are_seen():
    class Renamed(GATConv):
        pass

    there = torch.tensor([[0, 4], [1, 1]])
    edges = {("a", "to", "b"): there, ("b", "of", "a"): there.flip(0)}
    net = put_together(HeteroConv({kind: Renamed((4, 4), 3, add_self_loops=False) for kind in edges}))
    with capture(net) as maps:
        net({"a": draw(5, 4), "b": draw(2, 4)}, edges)
    assert [a.size for a in maps] == [(5, 2), (2, 5)]


def test_only_calls_inside_the_network_and_its_thread_count():
    net, other = Product(), Product()
    tokens = draw(1, 1, 3, 8)
    with capture(net) as maps:
        other(tokens, tokens, tokens)
        F.scaled_dot_product_attention(tokens, tokens, tokens)
        thread = threading.Thread(target=net, args=(tokens, tokens, tokens))
        thread.start()
        thread.join()
        assert maps == []
        net(tokens, tokens, tokens)
    assert len(maps) == 1


def test_nothing_captured_is_an_error_that_says_why():
    net = put_together(GCNConv(4, 3))
    with pytest.raises(NothingCaptured, match="GCNConv has no attention that could be captured"), capture(net):
        net(draw(5, 4), EDGES)
    with pytest.raises(NothingCaptured, match="was not called inside"), capture(net):
        pass


@pytest.mark.parametrize("net", [nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1))])
def test_a_model_without_attention_is_not_told_to_use_another(net):
    with pytest.raises(NothingCaptured, match="has no attention that could be captured") as said, capture(net):
        net(draw(5, 4))
    assert "scaled_dot_product" not in str(said.value)


class Kernel(nn.Module):
    def forward(self, x):
        q, k = x.exp(), x.exp()
        return q @ (k.T @ x) / (q @ k.sum(0))[:, None]


class WrittenOut(nn.Module):
    def forward(self, x):
        return (x @ x.mT).softmax(-1) @ x


class Exponentials(nn.Module):
    def forward(self, x, edge_index):
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]].sum(1, True).exp() * x[edge_index[0]])


@pytest.mark.parametrize(
    ("net", "graph"),
    [
        (Kernel(), ()),
        (torch.jit.trace(WrittenOut(), draw(5, 4)), ()),
        (Exponentials(), (EDGES,)),
    ],
)
def test_attention_that_cannot_be_seen_is_told_how_it_could_be(net, graph):
    with pytest.raises(NothingCaptured, match="ran, but called neither scaled_dot"), capture(net):
        net(draw(5, 4), *graph)


def hooks(net: nn.Module) -> int:
    names = ("_forward_hooks", "_forward_pre_hooks", "_propagate_forward_hooks", "_propagate_forward_pre_hooks")
    return sum(len(getattr(part, name, ())) for part in net.modules() for name in names)


@pytest.mark.parametrize("fastpath", [True, False])
def test_everything_is_put_back_after_an_exception(fastpath):
    net, original = put_together(Stack()), F.scaled_dot_product_attention
    torch.backends.mha.set_fastpath_enabled(fastpath)
    try:
        with pytest.raises(RuntimeError, match="my own"), capture(net) as maps:  # noqa: PT012 - it must run first
            net(draw(5, 4), EDGES)
            raise RuntimeError("my own")
        assert torch.backends.mha.get_fastpath_enabled() is fastpath
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(maps) == 3
    assert hooks(net) == 0
    assert F.scaled_dot_product_attention is original
    assert not torch.overrides._get_current_function_mode_stack()
    net(draw(5, 4), EDGES)
    assert len(maps) == 3


def test_a_failing_forward_does_not_confuse_the_names():
    net = put_together(Stack())
    with capture(net) as maps:
        with pytest.raises(AssertionError, match="Static graphs"):
            net(draw(2, 5, 4), EDGES)
        net(draw(5, 4), EDGES)
    assert [a.module for a in maps] == ["inner.0", "shared", "shared"]
