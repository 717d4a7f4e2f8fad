"""Attention of a step whose number is a mean of draws: each noised graph by itself, node upon node, and their mean."""

import pytest
import torch
from torch import nn

import explain
from explain import Unsupported
from explain.attention import Attention, NothingCaptured, capture
from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.graph_states import GraphNoise
from models.digress import ConditionalDiGress, DiGress
from models.matrix.graphs import stirred

T, N = 6, 4
NOISE = GraphNoise(Categorical.marginal(torch.full((T,), 0.2), torch.tensor([6, 4])))
GRAPH = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]])


def looked(net, *given):
    """Of each layer the shares ``[n, n]`` that nodes give nodes, a mean over the channels, from the layer's inputs."""
    found, handles = [], []

    def watch(layer, args):
        x, e, _, _ = args
        scores = layer.q(x)[:, :, None] * layer.k(x)[:, None] / x.size(-1) ** 0.5
        shares = (scores * (1 + layer.scale(e)) + layer.shift(e)).softmax(2)
        found.append(shares[0].mean(-1))

    for layer in net.layers:
        handles.append(layer.register_forward_pre_hook(watch))
    net(*given)
    for handle in handles:
        handle.remove()
    return found


def rolled(maps, row):
    for weights in reversed(maps):
        row = (row + row @ weights) / 2
    return row


@torch.no_grad()
def test_a_step_of_digress_looks_from_node_to_node_draw_by_draw():
    net = stirred(DiGress(T, nodes=4, edges=3, whole=3, layers=2), 0.3)
    asked = explain.wrap(net, process=NOISE, time="step").step(GRAPH, t=3, edge=(0, 3), draws=N)  # as many as nodes
    why = Attention().explain(asked)
    start = torch.tensor([0.5, 0, 0, 0.5]).double()
    drawn = [looked(net, asked.noised.pairs[draw : draw + 1], torch.tensor([3])) for draw in range(N)]
    expected = torch.stack([rolled(maps, start) for maps in drawn]).mean(0)
    torch.testing.assert_close(why.scores, expected)
    assert (why.players.kind, why.checks["maps"], why.checks["draws"]) == ("nodes", 2, N)
    assert why.checks["layers"] == ["layers.0", "layers.1"]
    assert why.checks["row_sum_error"] < 1e-6
    assert why.doubts == ()
    torch.testing.assert_close(why.parts["attention.1"].mean((0, 1)), torch.stack([maps[1] for maps in drawn]).mean(0))
    torch.testing.assert_close(
        Attention("nodes", aggregate="last").explain(asked).scores,
        torch.stack([start @ maps[1] for maps in drawn]).mean(0),
    )
    with capture(net) as maps:
        plain = net(asked.noised.pairs, torch.full((N,), 3))
    assert torch.equal(plain, net(asked.noised.pairs, torch.full((N,), 3)))
    assert [one.weights.shape for one in maps] == [(N, 4, N, N)] * 2  # each channel is a head
    whole = asked.model.step(GRAPH, t=3, payoff=lambda nodes, pairs: pairs[:, 0, 1, 1], draws=1)
    assert Attention("nodes").explain(whole).scores.sum().item() == pytest.approx(1)
    for question, message in (
        (lambda: Attention().explain(asked.model.trajectory(N, payoff=lambda p: p.sum((1, 2)).double())), "ask a step"),
        (lambda: Attention("edges").explain(asked), "does not say whose edges"),
    ):
        with pytest.raises(Unsupported, match=message):
            question()


@torch.no_grad()
def test_of_a_guided_step_it_is_the_network_with_its_condition():
    net = stirred(ConditionalDiGress(2, T, nodes=4, edges=3, whole=3, layers=1), 0.3)
    model = explain.wrap(net, process=NOISE, time="step", null=net.null)
    asked = model.step(GRAPH, t=3, edge=(0, 3), draws=2, condition=1, guidance=3.0)
    why = Attention("nodes", residual=0).explain(asked)
    each = [looked(net, asked.noised.pairs[i : i + 1], torch.tensor([3]), None, torch.tensor([1]))[0] for i in range(2)]
    torch.testing.assert_close(why.scores, torch.stack(each)[:, [0, 3]].mean((0, 1)))
    assert "without guidance" in why.target["assumed"]["attention"]
    assert why.value == pytest.approx(asked.value())


def test_a_network_without_attention_is_told_so():
    class Plain(nn.Module):
        def forward(self, E, t):
            return 2 * E

    asked = explain.wrap(Plain(), process=NOISE, time="step").step(GRAPH, t=3, edge=(0, 3))
    with pytest.raises(NothingCaptured, match="no attention that could be captured"):
        Attention().explain(asked)
