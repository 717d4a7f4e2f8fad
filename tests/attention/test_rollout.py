"""Rollout is the product of the matrices, and edge credit the sum over walks, dense or along edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import attention as paper

from explain.attention.maps import AttentionMap
from explain.attention.rollout import edge_credit, rollout


def distributions(seed: int, nodes: int, layers: int, density: float = 0.6) -> list[torch.Tensor]:
    """Random row-stochastic matrices, some entries exactly 0, every row with its own node."""
    generator = torch.Generator().manual_seed(seed)
    matrices = []
    for _ in range(layers):
        weights = torch.rand(2, nodes, nodes, generator=generator, dtype=torch.float64) + 0.1
        weights *= (torch.rand(nodes, nodes, generator=generator) < density) | torch.eye(nodes, dtype=torch.bool)
        matrices.append(weights / weights.sum(-1, keepdim=True))
    return matrices


def sparse(weights: torch.Tensor) -> AttentionMap:
    target, source = weights[0].nonzero().T
    return AttentionMap(weights[:, target, source].T, "conv", torch.stack([source, target]), (len(weights[0]),) * 2)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**16), nodes=st.integers(1, 6), layers=st.integers(1, 4), rho=st.sampled_from([0.0, 0.3, 0.5])
)
def test_rollout_is_a_row_of_the_product_of_the_matrices(seed, nodes, layers, rho):
    matrices = distributions(seed, nodes, layers)
    expected = paper.rollout([weights.mean(0) for weights in matrices], rho)
    row = seed % nodes
    for maps in ([AttentionMap(weights[None], "layer") for weights in matrices], [sparse(w) for w in matrices]):
        reaches = rollout(maps, torch.tensor([row]), rho)
        torch.testing.assert_close(reaches[0], expected[row])
        assert len(reaches) == layers + 1
        for reach in reaches:
            assert float(reach.sum()) == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), nodes=st.integers(1, 5), layers=st.integers(1, 3))
def test_edge_credit_is_the_sum_over_walks_that_take_the_edge(seed, nodes, layers):
    matrices = distributions(seed, nodes, layers)
    row = seed % nodes
    expected = paper.walks([weights.mean(0) for weights in matrices], row)
    dense = edge_credit([AttentionMap(weights[None], "layer") for weights in matrices], torch.tensor([row]), 0.0)
    torch.testing.assert_close(sum(dense), expected)
    maps = [sparse(weights) for weights in matrices]
    found = torch.zeros(nodes, nodes, dtype=torch.float64)
    for attention, flow in zip(maps, edge_credit(maps, torch.tensor([row]), "auto"), strict=True):
        assert float(flow.sum()) == pytest.approx(1)
        source, target = attention.ends()
        found.index_put_((target, source), flow, accumulate=True)
    torch.testing.assert_close(found, expected)


def test_several_rows_share_alike_and_auto_knows_the_kind_of_map():
    matrices = distributions(3, 4, 2)
    dense = [AttentionMap(weights[None], "layer") for weights in matrices]
    rows = torch.tensor([1, 3])
    expected = paper.rollout([weights.mean(0) for weights in matrices], 0.5)[rows].mean(0)
    torch.testing.assert_close(rollout(dense, rows)[0], expected)
    expected = paper.rollout([weights.mean(0) for weights in matrices], 0.0)[rows].mean(0)
    torch.testing.assert_close(rollout([sparse(w) for w in matrices], rows)[0], expected)


def test_a_large_sparse_graph_is_never_made_dense(monkeypatch):
    nodes, generator = 2708, torch.Generator().manual_seed(0)
    edge_index = torch.cat(
        [torch.randint(nodes, (2, 10_000), generator=generator), torch.arange(nodes).repeat(2, 1)], 1
    )
    alpha = 1 / torch.bincount(edge_index[1], minlength=nodes)[edge_index[1]].double()
    maps = [AttentionMap(alpha[:, None].expand(-1, 8), "conv", edge_index, (nodes, nodes))] * 2

    def refuse(self: AttentionMap) -> torch.Tensor:
        raise AssertionError("densified")

    monkeypatch.setattr(AttentionMap, "dense", refuse)
    assert float(rollout(maps, torch.tensor([7]))[0].sum()) == pytest.approx(1)
    assert all(flow.shape == (edge_index.size(1),) for flow in edge_credit(maps, torch.tensor([7])))


def test_maps_that_do_not_chain_and_rows_that_are_not_there():
    square, cross = AttentionMap(torch.ones(1, 1, 3, 3) / 3, "self"), AttentionMap(torch.ones(1, 1, 3, 5) / 5, "cross")
    with pytest.raises(ValueError, match="cross 3x5"):
        rollout([square, cross], torch.tensor([0]))
    with pytest.raises(ValueError, match="self 3x3, pooled 2x2"):
        rollout([square, AttentionMap(torch.ones(1, 1, 2, 2) / 2, "pooled")], torch.tensor([0]))
    with pytest.raises(ValueError, match=r"0 to 2, got \[3\]"):
        rollout([square], torch.tensor([3]))
    with pytest.raises(ValueError, match="at least one"):
        rollout([], torch.tensor([0]))


def test_deviation_from_uniform_counts_what_may_be_looked_at():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]])
    dense = AttentionMap(weights[None, None], "layer")
    assert dense.deviation() == pytest.approx(0.5)
    assert sparse(weights[None]).deviation() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="dense"):
        dense.ends()
