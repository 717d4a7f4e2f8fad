"""What is not asked for is not computed, and what never came is said."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.nn import GATConv

from explain import passes
from explain.attention import recomputed
from explain.attention.capture import NothingCaptured, capture


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """Two heads of width 4 over its input, then over a text."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1, self.attn2 = Heads(), Heads()

    def forward(self, x, text):
        return self.attn2(self.attn1(x, x), text)


class Heads(nn.Module):
    def forward(self, x, text):
        query, key = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (x, text))
        return F.scaled_dot_product_attention(query, key, key).transpose(1, 2).flatten(2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.ModuleList([Block(), Block()]), Block()
        self.head = nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear = nn.Linear(8, 8)

    def forward(self, x, text, timestep=None):
        for block in (*self.down, self.mid):
            x = block(x, text)
        return self.linear(self.head(x, x, x, need_weights=False)[0])


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


X, TEXT = draw(4, 5, 8), draw(4, 3, 8, seed=1)
ALL = ["down.0.attn1", "down.0.attn2", "down.1.attn1", "down.1.attn2", "mid.attn1", "mid.attn2", "head"]
NAMED = {
    "mid.attn2": ["mid.attn2"],
    "*attn2": ["down.0.attn2", "down.1.attn2", "mid.attn2"],
    "down": ALL[:4],
    "down.?.attn1": ["down.0.attn1", "down.1.attn1"],
    "d*.[1-9]*": ["down.1.attn1", "down.1.attn2"],
}


@pytest.mark.parametrize("modules", NAMED)
def test_layers_are_asked_for_by_name_or_pattern_or_function(net, modules):
    before = net(X, TEXT)
    with capture(net) as every:
        net(X, TEXT)
    assert [a.module for a in every] == ALL
    wanted = [a for a in every if a.module in NAMED[modules]]
    for asked in (modules, [modules], lambda name: name in NAMED[modules]):
        with capture(net, modules=asked) as maps:
            assert torch.equal(net(X, TEXT), before)
        assert [a.module for a in maps] == NAMED[modules]
        for one, other in zip(maps, wanted, strict=True):
            assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("heads", [0, 1, [1], (1, 0)])
def test_heads_are_asked_for_by_place(net, heads):
    with capture(net) as every:
        net(X, TEXT)
    with capture(net, heads=heads) as maps:
        net(X, TEXT)
    chosen = [heads] if isinstance(heads, int) else list(heads)
    for one, other in zip(maps, every, strict=True):
        torch.testing.assert_close(one.weights, other.weights[:, chosen], rtol=1e-6, atol=1e-7)
    graph, edges = GATConv(4, 3, heads=2), torch.tensor([[0, 1, 2], [1, 2, 0]])
    with capture(graph) as every:
        graph(draw(3, 4), edges)
    with capture(graph, heads=heads) as maps:
        graph(draw(3, 4), edges)
    assert torch.equal(maps[0].weights, every[0].weights[:, chosen])


def test_steps_are_asked_for_by_time_or_by_function(net):
    def run(**filters):
        with capture(net, modules="mid.attn2", **filters) as maps:
            for t in (750.0, 500.0, 250.0):
                net(X, TEXT, timestep=torch.tensor(t))
        return [a.step for a in maps]

    assert run() == [750, 500, 250]
    assert run(steps=500) == [500]
    assert run(steps=[750, 250.0]) == [750, 250]
    assert run(steps=lambda t: t > 300) == [750, 500]
    with capture(net, steps=[10, 30], modules="mid.attn2") as maps:
        net(X, TEXT, timestep=torch.tensor([10.0, 20, 30, 30]))
    assert maps[0].weights.shape == (3, 2, 5, 3)
    assert maps[0].step == (10, 30, 30)


def test_in_a_doubled_batch_the_branch_is_told(net):
    doubled = passes.Pass(40.0, ("uncond", "uncond", "cond", "cond"))
    with capture(net) as every, passes.told(doubled):
        net(X, TEXT, timestep=torch.tensor(1.0))
    assert {a.step for a in every} == {40.0}  # as the run tells, whatever the network is given
    assert {a.branch for a in every} == {doubled.branches}
    assert every[0].branches() == {"uncond": [0, 1], "cond": [2, 3]}
    for branch, rows in {"cond": [2, 3], "uncond": [0, 1]}.items():
        with capture(net, branch=branch) as maps:
            with passes.told(doubled):
                net(X, TEXT)
            with passes.told(passes.Pass(20.0, ("cond",) * 4)):
                net(X, TEXT)
        assert len(maps) == (2 if branch == "cond" else 1) * len(ALL)
        for one, other in zip(maps, every, strict=False):
            assert one.branch == branch
            torch.testing.assert_close(one.weights, other.weights[rows], rtol=1e-6, atol=1e-7)


def test_nothing_of_what_is_left_out_is_computed(net, monkeypatch):
    """Neither a weight nor a call of the kernel."""
    calls = []
    softmax, kernel = recomputed.ScaledDotProduct._softmax, F.scaled_dot_product_attention
    monkeypatch.setattr(
        recomputed.ScaledDotProduct,
        "_softmax",
        lambda self, scores, some: calls.append(scores.shape) or softmax(self, scores, some),
    )
    monkeypatch.setattr(recomputed.F, "multi_head_attention_forward", lambda *_, **__: pytest.fail("asked again"))
    with (
        capture(net.down, modules="1.attn2", heads=1, steps=40, branch="cond", reduce=lambda a: a.weights),
        passes.told(passes.Pass(40.0, ("uncond", "cond", "cond", "cond"))),
    ):
        for block in net.down:
            block(X, TEXT)
    assert calls == [(3, 1, 5, 3)]
    assert kernel is F.scaled_dot_product_attention


def test_names_that_are_none_are_told_which_there_are(net):
    unknown = pytest.raises(ValueError, match=r"modules='attn3' is no module of Net; it has head")
    with unknown, capture(net, modules=["mid.attn2", "attn3"]):
        pass
    silent = pytest.raises(NothingCaptured, match=r"'linear' holds no layer that computed attention; these did: down.0")
    with silent, capture(net, modules="linear"):
        net(X, TEXT)
    with pytest.raises(NothingCaptured, match="took none of the layers"), capture(net, modules=lambda name: False):
        net(X, TEXT)
    with pytest.raises(NothingCaptured, match="no call was at step 5; there were 7"), capture(net, steps=[7, 5]):
        net(X, TEXT, timestep=7)
    with pytest.raises(NothingCaptured, match="took none of the steps 7"), capture(net, steps=lambda t: t > 9):
        net(X, TEXT, timestep=7)
    beyond = pytest.raises(ValueError, match=r"heads of the map of down.0.attn1 must be some of 0 to 1, got \[2\]")
    with beyond, capture(net, heads=2):
        net(X, TEXT)


def test_what_a_call_does_not_tell_cannot_be_asked(net):
    for filters in ({"steps": 5}, {"branch": "cond"}):
        (name,) = filters
        with pytest.raises(ValueError, match=f"does not tell .*: leave {name}= out"), capture(net, **filters):
            net(X, TEXT)
    told = passes.Pass(40.0, ("uncond", "cond"))
    others = pytest.raises(ValueError, match=r"for 2 rows and the map of down.0.attn1 has 4: leave that layer out")
    with others, capture(net, branch="cond"), passes.told(told):
        net(X, TEXT)
    with pytest.raises(ValueError, match="branch must be 'cond', 'uncond' or None"), capture(net, branch="negative"):
        pass
    with pytest.raises(ValueError, match="heads must be a position or several"), capture(net, heads=[]):
        pass
    with pytest.raises(ValueError, match="modules must name at least one"), capture(net, modules=[]):
        pass
