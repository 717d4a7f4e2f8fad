"""Attention of denoisers: captured whole and unchanged, labelled with its step, read at its true height and width."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.models.attention_processor import Attention as AttentionModule
from diffusion_cases import digits_like, tiny_unet, unet_model
from torch import nn
from torch.nn import functional as F

from explain.attention import Attention, NothingCaptured, capture
from explain.attention.image_tokens import Grid, grid_of, image_layout
from explain.attention.pixel_maps import Gathering, to_players
from explain.diffusion.model import DiffusionModel
from explain.supervised import SupervisedModel
from explain.types import Players, Unsupported


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unet() -> UNet2DModel:
    return tiny_unet((8, 12))


def unet_condition() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=(8, 12), in_channels=2, out_channels=2, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, cross_attention_dim=6, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip


def dit() -> DiTTransformer2DModel:
    torch.manual_seed(0)
    return DiTTransformer2DModel(
        2, 4, in_channels=2, num_layers=2, norm_num_groups=2, sample_size=8, num_embeds_ada_norm=10
    ).eval()


def sd3() -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=2, out_channels=2, num_layers=2, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=8, pooled_projection_dim=5,
        pos_embed_max_size=8,
    ).eval()  # fmt: skip


TEXT = {"encoder_hidden_states": draw(1, 4, 6, seed=2)}
POOLED = {"pooled_projections": draw(1, 5, seed=3)}
MODELS = {  # network, image, its condition
    "UNet2DModel": (unet, (1, 8, 12), {"class_labels": torch.tensor([3])}),
    "UNet2DConditionModel": (unet_condition, (2, 8, 12), TEXT),
    "DiTTransformer2DModel": (dit, (2, 8, 8), {"class_labels": torch.tensor([3])}),
    "SD3Transformer2DModel": (sd3, (2, 8, 12), TEXT | POOLED),
}
IMAGE = {"DiTTransformer2DModel": "hidden_states", "SD3Transformer2DModel": "hidden_states"}


def attention_modules(net: nn.Module) -> list[str]:
    return [name for name, part in net.named_modules() if isinstance(part, AttentionModule)]


def model_of(name: str, **options) -> DiffusionModel:
    make, shape, _ = MODELS[name]
    scheduler = (
        FlowMatchEulerDiscreteScheduler(100) if name.startswith("SD3") else DDIMScheduler(100, clip_sample=False)
    )
    return DiffusionModel(make(), time="step", scheduler=scheduler, shape=shape, **options)


# --- capture ---


@pytest.mark.parametrize("doubled", [False, True], ids=["plain", "guidance doubled"])
@pytest.mark.parametrize("times", ["number", "alike", "per sample"])
@pytest.mark.parametrize("name", MODELS)
def test_capture_is_bit_equal_complete_and_labelled(name, times, doubled):
    make, shape, condition = MODELS[name]
    net, rows = make(), 4 if doubled else 2
    x = draw(2, *shape).repeat(rows // 2, 1, 1, 1)
    steps = {"number": 40, "alike": torch.full((rows,), 40), "per sample": torch.arange(rows) * 10 + 5}[times]
    if times == "number" and name in IMAGE:
        steps = torch.tensor([40]).expand(rows)  # transformers take no plain number
    given = {key: value.expand(rows, *value.shape[1:]) for key, value in condition.items()}
    call = {IMAGE.get(name, "sample"): x, "timestep": steps, **given}
    before = net(**call).sample
    with capture(net) as maps:
        first, second = net(**call).sample, net(**call).sample
    after = net(**call).sample
    for output in (first, second, after):
        assert torch.equal(before, output)
    layers = attention_modules(net)
    assert len(layers) >= 2
    assert len(maps) == 2 * len(layers)
    assert sorted(attention.module for attention in maps) == sorted(2 * layers)
    for attention in maps:
        assert attention.weights.size(0) == rows
        torch.testing.assert_close(
            attention.weights.sum(-1), torch.ones(attention.weights.shape[:-1]), rtol=0, atol=1e-5
        )
        assert attention.step == (tuple(steps.tolist()) if times == "per sample" else 40)
        assert attention.branch is None


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "SD3Transformer2DModel"])
def test_half_precision_outputs_are_untouched_by_what_reduce_asks(name):
    make, shape, condition = MODELS[name]
    net = make().to(torch.bfloat16)
    given = {key: value.expand(2, *value.shape[1:]).bfloat16() for key, value in condition.items()}
    call = {IMAGE.get(name, "sample"): draw(2, *shape).bfloat16(), "timestep": torch.tensor([40, 40]), **given}
    reach = torch.ones(1, dtype=torch.float64)

    def ask(attention):
        spread = torch.zeros(attention.queries, dtype=torch.float64).index_copy_(0, torch.tensor([3]), reach)
        return attention.columns([torch.tensor([0, 2])]), attention.looked_at(spread), attention.weights

    torch.manual_seed(0)
    before, state = net(**call).sample, torch.get_rng_state()
    with capture(net, ask) as found:
        assert torch.equal(net(**call).sample, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(net(**call).sample, before)
    for columns, looked, weights in found:
        assert columns.dtype == weights.dtype == torch.float32
        torch.testing.assert_close(columns[..., 0], weights[..., [0, 2]].sum(-1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(looked, weights[:, :, 3].double(), rtol=1e-5, atol=1e-6)


def test_labels_come_from_the_network_itself_and_from_nothing_else():
    class Time(nn.Module):
        def forward(self, x, t=None, branch=None):
            return F.scaled_dot_product_attention(x, x, x)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Time()

        def forward(self, x, *rest, **named):
            return self.inner(x, 7.0, branch="cond")

    x, inner, outer = draw(2, 3, 4), Time(), Outer()
    asked = [((), {}), ((5,), {}), ((), {"t": torch.tensor(2.5), "branch": "uncond"}), ((draw(2, 3),), {"branch": 1})]
    with capture(inner) as maps:
        for args, kwargs in asked:
            inner(x, *args, **kwargs)
    assert [(a.step, a.branch) for a in maps] == [(None, None), (5, None), (2.5, "uncond"), (None, None)]
    with capture(outer) as maps:
        outer(x)
        outer(x, timestep=torch.tensor([3, 3]))
        outer.inner(x, 9)
    assert [(a.step, a.branch) for a in maps] == [(None, None), (3, None), (None, None)]


def test_a_label_does_not_outlive_a_call_that_failed():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.MultiheadAttention(4, 1, batch_first=True)

        def forward(self, x, t):
            self.part(x, x, x)
            raise RuntimeError("after attention")

    net = Fails().eval()
    with capture(net) as maps:
        with pytest.raises(RuntimeError, match="after attention"):
            net(draw(1, 3, 4), 5)
        net.part(*[draw(1, 3, 4)] * 3)
    assert [attention.step for attention in maps] == [5, None]
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_run_labels_steps_and_branches(guidance):
    model = unet_model()
    run = model.trajectory(label=3, payoff=lambda x: x.mean((1, 2, 3)), steps=4, guidance=guidance)
    before = run.run()
    with capture(model.module) as maps:
        assert torch.equal(run.run(), before)
    branches = ["cond"] if guidance == 1 else ["cond", "uncond"]
    layers = [f"net.{name}" for name in attention_modules(model.denoiser.net)]
    expected = [(step, branch) for step in run.timesteps for branch in branches for _ in layers]
    assert [(attention.step, attention.branch) for attention in maps] == expected
    assert {attention.module for attention in maps} == set(layers)


def test_what_is_kept_can_be_reduced_and_nothing_kept_is_not_nothing_captured():
    net, x = unet(), draw(2, 1, 8, 12)
    modules = []
    with capture(net, reduce=lambda attention: modules.append(attention.module)) as maps:
        net(x, 5, torch.tensor([3, 3]))
    assert maps == []
    assert sorted(modules) == sorted(attention_modules(net))


# --- the true height and width ---


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (7, 5), (9, 9), (1, 6), (5, 13)])
def test_a_grid_is_the_only_one_of_its_size_and_covers_every_pixel_once(size):
    shapes = {}
    for factor in range(1, max(size) + 1):
        shape = math.ceil(size[0] / factor), math.ceil(size[1] / factor)
        grid = grid_of(shape[0] * shape[1], size)
        assert grid.shape == shape
        assert shapes.setdefault(shape[0] * shape[1], shape) == shape
        cells = grid.cells().reshape(size)
        assert cells.unique().tolist() == list(range(shape[0] * shape[1]))
        for y in range(size[0]):
            for x in range(size[1]):
                assert cells[y, x] == (y // grid.factor) * shape[1] + x // grid.factor
        shares = torch.rand(shape[0] * shape[1], dtype=torch.float64)
        spread = grid.spread(shares)
        assert float(spread.sum()) == pytest.approx(float(shares.sum()))
        torch.testing.assert_close(torch.zeros_like(shares).index_add_(0, grid.cells(), spread), shares)
    assert grid_of(10**6, size) is None


def test_an_odd_size_prefers_what_networks_do():
    assert grid_of(9, (9, 9)).factor == 3  # divides
    assert grid_of(4, (7, 7)).factor == 4  # halved twice
    assert grid_of(25, (16, 24)) is None  # the square root would have said 5 x 5
    assert grid_of(24, (16, 24 * 4)) == Grid((16, 96), 8)


def test_a_region_looks_from_the_cells_it_lies_in():
    grid = Grid((4, 6), 2)
    reach = grid.gather(torch.tensor([0, 1, 6, 5]))  # three pixels of the first cell, one of the third
    assert reach.tolist() == [0.75, 0, 0.25, 0, 0, 0]


# --- which tokens are the image's ---


def layout_of(name: str):
    make, shape, condition = MODELS[name]
    net = make()
    call = {IMAGE.get(name, "sample"): draw(2, *shape), "timestep": torch.tensor([40, 40])}
    given = {key: value.expand(2, *value.shape[1:]) for key, value in condition.items()}
    return net, image_layout(net, lambda: net(**call, **given), shape[1:])


@pytest.mark.parametrize("name", MODELS)
def test_image_tokens_are_told_from_text(name):
    net, layout = layout_of(name)
    kept = {module for (module, _, _), reason in layout.reasons.items() if reason is None}
    left = {module for (module, _, _), reason in layout.reasons.items() if reason is not None}
    assert kept | left == set(attention_modules(net))
    assert left == ({m for m in kept | left if m.endswith("attn2")} if name == "UNet2DConditionModel" else set())
    for count, tokens in layout.tokens.items():
        cells = tokens.grid.shape[0] * tokens.grid.shape[1]
        assert tokens.positions.tolist() == list(range(cells))
        assert count == cells + (4 if name.startswith("SD3") else 0)
    if name == "SD3Transformer2DModel":  # image first, then four text tokens
        assert layout.tokens[28].grid.shape == (4, 6)


class TextFirst(nn.Module):
    """Two joint layers over a label token, three text tokens and then the image's pixels."""

    def __init__(self):
        super().__init__()
        self.text = nn.Parameter(draw(3, 4, seed=5))

    def forward(self, x, timestep, label=None):
        label = torch.zeros(len(x)) if label is None else label
        tokens = x.flatten(2).transpose(1, 2).expand(-1, -1, 4)
        label, text = label.to(x)[:, None, None].expand(-1, 1, 4), self.text.expand(len(x), 3, 4)
        tokens = torch.cat([label, text, tokens], 1)[:, None]
        for _ in range(2):
            tokens = tokens + F.scaled_dot_product_attention(tokens, tokens, tokens)
        return tokens[:, 0, 4:].mean(-1).reshape(x.shape)


def test_text_before_the_image_is_told_too_and_keeps_its_share():
    model = DiffusionModel(TextFirst(), time="step", betas=torch.linspace(1e-4, 0.02, 20), shape=(1, 4, 6))
    step = model.step(digits_like()[0, :, :4, :6], t=10, label=2, draws=3)
    layout = image_layout(model.module, step.run, (4, 6))
    assert layout.tokens[28].positions.tolist() == list(range(4, 28))
    with capture(model.module) as maps:
        step.run()
    image = torch.stack([a.weights.double().mean((0, 1))[4:, 4:].mean(0) for a in maps]).mean(0)
    players = step.players("patches", size=2)
    found = Attention(players).explain(step)
    torch.testing.assert_close(
        found.scores, torch.stack([image[group].sum() for group in players.groups]), rtol=1e-5, atol=1e-7
    )
    assert found.checks["mass_on_players"] == pytest.approx(float(image.sum()), rel=1e-5)
    assert found.checks["mass_on_players"] < 0.999


class Windows(nn.Module):
    """Attention within the rows of an image: as many keys as an image of half the size has tokens."""

    def forward(self, x, timestep):
        rows = x.flatten(0, 2)[:, None, :, None].expand(-1, 1, -1, 4)
        return F.scaled_dot_product_attention(rows, rows, rows)[:, 0, :, 0].reshape(x.shape)


def test_a_map_that_is_not_over_the_whole_image_is_left_out_and_the_error_says_why():
    model = DiffusionModel(Windows(), time="step", betas=torch.linspace(1e-4, 0.02, 20), shape=(1, 4, 4))
    with pytest.raises(NothingCaptured, match="looks within parts of the image"):
        Attention("patches").explain(model.step(digits_like()[0, :, :4, :4], t=10, draws=2))

    class Rows(nn.Module):  # one token a row
        def forward(self, x, timestep):
            return x + F.scaled_dot_product_attention(x, x, x)

    model = DiffusionModel(Rows(), time="step", betas=torch.linspace(1e-4, 0.02, 20), shape=(1, 4, 7))
    with pytest.raises(NothingCaptured, match="no downsampling of 4x7 pixels"):
        Attention("patches").explain(model.step(digits_like()[0, :, :4, :7], t=10, draws=2))


# --- the explainer ---


def image_of(shape):
    return F.interpolate(draw(1, shape[0], 3, 3), shape[1:], mode="bilinear")[0].tanh()


def condition_of(name):
    _, _, condition = MODELS[name]
    return {key: value.clone() for key, value in condition.items()}


@pytest.mark.parametrize("name", MODELS)
def test_shares_over_patches_are_means_of_what_each_map_says(name):
    """The paper form: by hand from plain captured maps, cell by cell."""
    _, shape, _ = MODELS[name]
    model = model_of(name)
    region = torch.zeros(shape[1:], dtype=torch.bool)
    region[1:4, 2:5] = True
    step = model.step(image_of(shape), t=[60, 20], label=condition_of(name), draws=2, payoff="x0", region=region)
    players = step.players("patches", size=3)
    with capture(model.module) as maps:
        step.run()
    credit, kept = torch.zeros(shape[1:], dtype=torch.float64), 0
    for attention in maps:
        if attention.module.endswith("attn2") and name == "UNet2DConditionModel":
            continue  # looks at the text
        tokens = attention.keys - (4 if name.startswith("SD3") else 0)
        factor = next(f for f in (1, 2, 4) if (shape[1] // f) * (shape[2] // f) == tokens)
        width = shape[2] // factor
        weights = attention.weights.double().mean((0, 1))
        for y, x in region.nonzero().tolist():
            row = weights[(y // factor) * width + x // factor, :tokens].reshape(-1, width)
            credit += row.repeat_interleave(factor, 0).repeat_interleave(factor, 1) / factor**2 / region.sum()
        kept += 1
    expected = torch.stack([credit.reshape(-1)[group].sum() for group in players.groups]) / kept
    found = Attention(players).explain(step)
    torch.testing.assert_close(found.scores, expected, rtol=1e-5, atol=1e-8)
    assert found.checks["maps"] == kept
    assert found.checks["left_out"] == len(maps) - kept
    assert found.checks["steps"] == [60, 20]
    assert found.checks["branches"] == ["cond"]
    assert found.checks["row_sum_error"] <= 1e-5
    if not name.startswith("SD3"):
        assert float(found.scores.sum()) == pytest.approx(1, abs=1e-6)
    assert found.checks["mass_on_players"] == pytest.approx(float(found.scores.sum()))


def test_the_maps_come_along_at_their_true_height_and_width():
    model = model_of("UNet2DModel")
    step = model.step(image_of((1, 8, 12)), t=[60, 20], label=3, draws=2)
    found = Attention().explain(step)
    assert found.players.kind == "patches"
    layers = [f"net.{name}" for name in attention_modules(model.denoiser.net)]
    assert sorted(found.checks["layers"]) == sorted(layers)
    with capture(model.module) as maps:
        step.run()
    assert len(maps) == 2 * len(layers)
    for i, attention in enumerate(maps):  # one batch of draws a step: maps in call order
        torch.testing.assert_close(found.parts[f"attention.{i}"], attention.weights.mean(0))
        assert found.parts[f"attention.{i}.grid"].tolist() == [4, 6]
        assert float(found.parts[f"attention.{i}.step"]) == attention.step
        assert found.checks["layers"][int(found.parts[f"attention.{i}.layer"])] == attention.module
        assert found.checks["branches"][int(found.parts[f"attention.{i}.branch"])] == "cond"
        torch.testing.assert_close(found.parts[f"attention.{i}.region"], attention.weights.mean((0, 1, 2)))
    last = Attention(aggregate="last").explain(step)
    ends = torch.stack([found.parts[f"attention.{i}.region"].double() for i in (len(layers) - 1, 2 * len(layers) - 1)])
    pixels = Grid((8, 12), 2).spread(ends.mean(0))
    torch.testing.assert_close(last.scores, to_players(pixels, last.players), rtol=1e-5, atol=1e-8)


def test_maps_that_do_not_fit_are_kept_as_what_the_region_looks_at():
    model = model_of("UNet2DModel")
    step = model.step(image_of((1, 8, 12)), t=[60, 20], label=3, draws=2)
    layout = image_layout(model.module, step.run, (8, 12))
    found = []
    for whole in (10**6, 5000, 0):
        gathering = Gathering(layout, step.pixels()[:7], whole)
        with capture(model.module, reduce=gathering):
            step.run()
        found.append((gathering.parts(), gathering.credit("mean"), gathering.checks()["maps_kept"]))
    assert [kept for _, _, kept in found] == ["whole", "what the region looks at", "what the region looks at"]
    for parts, credit, _ in found[1:]:
        assert parts["attention.0"].shape == parts["attention.7"].shape == (2, 1, 24)
        torch.testing.assert_close(credit, found[0][1])
        for i in range(8):
            torch.testing.assert_close(parts[f"attention.{i}.region"], found[0][0][f"attention.{i}.region"])


def test_superpixels_and_players_of_ones_own():
    model = model_of("UNet2DModel")
    step = model.step(image_of((1, 8, 12)), t=20, label=3, draws=2)
    patches = Attention("patches").explain(step)
    pixels = Attention(step.players("patches", size=1)).explain(step).scores
    found = Attention("superpixels").explain(step)
    torch.testing.assert_close(found.scores, torch.stack([pixels[group].sum() for group in found.players.groups]))
    assert float(found.scores.sum()) == pytest.approx(1, abs=1e-6)
    labels = patches.players.geometry["labels"].clone()
    labels[labels == 0] = -1  # nobody's, and no groups: the labels say who owns what
    own = Players("patches", torch.arange(len(patches.players)), geometry={"labels": labels})
    partly = Attention(own).explain(step)
    torch.testing.assert_close(partly.scores[1:], patches.scores[1:])
    assert float(partly.scores[0]) == 0
    assert partly.checks["mass_on_players"] == pytest.approx(1 - float(patches.scores[0]), abs=1e-6)


class Staring(nn.Module):
    """Every pixel looks at the patch at (4, 4) and at nothing else, and answers with what it sees there.

    Where to look is a matter of place alone, or of the image too; and the answer may not care.
    """

    def __init__(self, follows: bool, listens: bool = True):
        super().__init__()
        self.follows, self.listens = follows, listens

    def forward(self, x, timestep):
        where = torch.zeros(x.shape[2:])
        where[4:6, 4:6] = 40
        pixels = x.flatten(2)[..., None]
        key = where.reshape(1, 1, -1, 1).expand_as(pixels)
        query = torch.ones_like(pixels)
        if self.follows:
            key, query = torch.cat([key, 0.01 * pixels], -1), torch.cat([query, 0.01 * pixels], -1)
        seen = F.scaled_dot_product_attention(query, key, pixels)
        return seen.reshape(x.shape) if self.listens else 0 * x


@pytest.mark.parametrize("follows", [False, True])
def test_planted_attention_gets_all_the_credit(follows):
    betas, image = torch.linspace(1e-4, 0.02, 20), image_of((1, 8, 12))
    step = DiffusionModel(Staring(follows), time="step", betas=betas, shape=(1, 8, 12)).step(image, t=10)
    found = Attention(step.players("patches", size=2)).explain(step)
    planted = int(found.players.geometry["labels"][4, 4])
    assert float(found.scores[planted]) == pytest.approx(1)
    assert float(found.scores.sum()) == pytest.approx(1)
    assert abs(found.checks["change_under_uniform"]) > 1e-3
    deaf = DiffusionModel(Staring(follows, listens=False), time="step", betas=betas, shape=(1, 8, 12)).step(image, t=10)
    found = Attention(found.players).explain(deaf)
    assert found.checks["change_under_uniform"] == 0  # it looks there, and does not care


class Encoder(nn.Module):
    """Pixels as tokens of `nn.MultiheadAttention`, after a token of the time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, timestep):
        time = timestep.to(x)[:, None, None].expand(-1, 1, 4) / 100
        tokens = torch.cat([time, 3 * x.flatten(2).transpose(1, 2).expand(-1, -1, 4)], 1)
        return self.layer(tokens, tokens, tokens, need_weights=False)[0][:, 1:, 0].reshape(x.shape)


def test_multi_head_attention_and_a_token_of_the_time():
    model = DiffusionModel(Encoder().eval(), time="step", betas=torch.linspace(1e-4, 0.02, 20), shape=(1, 4, 6))
    step = model.step(image_of((1, 4, 6)), t=10, draws=2)
    with capture(model.module) as maps:
        step.run()
    image = maps[0].mean()[1:, 1:].mean(0)
    found = Attention(step.players("patches", size=1)).explain(step)
    torch.testing.assert_close(found.scores, image, rtol=1e-5, atol=1e-8)
    assert found.checks["mass_on_players"] == pytest.approx(1 - float(maps[0].mean()[1:, 0].mean()))


def test_uniform_attention_is_what_a_flat_network_says():
    model = model_of("UNet2DModel")
    step = model.step(image_of((1, 8, 12)), t=20, label=3, draws=1)
    found = Attention().explain(step)
    flat = model_of("UNet2DModel")
    for name, part in flat.denoiser.net.named_modules():
        if isinstance(part, AttentionModule):
            assert name
            part.to_q.weight.data.zero_()
            part.to_q.bias.data.zero_()
    change = flat.step(image_of((1, 8, 12)), t=20, label=3, draws=1).value() - step.value()
    assert found.checks["change_under_uniform"] == pytest.approx(change, rel=1e-3)
    assert abs(change) > 1e-5


def test_a_whole_run_is_the_mean_over_its_steps_and_branches():
    model = unet_model()
    run = model.trajectory(label=3, payoff=lambda x: x.mean((1, 2, 3)), steps=3, guidance=2.0)
    found = Attention("patches").explain(run)
    assert found.checks["steps"] == run.timesteps
    assert found.checks["branches"] == ["cond", "uncond"]
    assert found.checks["maps"] == 3 * 2 * len(attention_modules(model.denoiser.net))
    assert float(found.scores.sum()) == pytest.approx(1, abs=1e-6)
    count = found.checks["maps"]
    mean = torch.stack([found.parts[f"attention.{i}.region"].double() for i in range(count)]).mean(0)
    torch.testing.assert_close(
        found.scores, to_players(Grid((8, 8), 2).spread(mean), found.players), rtol=1e-5, atol=1e-8
    )
    assert Attention().explain(run).players.kind == "patches"


def test_the_model_is_left_alone():
    model = unet_model()
    state = {name: value.clone() for name, value in model.module.state_dict().items()}
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules()]
    random = torch.get_rng_state()
    step = model.step(digits_like()[0], t=20, label=3)
    value = step.value()
    one, other = Attention().explain(step), Attention().explain(step)
    assert torch.equal(one.scores, other.scores)
    assert step.value() == value == one.value
    assert torch.equal(random, torch.get_rng_state())
    assert hooks == [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules()]
    assert all(torch.equal(state[name], value) for name, value in model.module.state_dict().items())


def test_what_cannot_be_asked():
    step = unet_model().step(digits_like()[0], t=20, label=3)
    with pytest.raises(Unsupported, match="rollout does not go over images"):
        Attention("patches", aggregate="rollout").explain(step)
    with pytest.raises(ValueError, match="patches need geometry"):
        Attention(Players("patches", torch.arange(2))).explain(step)
    with pytest.raises(ValueError, match="got 'labels'"):
        Attention("labels").explain(step)
    silent = DiffusionModel(lambda x, t: 0 * x, time="step", betas=torch.linspace(1e-4, 0.02, 10), shape=(1, 8, 8))
    with pytest.raises(NothingCaptured):
        Attention().explain(silent.step(digits_like()[0], t=2))
    other = step.players("patches").geometry["labels"][:, :4]
    with pytest.raises(Unsupported, match=r"called with images \[batch, channels, 8, 4\]"):
        Attention(Players("patches", torch.arange(16), geometry={"labels": other})).explain(step)
    picture = SupervisedModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), task="classification")
    with pytest.raises(Unsupported, match=r"does not offer pixels\(\)"):
        Attention("patches").explain(picture.example(digits_like()[0]))


def test_the_choice_of_maps_is_the_users_here_too():
    model = unet_model()
    run = model.trajectory(label=3, payoff=lambda x: x.mean((1, 2, 3)), steps=3, guidance=2.0)
    layers = attention_modules(model.denoiser.net)
    every = Attention("patches").explain(run)
    found = Attention("patches", modules=f"net.{layers[0]}", heads=0, steps=run.timesteps[1], branch="cond").explain(
        run
    )
    assert (found.checks["maps"], found.checks["steps"]) == (1, [run.timesteps[1]])
    assert (found.checks["layers"], found.checks["branches"]) == ([f"net.{layers[0]}"], ["cond"])
    assert found.parts["attention.0"].size(0) == 1
    assert every.parts["attention.0"].size(0) > 1
    with capture(model.module, modules=f"*{layers[0]}", steps=lambda t: t == run.timesteps[1]) as maps:
        run.run()
    (own,) = [attention for attention in maps if attention.branch == "cond"]
    torch.testing.assert_close(found.parts["attention.0"], own.weights[:, [0]].mean(0))
