"""Steps of runs without a condition: an absent one does not ask the network, and no sampler changes."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusion_cases import STEPS
from torch import nn

from explain.diffusion.model import DiffusionModel
from explain.shapley import Shapley
from explain.types import Unsupported


class Net(nn.Module):
    """Answers differently at every step and counts its rows."""

    rows = 0

    def forward(self, x, t):
        Net.rows += len(x)
        return torch.tanh(x.roll(1, -1) + t.view(-1, 1, 1, 1) / STEPS)


def _mean(x):
    return x.mean((1, 2, 3))


def _masks(steps):
    return torch.tensor([[bool(code >> i & 1) for i in range(steps)] for code in range(2**steps)])


def _by_hand(run, mask, scheduler, kind):
    """One coalition of one draw, with the schedulers' own arithmetic."""
    process = run.model.process
    scheduler.set_timesteps(run.steps)
    x, clean = run.start[:1] * getattr(scheduler, "init_noise_sigma", 1.0), torch.zeros_like(run.start[:1])
    generator = torch.Generator().manual_seed(run.seed ^ 0x5DEECE66)
    for asked, t in zip(mask, scheduler.timesteps, strict=True):
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        place = run.place(t).reshape(1)
        a, s = process.levels(place, x)
        if asked:
            with torch.no_grad():
                prediction = run.model.denoiser(seen, place)
            clean = process.clean(seen, prediction, place)
        else:
            noise = (seen - a * clean) / s
            prediction = {
                "epsilon": noise,
                "flow_prediction": noise - clean,
                "edm": s / 0.5 * clean - 0.5 * a * noise,
            }[kind]
        more = {"generator": generator} if isinstance(scheduler, DDPMScheduler) else {}
        x = scheduler.step(prediction, t, x, **more).prev_sample
    return float(x.mean())


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize(
    ("make", "time", "kind"),
    [
        (lambda: DDIMScheduler(STEPS, clip_sample=False), "step", "epsilon"),
        (lambda: DDPMScheduler(STEPS), "step", "epsilon"),
        (lambda: FlowMatchEulerDiscreteScheduler(STEPS), "step", "flow_prediction"),
        (lambda: EDMEulerScheduler(num_train_timesteps=STEPS), "log_sigma", "edm"),
    ],
)
def test_every_coalition_of_steps_is_as_written_out(make, time, kind):
    model = DiffusionModel(Net(), scheduler=make(), time=time, shape=(1, 2, 4))
    run = model.trajectory(steps=3, payoff=_mean, seed=2)
    values = run.game("steps")(_masks(3))
    expected = [_by_hand(run, mask.tolist(), make(), kind) for mask in _masks(3)]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=1e-4)
    assert float(values[-1]) == pytest.approx(run.value(), rel=1e-5)


def test_who_never_looks_makes_the_middle_grey():
    model = DiffusionModel(Net(), scheduler=DDIMScheduler(STEPS, clip_sample=False), time="step", shape=(1, 2, 4))
    run = model.trajectory(steps=4, payoff=_mean)
    why = Shapley("steps").explain(run)
    assert why.base == pytest.approx(0, abs=1e-6)
    assert why.checks["removal"] == "the image foreseen before, zeros at first"
    assert float(why.scores.sum()) == pytest.approx(why.value, rel=1e-4)
    game = run.game("steps")
    Net.rows = 0
    game(_masks(4))
    assert Net.rows == 1 + 2 + 4 + 8  # of all that look at a step, those that have looked alike are one row
    with pytest.raises(Unsupported, match="plays with 'steps' or 'noise' alone"):
        run.game(run.players("guidance"))
