"""Games on steps and runs: batched as one by one, exact as brute force, planted causes found."""

import functools

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusion_cases import STEPS, Counting, Planted, digits_like, tiny_net, tiny_unet, unet_model
from reference.diffusion import ddim, step_error
from reference.shapley import by_weight_vector

from explain.diffusion.model import DiffusionModel
from explain.gradient import Gradient
from explain.lime import Lime
from explain.shapley import Shapley
from explain.types import Players, Unsupported


@pytest.fixture(scope="module")
def model():
    return unet_model()


def _all_masks(players):
    return torch.tensor([[code >> i & 1 for i in range(players)] for code in range(2**players)], dtype=torch.bool)


def _twelve(step):
    """Twelve players: the sixteen 2 x 2 patches, the four corners never absent."""
    patches = step.players("patches", size=2)
    inner = [i for i in range(16) if i not in (0, 3, 12, 15)]
    groups = tuple(patches.groups[i] for i in inner)
    return Players("patches", torch.tensor(inner), (), groups, patches.geometry)


def test_pictures_of_steps_and_runs_are_what_the_network_saw_and_implied(model):
    """``x0_hat = (x_t - s e) / a`` by hand, of what was seen."""
    image, levels = digits_like()[0], model.scheduler.alphas_cumprod
    step = model.step(image, t=40, label=3, draws=2)
    run = model.trajectory(label=3, steps=4, payoff=lambda x: x.mean((1, 2, 3)), draws=1)
    net = step.module.net
    assert torch.equal(step.states(), step.noised[:1])
    for target, times in ((step, [40.0]), (run, run.timesteps)):
        for x, t, foreseen in zip(target.states(), times, target.images(), strict=True):
            with torch.no_grad():
                noise = net(x[None], torch.tensor([int(t)]), class_labels=torch.tensor([3])).sample[0]
            a = levels[int(t)]
            torch.testing.assert_close(foreseen, (x - (1 - a).sqrt() * noise) / a.sqrt(), rtol=1e-4, atol=1e-4)


def test_exact_patch_values_equal_brute_force_one_by_one():
    model = DiffusionModel(tiny_net(), time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10)
    image = digits_like()[0]
    step = model.step(image, t=40, label=3, draws=1, fill="zeros")
    players = _twelve(step)
    why = Shapley(players).explain(step)
    alphas = model.scheduler.alphas_cumprod
    draws = [(40, step.noise[0])]
    table = []
    for mask in _all_masks(12):
        kept = torch.ones(64, dtype=torch.bool)
        for group, present in zip(players.groups, mask, strict=True):
            kept[group] = present
        table.append(step_error(model.denoiser.net, alphas, image, kept.view(8, 8), torch.zeros(8, 8), draws, 3))
    expected = by_weight_vector(torch.tensor(table, dtype=torch.float64))
    torch.testing.assert_close(why.scores, expected, rtol=1e-4, atol=1e-4)
    assert why.checks["estimator"] == "exact"
    assert abs(float(why.scores.sum()) - (why.value - why.base)) <= 1e-5 * abs(why.value)


@pytest.mark.parametrize("kind", ["patches", "superpixels", "labels"])
def test_batch_size_never_matters(model, kind):
    values = []
    for size in (None, 1, 3):
        step = model.step(digits_like()[0], t=[20, 60], label=3, guidance=2.0, batch_size=size)
        game = step.game(kind)
        masks = torch.rand(7, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.5
        values.append(game(masks))
    for other in values[1:]:
        torch.testing.assert_close(other, values[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("payoff", ["error", "evidence", "norm", "x0", lambda clean: clean.amax((1, 2, 3))])
def test_every_payoff_is_its_formula(model, payoff):
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[2:5, 1:4] = True
    image = digits_like()[0]
    step = model.step(image, t=30, label=3, draws=2, payoff=payoff, region=region)
    a = model.scheduler.alphas_cumprod[30]
    values = []
    for e in step.noise:
        x = a.sqrt() * image + (1 - a).sqrt() * e
        with torch.no_grad():
            c, u = (model.denoiser.net(x[None], 30, torch.tensor([k])).sample[0] for k in (3, 10))
        clean = (x - (1 - a).sqrt() * c) / a.sqrt()
        if callable(payoff):
            values.append(float(payoff(clean[None])))
        else:
            squares = {"error": -((e - c) ** 2), "evidence": (e - u) ** 2 - (e - c) ** 2, "norm": c**2, "x0": clean}
            found = squares[payoff][:, region]
            values.append(float(found.mean() if payoff == "x0" else found.sum()))
    assert step.value() == pytest.approx(sum(values) / 2, rel=1e-4)


def test_planted_patch_and_label_get_all_the_credit():
    model = DiffusionModel(Planted(), time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10)
    step = model.step(digits_like()[0], t=50, label=3, payoff="norm", fill="zeros")
    for explainer in (Shapley("patches"), Lime("patches", seed=0)):
        credit = explainer.explain(step).scores
        planted = int(step.players("patches").geometry["labels"][4, 4])
        others = torch.arange(len(credit)) != planted
        assert credit[planted].abs() > 1e-3
        assert (credit[others].abs() < 1e-5 * credit[planted].abs()).all()
    labels = {
        label: Shapley("labels").explain(model.step(digits_like()[0], t=50, label=label, payoff="norm"))
        for label in (3, 4)
    }
    assert abs(float(labels[3].scores[0])) > 1e-3
    assert float(labels[4].scores[0]) == 0


def test_common_noise_lowers_the_variance_tenfold(model):
    """The value of a patch, measured with common draws and with draws of its own for each coalition."""
    image = digits_like()[0]
    common, independent = [], []
    for seed in range(24):
        step = model.step(image, t=50, label=3, seed=seed, draws=2)
        other = model.step(image, t=50, label=3, seed=1000 + seed, draws=2)
        mask = torch.ones(1, 16, dtype=torch.bool)
        mask[0, 5] = False
        with_patch, without = step.value(), float(step.game("patches")(mask)[0])
        common.append(with_patch - without)
        independent.append(other.value() - without)
    ratio = torch.tensor(independent).var() / torch.tensor(common).var()
    assert ratio >= 10


def test_the_null_branch_is_evaluated_once():
    """With and without the label on the same image: one conditional and one unconditional pass a draw."""
    net = Counting(tiny_unet())
    model = DiffusionModel(
        net, time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, shape=(1, 8, 8)
    )
    step = model.step(digits_like()[0], t=50, label=3, guidance=3.0, draws=4)
    game = step.game("labels")
    net.tally.rows = net.tally.null_rows = 0
    game(torch.tensor([[True], [False], [True], [False]]))
    assert (net.tally.rows, net.tally.null_rows) == (8, 4)


def test_runs_that_agree_so_far_are_one_row():
    net = Counting(tiny_unet())
    model = DiffusionModel(
        net, time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, shape=(1, 8, 8)
    )
    target = model.trajectory(label=3, steps=4, guidance=2.0, payoff=lambda x: x.mean((1, 2, 3)))
    game = target.game("guidance")
    net.tally.rows = net.tally.null_rows = 0
    game(_all_masks(4))
    assert net.tally.rows - net.tally.null_rows == 1 + 2 + 4 + 8
    assert net.tally.null_rows == 1 + 2 + 4 + 8  # only rows that are guided need the other branch: one of each pair


def test_a_run_is_ddim_written_out(model):
    target = model.trajectory(label=3, steps=5, guidance=2.5, payoff=lambda x: x.mean((1, 2, 3)), seed=7)
    scheduler = DDIMScheduler(STEPS, clip_sample=False)
    scheduler.set_timesteps(5)
    times = scheduler.timesteps.tolist()
    game = target.game("guidance")
    masks = torch.tensor([[True] * 5, [False] * 5, [True, False, True, False, True]])
    for mask, value in zip(masks, game(masks), strict=True):
        weights = [2.5 if on else 1.0 for on in mask]
        x = ddim(model.denoiser.net, _final(scheduler), target.start[0], 3, 10, weights, times)
        assert float(value) == pytest.approx(float(x.mean()), rel=1e-3, abs=1e-5)


def _final(scheduler):
    """The schedule, whose very last step ends at the scheduler's final level."""
    alphas = scheduler.alphas_cumprod.clone()
    if scheduler.config.set_alpha_to_one:
        alphas[0] = 1.0
    return alphas


SCHEDULERS = {
    "DDIM": lambda: DDIMScheduler(STEPS),
    "DDPM": lambda: DDPMScheduler(STEPS),
    "PNDM": lambda: PNDMScheduler(STEPS, skip_prk_steps=True),
    "PNDM with Runge-Kutta": lambda: PNDMScheduler(STEPS),
    "Euler": lambda: EulerDiscreteScheduler(STEPS),
    "Euler ancestral": lambda: EulerAncestralDiscreteScheduler(STEPS),
    "Heun": lambda: HeunDiscreteScheduler(STEPS),
    "DPM++": lambda: DPMSolverMultistepScheduler(STEPS),
    "DPM++ SDE": lambda: DPMSolverMultistepScheduler(STEPS, algorithm_type="sde-dpmsolver++"),
    "UniPC": lambda: UniPCMultistepScheduler(STEPS),
    "LMS": lambda: LMSDiscreteScheduler(STEPS),
    "DEIS": lambda: DEISMultistepScheduler(STEPS),
    "flow matching": lambda: FlowMatchEulerDiscreteScheduler(STEPS, shift=3.0),
}


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", ["steps", "guidance", "labels"])
def test_schedulers_with_memory_answer_together_as_alone(name, kind):
    scheduler = SCHEDULERS[name]()
    model = DiffusionModel(tiny_unet(), scheduler=scheduler, null=10)
    target = model.trajectory(label=3, steps=4, guidance=2.0, payoff=lambda x: x.mean((1, 2, 3)), draws=2)
    before = dict(vars(scheduler))
    game = target.game(kind)
    masks = torch.rand(5, len(game.players), generator=torch.Generator().manual_seed(0)) < 0.5
    together = game(masks)
    alone = torch.cat([game(mask[None]) for mask in masks])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert game.ends()[1] == pytest.approx(target.value(), rel=1e-5, abs=1e-6)
    assert len(target.timesteps) == 4
    assert target.images().shape == (4, 1, 8, 8)
    assert vars(scheduler).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(scheduler).items())  # the user's scheduler has not moved


def test_steps_share_the_whole_change(model):
    target = model.trajectory(label=3, steps=6, guidance=3.0, payoff=lambda x: x.mean((1, 2, 3)))
    why = Shapley("steps").explain(target)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-6)
    assert list(why.players.names) == [f"t={t:g}" for t in target.timesteps]
    coarse = target.players("steps", size=2)
    assert [group.tolist() for group in coarse.groups] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("fill", ["mean", "reference", "zeros"])
def test_fills_keep_the_noise_of_the_step(model, fill):
    reference = digits_like(5, seed=3)
    step = model.step(digits_like()[0], t=60, label=3, draws=3, fill=fill, reference=reference)
    a = model.scheduler.alphas_cumprod[60]
    clean = (step.absent - (1 - a).sqrt() * step.noise) / a.sqrt()
    if fill == "mean":
        torch.testing.assert_close(clean, reference.mean(0).expand_as(clean), rtol=1e-3, atol=1e-4)
    elif fill == "zeros":
        assert clean.abs().max() < 1e-4
    else:
        assert all(any(torch.allclose(row, image, atol=1e-3) for image in reference) for row in clean)


def test_players_that_do_not_fit(model):
    step = model.step(digits_like()[0], t=40, label=3)
    with pytest.raises(Unsupported, match="a step plays with"):
        step.game(Players("nodes", torch.arange(2)))
    with pytest.raises(ValueError, match="plays as patches or superpixels or coordinates"):
        step.players("nodes")
    unconditional = DiffusionModel(lambda x, t: x * 0, time="step", betas=torch.full((10,), 0.1), shape=(1, 8, 8))
    run = unconditional.trajectory(steps=3, payoff=lambda x: x.mean((1, 2, 3)))
    with pytest.raises(Unsupported, match="without a condition"):
        run.game("guidance")


def test_the_noise_of_the_steps_is_not_the_starting_noise_again(monkeypatch):
    """In the type that the starting noise is drawn in, the same stream would give the very same numbers."""
    met = []
    plain = DDPMScheduler.step

    @functools.wraps(plain)
    def watched(self, prediction, t, x, **options):
        shape = x.shape[1:]
        met.append([torch.randn(shape, generator=g.clone_state(), dtype=x.dtype) for g in options["generator"]])
        return plain(self, prediction, t, x, **options)

    monkeypatch.setattr(DDPMScheduler, "step", watched)
    model = DiffusionModel(tiny_net().double(), time="step", scheduler=DDPMScheduler(STEPS), shape=(1, 8, 8))
    run = model.trajectory(label=3, steps=3, payoff=lambda x: x.mean((1, 2, 3)), draws=2)
    run.value()
    for start, noise in zip(run.start, met[0], strict=True):
        correlation = torch.corrcoef(torch.stack([start.flatten(), noise.flatten()]))[0, 1]
        assert correlation.abs() < 0.4
    assert not torch.equal(met[0][0], met[0][1])


def test_evidence_under_guidance_asks_the_null_branch_once():
    net = Counting(tiny_unet())
    model = DiffusionModel(
        net, time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, shape=(1, 8, 8)
    )
    step = model.step(digits_like()[0], t=50, label=3, guidance=3.0, payoff="evidence", draws=4)
    net.tally.rows = net.tally.null_rows = 0
    step.game("patches")(torch.ones(3, 16, dtype=torch.bool))
    assert (net.tally.rows, net.tally.null_rows) == (24, 12)


def test_gradients_of_some_patches_are_those_of_these_patches(model):
    step = model.step(digits_like()[0], t=40, label=3)
    every = step.players("patches", size=2)
    some = Players("patches", torch.tensor([9, 2]), (), (every.groups[9], every.groups[2]), every.geometry)
    found = Gradient(some, method="input_x_gradient").explain(step)
    expected = Gradient(every, method="input_x_gradient").explain(step).scores
    torch.testing.assert_close(found.scores, expected[[9, 2]])
    assert found.checks["unowned"] == pytest.approx(float(expected.sum() - found.scores.sum()), rel=1e-5)
    assert Shapley(some).explain(step).scores.shape == (2,)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the scheduler's own arithmetic
def test_a_schedule_that_rounds_two_steps_to_one_time_still_has_both():
    scheduler = DPMSolverMultistepScheduler(STEPS, use_karras_sigmas=True)
    model = DiffusionModel(tiny_net(), time="step", scheduler=scheduler, null=10, shape=(1, 8, 8))
    target = model.trajectory(label=3, steps=40, guidance=2.0, payoff=lambda x: x.mean((1, 2, 3)))
    assert len(set(target.timesteps)) < len(target.timesteps) == 40
    assert len(target.players("steps").names) == 40
    assert target.images().shape == (40, 1, 8, 8)
