"""One map a word: what the paper forms say, from whole weights cell by cell, of pipelines and of planted attention."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from pipeline_calls import asked, built, ink
from reference import attention as paper
from torch import nn
from torch.nn import functional as F

import explain
from explain.attention import Attention, NothingCaptured, capture
from explain.attention.text_tokens import text_layout
from explain.types import Players, Target, Unsupported

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of a scheduler

WIDE = {"height": 16, "width": 24}  # latents of 8 x 12, in SD3 4 x 6 tokens
LAYERS = {  # where the image begins among a layer's tokens, and what is asked
    "sd": ("attn2", 0, asked("sd", **WIDE)),
    "sdxl": ("attn2", 0, asked("sdxl", **WIDE)),
    "pixart alpha": ("attn2", 0, asked("pixart alpha")),
    "sd3": ("attn", 0, asked("sd3", **WIDE)),
    "flux": ("attn", 16, asked("flux", **WIDE)),
}
SIZES = {"flux": (4, 6), "pixart alpha": (8, 8)}
GRIDS = {96: (8, 12), 24: (4, 6), 64: (8, 8), 16: (4, 4)}


@cache
def run_of(name, **changed):
    return explain.wrap(built(name)).trajectory(**(LAYERS[name][2] | changed), payoff=ink)


def by_hand(name, aggregate, run, negative=False):
    """The maps of one prompt's words, and how many were summed, from weights and outputs that were kept whole."""
    layer, start, _ = LAYERS[name]
    size = SIZES.get(name, (8, 12))
    players = run.players("words")
    ((text, positions),) = run.tokens(players, negative).items()
    words = [p.tolist() for p in positions if len(p)]

    def keep(attention):
        return attention.module, attention.weights[-1], attention.output[-1]

    with capture(run.module, keep, branch="uncond" if negative else "cond") as found:
        run.run()
    total, count = torch.zeros(len(words), *size, dtype=torch.float64), 0
    for module, weights, output in found:
        if module.endswith("attn1"):
            continue
        assert module.endswith(layer)
        joint = layer == "attn"
        image = weights.size(1) - text * joint
        shift = 0 if start or not joint else image  # of the text among the keys
        placed = [[shift + token for token in word] for word in words]
        where = placed, start, GRIDS[image], size
        if aggregate == "mean":
            total, count = total + paper.look_of_words(weights, *where).mean(0), count + 1
        elif aggregate == "daam":
            total, count = total + paper.daam(weights, *where), count + len(weights)
        else:
            total, count = total + paper.alike_outputs(output, *where), count + 1
    return total, count


@pytest.mark.parametrize(
    ("name", "aggregate"),
    [
        *[(name, aggregate) for name in ("sd", "sd3") for aggregate in ("mean", "daam")],
        *[("sdxl", "mean"), ("pixart alpha", "mean"), ("flux", "mean"), ("sd3", "output"), ("flux", "output")],
    ],
)
def test_maps_are_the_paper_form_at_the_latents_true_height_and_width(name, aggregate):
    run = run_of(name)
    found = Attention("words", aggregate=aggregate).explain(run)
    total, count = by_hand(name, aggregate, run)
    own = [i for i, word in enumerate(found.players.names) if not word.startswith("not: ")]
    assert found.players.names[:6] == ("a", "red", "fox", "in", "deep", "snow")
    assert found.parts["maps"].shape == (len(found.players), *SIZES.get(name, (8, 12)))
    expected = total if aggregate == "daam" else total / count
    torch.testing.assert_close(found.parts["maps"][own].double(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.scores[own], total.mean((1, 2)) / count, rtol=1e-5, atol=1e-7)
    assert found.scores.dtype == torch.float64
    assert found.checks["summed"][:6] == [count] * 6
    assert found.checks["grid"] == list(SIZES.get(name, (8, 12)))
    assert found.checks["branches"] == (["cond"] if name == "flux" else ["uncond", "cond"])
    assert found.checks["row_sum_error"] <= 1e-5
    assert found.checks["unread"] == []
    ((text, positions),) = run.tokens(found.players).items()
    keys = {"pixart alpha": 7, "sd3": 24 + text, "flux": 24 + text}.get(name, text)  # PixArt's padding is masked
    chance = [1 / 6 if aggregate == "output" else len(positions[i]) / keys for i in own]
    assert found.parts["uniform"][own].tolist() == pytest.approx(chance)
    torch.testing.assert_close(found.parts["by_step"].mean(1), found.scores, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.parts["by_layer"].mean(1), found.scores, rtol=1e-5, atol=1e-7)
    assert found.parts["steps"].tolist() == pytest.approx(run.timesteps)
    assert found.parts["by_layer"].shape == (len(found.players), len(found.checks["layers"]))


@pytest.mark.parametrize(("name", "aggregate"), [("sd", "mean"), ("sd", "daam"), ("sd3", "output")])
def test_words_of_the_negative_prompt_are_read_in_its_own_branch(name, aggregate):
    run = run_of(name, negative="blurry deep fox")
    found = Attention("words", aggregate=aggregate).explain(run)
    assert found.players.names[6:] == ("not: blurry", "not: deep", "not: fox")
    total, count = by_hand(name, aggregate, run, negative=True)
    torch.testing.assert_close(found.scores[6:], total.mean((1, 2)) / count, rtol=1e-5, atol=1e-7)
    cond, uncond = (Attention("words", aggregate=aggregate, branch=own).explain(run) for own in ("cond", "uncond"))
    torch.testing.assert_close(cond.scores[:6], found.scores[:6])
    torch.testing.assert_close(uncond.scores[6:], found.scores[6:])
    assert not cond.scores[6:].any()
    assert uncond.checks["unread"] == list(found.players.names[:6])
    assert uncond.checks["branches"] == ["uncond"]


def test_without_guidance_no_head_is_lost_and_the_choice_of_maps_is_the_users():
    run = run_of("sd", guidance=1.0)
    every = Attention(run_of("sd").players("words"), aggregate="daam").explain(run)  # a negative one, not read here
    with capture(run.module, lambda a: a.heads, modules="*attn2") as heads:
        run.run()
    assert every.checks["summed"] == [sum(heads)] * 6 + [0]
    assert every.checks["unread"] == ["not: blurry"]
    assert float(every.scores[6]) == 0
    first, second = run.timesteps
    one = Attention("words", modules="mid_block", heads=1, steps=second, branch="cond").explain(run)
    assert one.checks["layers"] == ["mid_block.attentions.0.transformer_blocks.0.attn2"]
    assert (one.checks["maps"], one.checks["steps"]) == (1, [second])
    with capture(run.module, modules="mid_block.*attn2", heads=1, steps=lambda t: t < first) as maps:
        run.run()
    (attention,) = maps
    ((_, positions),) = run.tokens(one.players).items()
    expected = torch.stack([attention.mean()[:, p].sum(1).mean() for p in positions])
    torch.testing.assert_close(one.scores, expected, rtol=1e-5, atol=1e-8)
    assert one.settings["modules"] == "mid_block"


def test_a_deletion_stands_beside_the_maps():
    run = run_of("sd")
    found = Attention("words").explain(run)
    top = found.players.names.index(found.checks["top"])
    other = found.players.names.index(found.checks["other"])
    assert top == int(found.scores[:6].argmax())
    assert other != top
    assert other < 6  # the negative prompt's words have shares of another branch
    assert found.checks["mass_on_players"] == pytest.approx(float(found.scores.sum()) / 2)
    game = run.game(found.players)
    for name, player in (("top", top), ("other", other)):
        mask = torch.ones(1, len(found.players), dtype=torch.bool)
        mask[0, player] = False
        assert found.checks[f"change_without_{name}"] == pytest.approx(float(game(mask)[0]) - run.value(), rel=1e-3)
    assert found.checks["change_under_uniform"] != 0
    assert found.value == run.value()


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_patches_of_the_picture_are_seen_through_latents(name):
    run = run_of(name)
    with capture(run.module) as maps:
        run.run()
    text = 0 if name == "sd" else maps[0].keys - 24
    credit, count = torch.zeros(16, 24, dtype=torch.float64), 0
    for attention in maps:
        if attention.module.endswith("attn2"):
            continue
        image = slice(text, None) if name == "flux" else slice(0, attention.keys - text)
        for rows in attention.branches().values():
            own = attention.part(rows)
            looked = own.mean()[image, image].mean(0).reshape(GRIDS[attention.keys - text])
            square = 16 // len(looked)
            credit += looked.repeat_interleave(square, 0).repeat_interleave(square, 1) / square**2
            count += 1
    found = Attention(run.players("patches", size=4)).explain(run)
    expected = credit.unflatten(0, (4, 4)).unflatten(2, (6, 4)).sum((1, 3)).reshape(-1) / count
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-7)
    assert found.checks["branches"] == (["cond"] if name == "flux" else ["uncond", "cond"])
    assert found.checks["mass_on_players"] == pytest.approx(1, abs=1e-5) or name != "sd"


def test_a_negative_prompt_like_the_prompt_is_a_branch_of_its_own_still():
    run = run_of("sd", negative=asked("sd")["prompt"])
    found = Attention().explain(run)
    assert found.players.kind == "words"
    assert found.checks["branches"] == ["uncond", "cond"]
    torch.testing.assert_close(found.scores[:6], found.scores[6:])


def test_rows_that_stand_for_several_do_not_tell_a_branch():
    run = run_of("sd")
    game = run.game(run.players("words"))
    masks = torch.ones(2, 7, dtype=torch.bool)
    masks[1, 0] = False
    with capture(run.module, lambda a: (a.batch, a.branch), modules="mid_block") as found:
        game(masks)  # two prompts, and one branch without them
    assert {branch for batch, branch in found if batch == 4} <= {("uncond", "uncond", "cond", "cond")}
    assert {branch for batch, branch in found if batch == 3} == {None}


# --- planted attention ---


class Prompted(Target):
    """The mean of what a network of image and text says; three words of one, two and one tokens of five."""

    def __init__(self, module, size=(4, 6), rows=2, text=None):
        self.module, self.rows_ = module, rows
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(1, 1, *size, generator=generator).expand(rows, 1, *size)
        self.text = torch.randn(1, 5, 4, generator=generator).expand(rows, 5, 4) if text is None else text

    def run(self):
        with torch.no_grad():
            return self.module(self.x, torch.tensor(7.0), encoder_hidden_states=self.text)

    def value(self):
        return float(self.run().mean())

    def players(self, kind, **options):
        return Players("words", torch.arange(3), ("red", "fox", "snow"))

    def tokens(self, players):
        return {5: (torch.tensor([1]), torch.tensor([2, 3]), torch.tensor([4]))}

    def describe(self):
        return {}


class Staring(nn.Module):
    """Cross-attention: the upper half of the image looks at the second word alone, the rest at the third."""

    def forward(self, x, timestep, encoder_hidden_states):
        rows, height, width = len(x), x.size(2), x.size(3)
        upper = (torch.arange(height) < height // 2).repeat_interleave(width)
        where = torch.stack([upper, ~upper], -1).float() * 40
        query = where.expand(rows, 1, -1, 2) + 0.1 * x.flatten(2)[..., None]
        key = torch.zeros(5, 2)
        key[2:4, 0] = key[4, 1] = 1.0
        key = key.expand(rows, 1, 5, 2) + 1e-3 * encoder_hidden_states[:, None, :, :2]
        seen = F.scaled_dot_product_attention(query, key, encoder_hidden_states[:, None, :, :2])
        return seen.mean(-1).reshape(x.shape)


class Joint(nn.Module):
    """Text first, then the image, both looking at both."""

    def forward(self, x, timestep, encoder_hidden_states):
        tokens = torch.cat([encoder_hidden_states, x.flatten(2).mT.expand(-1, -1, 4)], 1)[:, None]
        for _ in range(2):
            tokens = tokens + F.scaled_dot_product_attention(tokens, tokens, tokens)
        return tokens[:, 0, 5:].mean(-1).reshape(x.shape)


def test_planted_words_get_the_places_that_look_at_them():
    target = Prompted(Staring())
    for aggregate in ("mean", "daam"):
        found = Attention("words", aggregate=aggregate).explain(target)
        maps = found.parts["maps"]
        torch.testing.assert_close(found.scores, torch.tensor([0, 0.5, 0.5]).double(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(maps[1, :2], torch.ones(2, 6), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(maps[2, 2:], torch.ones(2, 6), rtol=1e-3, atol=1e-3)
        assert float(maps[0].max()) < 1e-6
        assert found.parts["uniform"].tolist() == pytest.approx([0.2, 0.4, 0.2])
        assert found.checks["steps"] == [7.0]
        assert "does not offer game" in found.checks["deletion"]


def test_text_before_the_image_is_found_and_all_rows_of_a_batch_count():
    target = Prompted(Joint(), rows=3, text=torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2)))
    layout = text_layout(target.module, target.run, [target.tokens(None)])
    (place,) = layout.places.values()
    assert place.joint
    assert place.image.positions.tolist() == list(range(5, 29))
    assert place.text.tolist() == list(range(5))
    found = Attention("words").explain(target)
    with capture(target.module) as maps:
        target.run()
    image = torch.stack([attention.mean()[5:] for attention in maps]).mean((0, 1))
    expected = torch.stack([image[[1]].sum(), image[[2, 3]].sum(), image[[4]].sum()])
    torch.testing.assert_close(found.scores, expected, rtol=1e-5, atol=1e-8)
    alike = Attention("words", aggregate="output").explain(target)
    assert float(alike.scores.sum()) == pytest.approx(1)
    assert alike.parts["uniform"].tolist() == pytest.approx([1 / 3] * 3)


class Shuffled(Joint):
    """The text's tokens in another order than they came in."""

    def forward(self, x, timestep, encoder_hidden_states):
        return super().forward(x, timestep, encoder_hidden_states.flip(1))


class Silent(nn.Module):
    def forward(self, x, timestep, encoder_hidden_states):
        return x + F.scaled_dot_product_attention(x, x, x)


def test_what_cannot_be_told_is_refused_in_words():
    with pytest.raises(NothingCaptured, match="keys at the words' places are not those that follow the words"):
        Attention("words").explain(Prompted(Shuffled()))
    with pytest.raises(NothingCaptured, match="the image looks at itself alone"):
        Attention("words").explain(Prompted(Silent()))
    with pytest.raises(Unsupported, match="in cross-attention the text becomes nothing: use aggregate='mean'"):
        Attention("words", aggregate="output").explain(Prompted(Staring()))
    with pytest.raises(Unsupported, match="does not go from a picture to words"):
        Attention("words", aggregate="rollout").explain(Prompted(Staring()))
    with pytest.raises(Unsupported, match="reads words of a negative prompt, and none of these"):
        Attention("words", branch="uncond").explain(Prompted(Staring()))
    with pytest.raises(Unsupported, match="makes maps of words"):
        Attention("patches", aggregate="daam").explain(Prompted(Staring()))
    longer = Prompted(Staring())
    longer.tokens = lambda players: {6: (torch.tensor([5]),) * 3}
    with pytest.raises(Unsupported, match="the text of 6 tokens is none of the network's arguments"):
        Attention("words").explain(longer)
    longer.tokens = lambda players: {5: (torch.tensor([], dtype=torch.int64),) * 3}
    with pytest.raises(Unsupported, match="none of the words has a token"):
        Attention("words").explain(longer)
    with pytest.raises(Unsupported, match="those of a network of images"):
        Attention("words").explain(
            explain.wrap(built("text to video")).trajectory(**asked("text to video", payoff=ink))
        )
    with pytest.raises(ValueError, match="branch must be"):
        Attention("words", branch="negative")


def test_the_pipeline_and_the_random_state_are_left_alone():
    run = run_of("sd")
    before, state = run.picture().clone(), torch.get_rng_state()
    one, other = Attention("words").explain(run), Attention("words").explain(run)
    assert torch.equal(one.scores, other.scores)
    assert torch.equal(run.run()[0], before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in run.module.modules())


def test_layers_that_cannot_be_seen_are_named():
    pipeline = copy.deepcopy(built("sd"))
    pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(AttnProcessor())  # written out
    run = explain.wrap(pipeline).trajectory(**asked("sd"), payoff=ink)
    with pytest.warns(UserWarning, match="attention of 1 layers cannot be seen, and is missing: mid_block.att"):
        found = Attention("words").explain(run)
    assert found.checks["unseen_layers"] == ["mid_block.attentions.0.transformer_blocks.0.attn2"]
    assert len(found.checks["layers"]) == 3
    assert Attention("words").explain(run_of("sd3")).checks["unseen_layers"] == []


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("perturbed attention", {}),
        ("sd3", {"steps": 3, "skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.6}),
    ],
)
def test_what_guidance_perturbs_is_told_apart_from_the_prompt_s_branch(name, changed):
    """Perturbed attention is a third row of a call; with skipped layers the prompt is asked once more at some steps."""
    run = explain.wrap(built(name)).trajectory(**asked(name, payoff=ink, negative=None, **changed))
    with capture(run.module, lambda a: (a.module, a.step, a.branches(), a.weights)) as found:
        run.run()
    again = [one for one in found if "perturbed" in one[2]]
    assert {branch for one in found for branch in one[2]} == {"uncond", "cond", "perturbed"}
    if name == "sd3":
        assert {step for _, step, _, _ in again} == {run.timesteps[1]}
        assert {module for module, _, _, _ in again} == {"transformer_blocks.0.attn"}
    else:  # the layers whose attention is perturbed compute none for that row
        assert {module.split(".")[0] for module, _, branches, _ in found if len(branches) == 2} == {"mid_block"}
    plain, perturbed = (Attention("words", branch=branch).explain(run) for branch in (None, "perturbed"))
    assert plain.checks["branches"] == ["cond"]
    assert torch.equal(plain.scores, Attention("words", branch="cond").explain(run).scores)
    assert perturbed.checks["branches"] == ["perturbed"]
    assert not torch.equal(plain.scores, perturbed.scores)
