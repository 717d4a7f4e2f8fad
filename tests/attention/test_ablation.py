"""Uniform attention is exactly the mean over what may be looked at, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv
from torch_geometric.utils import scatter

from explain.attention.ablation import uniform
from explain.attention.capture import capture


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Product(nn.Module):
    def forward(self, query, key, value, **arguments):
        return F.scaled_dot_product_attention(query, key, value, **arguments)


ALLOWED = torch.tensor([[True, False, True, True], [True, True, True, False], [False, True, False, False]])
MASKS = {
    "none": (None, torch.ones(3, 4)),
    "boolean": (ALLOWED, ALLOWED.float()),
    "minus infinity": (torch.zeros(3, 4).masked_fill(~ALLOWED, float("-inf")), ALLOWED.float()),
    "large and finite": (torch.zeros(3, 4).masked_fill(~ALLOWED, -1e9), ALLOWED.float()),
    "bias": (draw(3, 4, seed=5), torch.ones(3, 4)),
}


@pytest.mark.parametrize("case", MASKS)
def test_scaled_dot_product_becomes_the_mean_of_the_allowed_values(case):
    mask, allowed = MASKS[case]
    net, query, key, value = Product(), draw(2, 2, 3, 8), draw(2, 2, 4, 8), draw(2, 2, 4, 5)
    with uniform(net):
        found = net(query, key, value, attn_mask=mask)
    expected = (allowed / allowed.sum(1, keepdim=True)) @ value
    torch.testing.assert_close(found, expected)


def test_causal_rows_average_their_past():
    net, value = Product(), draw(1, 1, 4, 5)
    with uniform(net):
        found = net(value, value, value, is_causal=True)
    torch.testing.assert_close(found[0, 0], value[0, 0].cumsum(0) / torch.arange(1, 5)[:, None])


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("settings", [{}, {"kdim": 6, "vdim": 6}, {"bias": False}])
def test_multi_head_attention_becomes_the_mean_of_the_values(settings, need_weights):
    torch.manual_seed(0)
    net = nn.MultiheadAttention(8, 2, batch_first=True, **settings).eval()
    query, key = draw(2, 4, 8), draw(2, 4, settings.get("kdim", 8))
    padding = torch.tensor([[False, False, False, True], [False, True, False, False]])
    before = net(query, key, key)[0]
    with torch.no_grad(), uniform(net):
        found = net(query, key, key, key_padding_mask=padding, need_weights=need_weights)[0]
        weight = net.v_proj_weight if net.in_proj_weight is None else net.in_proj_weight[16:]
        values = F.linear(key, weight, None if net.in_proj_bias is None else net.in_proj_bias[16:])
        allowed = (~padding).float()[:, None] / (~padding).sum(1)[:, None, None]
        expected = net.out_proj(allowed @ values).expand(2, 4, 8)
    torch.testing.assert_close(found, expected)
    assert torch.equal(before, net(query, key, key)[0])


EDGES = torch.tensor([[0, 1, 2, 3, 2, 0, 1, 4, 3], [1, 0, 1, 1, 3, 3, 2, 0, 0]])


@pytest.mark.parametrize("build", [GATConv, GATv2Conv])
def test_attention_convolutions_become_a_mean_over_the_edges(build):
    torch.manual_seed(0)
    net, x = build(4, 3, heads=2).eval(), draw(5, 4)
    before = net(x, EDGES)
    with torch.no_grad(), uniform(net):
        found = net(x, EDGES)
        loops = torch.arange(5)
        source, target = torch.cat([EDGES[0], loops]), torch.cat([EDGES[1], loops])
        sent = (net.lin if build is GATConv else net.lin_l)(x)
        expected = scatter(sent[source], target, reduce="mean") + net.bias
    torch.testing.assert_close(found, expected)
    assert torch.equal(before, net(x, EDGES))


def test_transformer_convolution_becomes_a_mean_over_the_edges():
    torch.manual_seed(0)
    net, x = TransformerConv(4, 3, heads=2).eval(), draw(5, 4)
    with torch.no_grad(), uniform(net):
        found = net(x, EDGES)
        expected = scatter(net.lin_value(x)[EDGES[0]], EDGES[1], dim_size=5, reduce="mean") + net.lin_skip(x)
    torch.testing.assert_close(found, expected)


def test_capture_sees_uniform_attention_and_reversed_flow():
    net = GATConv(4, 3, heads=2, flow="target_to_source").eval()
    with capture(net) as maps, uniform(net), torch.no_grad():
        net(draw(5, 4), EDGES)
        net(draw(5, 4), EDGES[:, :0])
    with capture(net) as own:
        net(draw(5, 4), EDGES)
    assert own[0].deviation() > 0.01
    assert torch.equal(own[0].edge_index, maps[0].edge_index)


def test_an_exception_leaves_the_model_alone():
    net, x = GATConv(4, 3).eval(), draw(5, 4)
    before = net(x, EDGES)
    with pytest.raises(RuntimeError, match="my own"), uniform(net):
        raise RuntimeError("my own")
    assert torch.equal(before, net(x, EDGES))
    assert torch.backends.mha.get_fastpath_enabled()
    assert not torch.overrides._get_current_function_mode_stack()
