"""Weights that are computed when they are asked for are those of torch itself, whichever way they are asked."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from reference import attention as paper
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

from explain.attention import recomputed
from explain.attention.capture import capture
from explain.attention.maps import AttentionMap, Closed
from explain.attention.recomputed import ScaledDotProduct


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SOME = draw(7, 9, seed=4) > -0.5
NOTHING = SOME.clone()
NOTHING[2] = False
CASES = {  # query, key, arguments
    "plain": ((2, 3, 7, 8), (2, 3, 9, 8), {}),
    "mask": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": SOME}),
    "a row that may look at nothing": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": NOTHING}),
    "a mask a row of the batch": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": draw(2, 1, 1, 9, seed=5) > -0.5}),
    "a mask a head": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": draw(3, 7, 9, seed=6) > -0.5}),
    "bias": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": draw(2, 3, 7, 9, seed=7)}),
    "bias that forbids": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": torch.zeros(7, 9).masked_fill(~SOME, -torch.inf)}),
    "causal": ((2, 3, 7, 8), (2, 3, 9, 8), {"is_causal": True}),
    "causal bias": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": causal_upper_left(7, 9)}),
    "lower right": ((2, 3, 7, 8), (2, 3, 9, 8), {"attn_mask": causal_lower_right(7, 9)}),
    "scale": ((2, 3, 7, 8), (2, 3, 9, 8), {"scale": 0.3}),
    "grouped": ((2, 6, 7, 8), (2, 2, 9, 8), {"enable_gqa": True}),
    "grouped and masked": ((2, 6, 7, 8), (2, 2, 9, 8), {"enable_gqa": True, "attn_mask": draw(2, 6, 7, 9) > -0.5}),
    "two dimensions": ((7, 8), (9, 8), {"attn_mask": SOME}),
    "three dimensions": ((4, 7, 8), (4, 9, 8), {"attn_mask": draw(4, 7, 9, seed=8)}),
    "five dimensions": ((2, 3, 2, 7, 8), (2, 3, 2, 9, 8), {"attn_mask": draw(3, 1, 7, 9, seed=8) > -0.5}),
    "one key for all": ((4, 3, 7, 8), (1, 3, 9, 8), {}),
    "odd width": ((2, 3, 7, 5), (2, 3, 9, 5), {"attn_mask": SOME}),
}


def uniform(weights: torch.Tensor) -> torch.Tensor:
    """The same over all that each row looks at: no weight of these cases underflows."""
    looked = (weights > 0).double()
    return looked / looked.sum(-1, keepdim=True).clamp_min(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 2**20])
@pytest.mark.parametrize("case", CASES)
def test_every_way_of_asking_gives_what_torch_weighs(case, block, dtype, monkeypatch):
    monkeypatch.setattr(recomputed, "_BLOCK", block)
    shape, keys, arguments = CASES[case]
    query, key = draw(*shape).to(dtype), draw(*keys, seed=1).to(dtype)
    mask = arguments.get("attn_mask")
    if type(mask) is torch.Tensor and mask.is_floating_point():
        arguments = arguments | {"attn_mask": mask.to(dtype)}
    expected = paper.through_identity(query, key, **arguments)
    expected = expected.reshape(-1, expected.size(-3) if expected.dim() > 3 else 1, 7, 9)
    found = ScaledDotProduct(query, key, key, **arguments)
    close = {"rtol": 1e-5, "atol": 1e-6}
    assert found.shape == expected.shape
    assert found.whole().dtype == torch.float32
    torch.testing.assert_close(found.whole(), expected, **close)
    blocks = list(found.blocks())
    assert len(blocks) == (7 if block == 1 else 1)
    torch.testing.assert_close(torch.cat([part for _, part in blocks], 2), expected, **close)
    for width in (1, 2, 8, 11, 30):  # less than a head is wide, more than one call takes, as many as are by rows
        values = draw(9, width, seed=3)
        torch.testing.assert_close(found.times(values), expected @ values, **close)
    alone = draw(len(expected), 9, 4, seed=3)
    torch.testing.assert_close(found.times(alone), expected @ alone[:, None], **close)
    torch.testing.assert_close(found.chance(values), uniform(expected) @ values.double(), **close)
    rows, heads, places = [len(expected) - 1], [expected.size(1) - 1, 0], torch.tensor([5, 0, 3])
    part = found.part(rows, heads, places)
    of_part = expected[rows][:, heads][:, :, places]
    assert part.shape == of_part.shape
    torch.testing.assert_close(part.whole(), of_part, **close)
    torch.testing.assert_close(part.times(draw(9, 2)), of_part @ draw(9, 2), **close)
    torch.testing.assert_close(part.chance(draw(9, 2)), uniform(of_part) @ draw(9, 2).double(), **close)


def test_a_fused_kernel_takes_what_marks_the_groups():
    query, key = draw(1, 2, 40, 16), draw(1, 2, 24, 16, seed=1)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # an error where it may not be used
        for mask in (None, draw(1, 1, 40, 24) > -1, draw(40, 24)):
            ScaledDotProduct(query, key, key, mask).times(torch.eye(24)[:, :3])


class Product(nn.Module):
    def forward(self, query, key, **arguments):
        return F.scaled_dot_product_attention(query, key, key, **arguments)


def test_what_reduce_asks_is_what_the_weights_say():
    query, key = draw(2, 3, 7, 8), draw(2, 3, 9, 8, seed=1)
    groups = [torch.tensor([0]), torch.tensor([3, 1, 4]), torch.tensor([], dtype=torch.int64), torch.arange(9)]
    reach = torch.tensor([0.0, 0.5, 0, 0, 0.5, 0, 0], dtype=torch.float64)
    asked = []

    def ask(attention):
        assert "weights" not in attention.__dict__
        asked.append(
            {
                "columns": attention.columns(groups),
                "values": attention @ draw(9, 4),
                "looked_at": attention.looked_at(reach),
                "pull": attention.pull(reach),
                "row_sums": attention.row_sums(),
                "deviation": torch.tensor(attention.deviation()),
                "part": attention.part([1], [2, 0], [6, 3]).weights,
                "output": attention.part([1], [2, 0], [6, 3]).output,
                "shape": torch.tensor([attention.batch, attention.heads, attention.queries, attention.keys]),
            }
        )
        assert "weights" not in attention.__dict__
        return attention

    net = Product()
    with capture(net, reduce=ask) as maps:
        output = net(query, key)
    assert torch.equal(output, net(query, key))
    weights = paper.through_identity(query, key)
    torch.testing.assert_close(maps[0].weights, weights)
    expected = {
        "columns": torch.stack([weights[..., group].sum(-1) for group in groups], -1),
        "values": weights @ draw(9, 4),
        "looked_at": (weights[:, :, 1] + weights[:, :, 4]).double() / 2,
        "pull": (weights[:, :, 1] + weights[:, :, 4]).double().mean((0, 1)) / 2,
        "row_sums": torch.ones(42, dtype=torch.float64),
        "deviation": (weights * 9 - 1).abs().max(),
        "part": weights[[1]][:, [2, 0]][:, :, [6, 3]],
        "output": output[[1]][:, [2, 0]][:, :, [6, 3]],
        "shape": torch.tensor([2, 3, 7, 9]),
    }
    for name, value in expected.items():
        torch.testing.assert_close(asked[0][name], value, rtol=1e-5, atol=1e-6, check_dtype=name != "deviation")


def test_a_settled_map_and_one_along_edges_answer_the_same_questions():
    weights = draw(1, 2, 3, 4).softmax(-1)
    edges = torch.cartesian_prod(torch.arange(3), torch.arange(4)).T.flip(0)
    along = AttentionMap(weights[0].flatten(1).T.clone(), "layer", edges, (4, 3))
    dense = AttentionMap(weights, "layer")
    groups, reach = [torch.tensor([1, 2]), torch.tensor([3])], torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    for attention in (along, dense):
        torch.testing.assert_close(
            attention.columns(groups), torch.stack([weights[..., g].sum(-1) for g in groups], -1)
        )
        torch.testing.assert_close(attention.looked_at(reach), reach @ weights.double())
        torch.testing.assert_close(attention.pull(reach), (reach @ weights.double()).mean((0, 1)))
        torch.testing.assert_close(attention.part(heads=[1]).dense(), weights[:, [1]])
        with pytest.raises(ValueError, match="is not known"):
            attention.output  # noqa: B018
        assert (attention.batch, attention.heads) == (1, 2)
    expected = torch.tensor([0.5, 0.25]).double().expand(1, 2, 3, 2)
    torch.testing.assert_close(dense.chance(groups), expected)
    with pytest.raises(ValueError, match="runs along edges"):
        along.part(rows=[0])
    with pytest.raises(ValueError, match="runs along edges"):
        along.chance(groups)


def test_what_reduce_returns_is_kept_whatever_it_is():
    net = Product()
    with capture(net, reduce=lambda a: a.columns([torch.tensor([0])]).mean()) as kept:
        net(draw(1, 1, 3, 8), draw(1, 1, 4, 8))
    assert kept[0].shape == ()
    with capture(net, reduce=lambda a: dataclasses.replace(a, weights=a.weights.mean(1, keepdim=True))) as maps:
        net(draw(1, 2, 3, 8), draw(1, 2, 4, 8))
    assert maps[0].weights.shape == (1, 1, 3, 4)
    assert maps[0].heads == 1
    torch.testing.assert_close(maps[0].row_sums(), torch.ones(3, dtype=torch.float64))


def test_maps_can_be_copied_and_put_into_files():
    net = Product()
    with capture(net, reduce=lambda a: (copy.deepcopy(a), pickle.dumps(a))) as kept:
        net(draw(1, 2, 3, 8), draw(1, 2, 4, 8))
    expected = paper.through_identity(draw(1, 2, 3, 8), draw(1, 2, 4, 8))
    for attention in (kept[0][0], pickle.loads(kept[0][1])):
        torch.testing.assert_close(attention.weights, expected)
        torch.testing.assert_close(attention.columns([torch.arange(2)])[..., 0], expected[..., :2].sum(-1))
        assert (attention.module, attention.size) == ("Product", (4, 3))


def test_a_map_that_was_not_read_in_time_says_so():
    net, aside = Product(), []
    with capture(net, reduce=aside.append):
        net(draw(1, 1, 3, 8), draw(1, 1, 4, 8))
    for ask in (lambda a: a.weights, lambda a: a.columns([]), lambda a: a.row_sums(), lambda a: a.heads):
        with pytest.raises(Closed, match="return it from reduce, or read what you need of it there"):
            ask(aside[0])
    assert (aside[0].module, aside[0].size) == ("Product", (4, 3))


def test_wrong_questions_are_told_what_there_is():
    attention = AttentionMap(torch.ones(2, 2, 3, 4) / 4, "layer")
    with pytest.raises(ValueError, match="positions of keys of the map of layer, 0 to 3"):
        attention.columns([torch.tensor([4])])
    with pytest.raises(ValueError, match="with the 4 keys of the map of layer"):
        attention @ torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"heads of the map of layer must be some of 0 to 1, got \[2\]"):
        attention.part(heads=[2])
    with pytest.raises(ValueError, match="rows of the map of layer"):
        attention.part(rows=[])
    with pytest.raises(AttributeError, match="no attribute 'weight'"):
        attention.weight  # noqa: B018
