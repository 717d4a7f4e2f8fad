"""Samples of any shape: points, signals and videos play, run and are learned from as images do."""

import math
from itertools import product

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, UNet1DModel, UNet3DConditionModel
from diffusion_cases import STEPS
from reference.shapley import by_weight_vector
from torch import nn

import explain
from explain.attention import Attention
from explain.diffusion.model import DiffusionModel
from explain.gradient import Gradient
from explain.influence import Influence
from explain.shapley import Shapley
from explain.types import Unsupported

NULL = 3


class Net(nn.Module):
    """A denoiser of samples of any shape: every number hears its neighbour, the time and the label."""

    def __init__(self, channels=1):
        super().__init__()
        torch.manual_seed(0)
        self.mixing, self.labels = nn.Linear(channels, channels), nn.Embedding(NULL + 1, 1)

    def forward(self, x, t, y):
        row = (-1, *[1] * (x.dim() - 1))
        mixed = self.mixing(x.movedim(1, -1)).movedim(-1, 1) if x.dim() > 2 else self.mixing(x)
        return torch.tanh(mixed + 0.5 * x.roll(1, -1) + self.labels(y).view(row) + (t / STEPS).view(row))


CASES = {  # shape, the size of a patch, a region over the sites, in how many patches
    "point": ((3,), 1, (slice(0, 2),), 3),
    "signal": ((2, 12), 4, (slice(3, 9),), 3),
    "image": ((2, 4, 6), (2, 3), (slice(1, 3), slice(2, 6)), 4),
    "video": ((2, 2, 4, 4), (1, 2, 4), (slice(0, 1), slice(1, 3), slice(0, 4)), 4),
}


def _scheduler():
    return DDIMScheduler(STEPS, clip_sample=False)


def _model(shape):
    channels = shape[0]
    return DiffusionModel(Net(channels), scheduler=_scheduler(), time="step", null=NULL, shape=shape, draws=2)


def _sample(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).tanh()


def _patch_of(place, size):
    each = (size,) * len(place) if isinstance(size, int) else size
    return tuple(at // one for at, one in zip(place, each, strict=True))


def _slow_value(step, net, present, size, region, reference, payoff):
    """One coalition, one draw, one number at a time; ``present``: the patches, by their place among patches, kept."""
    shape, total = step.image.shape, 0.0
    extent = shape if len(shape) == 1 else shape[1:]
    a = _scheduler().alphas_cumprod
    for t, e in zip(step.times.tolist(), step.noise, strict=True):
        shown = step.image.clone()
        for place in product(*map(range, extent)):
            if _patch_of(place, size) not in present:
                at = place if len(shape) == 1 else (slice(None), *place)
                shown[at] = reference.mean(0)[at]
        x = a[t].sqrt() * shown + (1 - a[t]).sqrt() * e
        with torch.no_grad():
            c, u = (net(x[None], torch.tensor([t]), torch.tensor([label]))[0] for label in (1, NULL))
        guided = u + 2.0 * (c - u)
        clean = (x - (1 - a[t]).sqrt() * guided) / a[t].sqrt()
        at = region if len(shape) == 1 else (slice(None), *region)
        total += float(-(e - guided)[at].square().sum() if payoff == "error" else clean[at].mean())
    return total / len(step.times)


@pytest.mark.parametrize("payoff", ["error", "x0"])
@pytest.mark.parametrize("case", CASES)
def test_every_coalition_is_as_one_by_one(case, payoff):
    shape, size, where, count = CASES[case]
    model, reference = _model(shape), torch.stack([_sample(shape, seed) for seed in (1, 2)])
    region = torch.zeros(shape if len(shape) == 1 else shape[1:], dtype=torch.bool)
    region[where] = True
    step = model.step(
        _sample(shape), [20, 60], 1, draws=2, guidance=2.0, payoff=payoff, region=region, reference=reference
    )
    players = step.players("patches", size=size)
    assert len(players) == count
    places = sorted({_patch_of(place, size) for place in product(*map(range, region.shape))})
    table = []
    for code in range(2**count):
        present = {place for i, place in enumerate(places) if code >> i & 1}
        table.append(_slow_value(step, model.denoiser.net, present, size, where, reference, payoff))
    masks = torch.tensor([[bool(code >> i & 1) for i in range(count)] for code in range(2**count)])
    expected = torch.tensor(table, dtype=torch.float64)
    torch.testing.assert_close(step.game(players)(masks), expected, rtol=1e-4, atol=1e-5)
    why = Shapley(players).explain(step)
    torch.testing.assert_close(why.scores, by_weight_vector(expected), rtol=1e-3, atol=1e-5)
    assert explain.plot.picture(why) is not None
    assert sorted(step.pixels().tolist()) == region.reshape(-1).nonzero().view(-1).tolist()


@pytest.mark.parametrize("case", CASES)
def test_runs_are_ddim_written_out(case):
    shape = CASES[case][0]
    model = _model(shape)
    run = model.trajectory(1, steps=4, guidance=2.0, payoff=lambda x: x.flatten(1).mean(1), draws=2)
    scheduler = _scheduler()
    scheduler.set_timesteps(4)
    alphas, times = scheduler.alphas_cumprod, scheduler.timesteps.tolist()
    values = []
    for on in ((1, 1, 1, 1), (0, 1, 0, 1)):
        ends = []
        for x in run.start:
            for i, t in enumerate(times):
                after = alphas[times[i + 1]] if i < 3 else torch.ones(())
                with torch.no_grad():
                    c, u = (model.denoiser.net(x[None], torch.tensor([t]), torch.tensor([y]))[0] for y in (1, NULL))
                e = u + 2.0 * (c - u) if on[i] else u
                x = after.sqrt() * (x - (1 - alphas[t]).sqrt() * e) / alphas[t].sqrt() + (1 - after).sqrt() * e
            ends.append(float(x.mean()))
        values.append(sum(ends) / 2)
    masks = torch.tensor([[True] * 4, [False, True, False, True]])
    torch.testing.assert_close(
        run.game("steps")(masks), torch.tensor(values, dtype=torch.float64), rtol=1e-3, atol=1e-4
    )
    assert run.images().shape == (4, *shape)
    assert run.value() == pytest.approx(values[0], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_training_samples_and_gradients(case):
    shape = CASES[case][0]
    train = torch.stack([_sample(shape, seed) for seed in range(4)])
    model = _model(shape)
    step = model.step(_sample(shape), 20, 1, fill="zeros")
    objective = step.objective((train, torch.tensor([0, 1, 2, 0])))
    losses = objective.train_loss(objective.params, torch.arange(4))
    noising = objective.data  # times, noise
    a = _scheduler().alphas_cumprod[noising[0]]
    expected = []
    for x0, y in zip(train, (0, 1, 2, 0), strict=True):
        errors = []
        for t, kept, e in zip(noising[0], a, noising[1], strict=True):
            x = kept.sqrt() * x0 + (1 - kept).sqrt() * e
            found = model.denoiser.net(x[None], t[None], torch.tensor([y]))[0].detach()
            errors.append(float((e - found).square().mean()))
        expected.append(sum(errors) / len(errors))
    torch.testing.assert_close(losses.detach(), torch.tensor(expected), rtol=1e-4, atol=1e-6)
    why = Gradient("patches").explain(step)
    assert len(why.scores) == len(step.players("patches"))
    influence = Influence(train=(train, torch.tensor([0, 1, 2, 0])), solver="exact", damping=0.1, curvature="ggn")
    with pytest.warns(UserWarning, match="not at a minimum"):
        credit = influence.explain(step)
    assert credit.scores.isfinite().all()


def test_points_play_by_coordinate():
    step = _model((3,)).step(_sample((3,)), 20, 1, fill="zeros")
    named = step.players("coordinates")
    assert named.names == ("coordinate 0", "coordinate 1", "coordinate 2")
    torch.testing.assert_close(Shapley(named).explain(step).scores, Shapley("patches").explain(step).scores)
    with pytest.raises(ValueError, match='fill="mean" of a point is the mean of others'):
        _model((3,)).step(_sample((3,)), 20, 1).game("coordinates").ends()
    with pytest.raises(ValueError, match=r"coordinates are of points \[D\]; a signal"):
        _model((2, 8)).step(_sample((2, 8)), 20, 1).players("coordinates")


def test_what_only_images_have():
    step = _model((2, 8)).step(_sample((2, 8)), 20, 1)
    with pytest.raises(ValueError, match=r"superpixels are of images \[C, H, W\]; a signal"):
        step.players("superpixels")
    with pytest.raises(Unsupported, match="over the pixels of images, got patches"):
        Attention("patches").explain(step)
    with pytest.raises(ValueError, match="a heat-map is of images"):
        explain.plot.heatmap(Shapley(step.players("patches", size=4)).explain(step))
    with pytest.raises(ValueError, match=r"one number for each of the 1 axes \[8\]"):
        step.players("patches", size=(2, 2))
    with pytest.raises(ValueError, match=r"region must be bool \[8\]"):
        _model((2, 8)).step(_sample((2, 8)), 20, 1, region=torch.ones(2, 8))


@pytest.mark.parametrize("shape", [(), (2, 2, 2, 2, 2), (0, 8), (1.5,), "wide"])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match=r"shape must be that of one sample, a point \[coordinates\], a signal"):
        _model((3,)).trajectory(1, payoff=lambda x: x.flatten(1).mean(1), shape=shape)


def test_what_was_read_is_said():
    net = Net(2)
    for sample, said in (
        (torch.zeros(2, 8), "a signal"),
        (torch.zeros(2, 2, 4, 4), "a video"),
        (torch.zeros(2), "a p"),
    ):
        model = explain.wrap(net, scheduler=_scheduler(), time="step", null=NULL)
        assert said in model.step(sample, 3, 1).describe()["assumed"]["shape"]
    batch = torch.zeros(4, 2, 4, 4)
    with pytest.raises(ValueError, match=r"must be one image \[2, 4, 4\], got a batch \[4, 2, 4, 4\].*x0\[i\]"):
        _model((2, 4, 4)).step(batch, 3, 1)
    plane = nn.Conv2d(1, 1, 3, padding=1)
    with pytest.raises(ValueError, match=r"of a batch of images ask about one, x0\[i\]"):
        explain.wrap(lambda x, t: plane(x), scheduler=_scheduler(), time="step").step(torch.zeros(1, 1, 4, 4), 3)


def test_diffusers_networks_of_signals_and_videos():
    torch.manual_seed(0)
    signals = UNet1DModel(
        sample_size=32,
        in_channels=2,
        out_channels=2,
        extra_in_channels=0,
        block_out_channels=(32, 32),
        layers_per_block=1,
        norm_num_groups=4,
        time_embedding_type="positional",
        down_block_types=("DownBlock1D", "DownBlock1D"),
        up_block_types=("UpBlock1D", "UpBlock1D"),
    ).eval()
    model = explain.wrap(signals, scheduler=_scheduler(), time="step")
    assert model.shape == (2, 32)
    step = model.step(_sample((2, 32)), 20)
    assert len(step.players("patches")) == 16
    assert step.game("patches").ends()[1] == pytest.approx(step.value(), rel=1e-5)
    run = model.trajectory(steps=2, payoff=lambda x: x[:, 0, :8].mean(1))
    assert math.isfinite(run.value())
    with pytest.raises(ValueError, match="channels of the network"):
        model.step(_sample((3, 32)), 20)
    torch.manual_seed(0)
    videos = UNet3DConditionModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock3D",),
        up_block_types=("UpBlock3D",),
    ).eval()
    prompt = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    model = explain.wrap(videos, scheduler=CogVideoXDDIMScheduler(STEPS, clip_sample=False), null=torch.zeros(3, 8))
    step = model.step(_sample((2, 2, 8, 8)), 20, prompt, guidance=2.0, draws=1)
    assert step.players("patches").geometry["labels"].shape == (2, 8, 8)
    game = step.game(step.players("patches", size=(1, 8, 8)))
    assert game.ends()[1] == pytest.approx(step.value(), rel=1e-5)
    film = model.trajectory(prompt, steps=3, shape=(2, 2, 8, 8), payoff=lambda x: x[:, :, 0].mean((1, 2, 3)))
    scheduler = CogVideoXDDIMScheduler(STEPS, clip_sample=False)
    scheduler.set_timesteps(3)
    x = film.start
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(videos(x, t, prompt[None]).sample, t, x).prev_sample
    torch.testing.assert_close(film.run(), x, rtol=1e-4, atol=1e-5)
