"""Cold diffusion: steps and runs beside the paper's algorithms written by hand, and what is refused in words."""

import pytest
import torch
from diffusion_cases import digits_like, tiny_net
from torch.nn import functional as F

import explain
from explain.diffusion.cold import Cold
from explain.shapley import Shapley
from explain.types import Unsupported

STEPS = 8
KERNEL = torch.ones(1, 1, 3, 3) / 9


def blur(x, t):
    """``t`` box blurs of each row."""
    out = x
    for i in range(1, STEPS + 1):
        blurred = F.conv2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), KERNEL)
        out = torch.where((t >= i).view(-1, 1, 1, 1), blurred, out)
    return out


def fade(x, t):
    """A straight line in ``t`` to a picture of its own."""
    goal = torch.linspace(-1, 1, x[0].numel()).view(1, *x.shape[1:])
    return x + (t / STEPS).view(-1, 1, 1, 1) * goal


def model(degrade=blur, sampling="improved", net=None):
    cold = Cold(degrade, STEPS, sampling)
    return explain.wrap(net or tiny_net(), scheduler=cold, time="step", null=10, shape=(1, 8, 8))


def middle(samples):
    return samples[:, :, 3:5, 3:5].mean((1, 2, 3))


def by_hand(net, x, label, guidance, sampling, times):
    """Algorithms 1 and 2 of Bansal et al. 2022, with classifier-free guidance of the restorer at each step."""
    with torch.no_grad():
        for t, s, w in zip(times, [*times[1:], 0], guidance, strict=True):
            c, u = (net(x, torch.tensor([t]), torch.tensor([y])).sample for y in (label, 10))
            clean = u + w * (c - u)
            less = blur(clean, torch.tensor([s]))
            x = less if sampling == "naive" else x - blur(clean, torch.tensor([t])) + less
    return x


@pytest.mark.parametrize("sampling", ["improved", "naive"])
def test_runs_are_the_papers_algorithms(sampling):
    start = blur(digits_like(), torch.tensor([STEPS]))
    run = model(sampling=sampling).trajectory(3, payoff=middle, steps=4, guidance=2.0, latents=start)
    assert run.timesteps == [8, 6, 4, 2]
    expected = by_hand(tiny_net(), start, 3, [2] * 4, sampling, [8, 6, 4, 2])
    assert run.value() == pytest.approx(float(middle(expected)), rel=1e-5)
    assert run.describe()["assumed"]["sampling"].startswith(sampling)


def test_an_absent_step_restores_without_the_label():
    start = blur(digits_like(), torch.tensor([STEPS]))
    run = model().trajectory(3, payoff=middle, steps=3, guidance=2.0, latents=start)
    values = run.game("steps")(torch.tensor([[True, False, True], [False, True, False]]))
    expected = [by_hand(tiny_net(), start, 3, w, "improved", [8, 5, 3]) for w in ([2, 0, 2], [0, 2, 0])]
    assert values.tolist() == pytest.approx([float(middle(one)) for one in expected], rel=1e-5)
    assert Shapley("steps").explain(run).checks["efficiency_gap"] < 1e-9


def test_improved_sampling_is_exact_for_straight_degradations_whatever_the_restorer():
    x0 = digits_like()
    run = model(fade).trajectory(3, payoff=middle, steps=STEPS, latents=fade(x0, torch.tensor([STEPS])))
    step = run.model.scheduler
    x = fade(x0, torch.tensor([STEPS]))
    for t in range(STEPS, 1, -1):
        x = step.step(torch.randn(1, 1, 8, 8), t, x).prev_sample
        assert torch.allclose(x, fade(x0, torch.tensor([t - 1])), atol=1e-5)


def test_a_step_is_measured_in_the_picture():
    x0, net = digits_like()[0], tiny_net()
    step = model().step(x0, t=[2, 7], label=3)
    with torch.no_grad():
        found = [net(blur(x0[None], torch.tensor([t])), torch.tensor([t]), torch.tensor([3])).sample for t in (2, 7)]
    assert step.value() == pytest.approx(-sum(float((x0 - one[0]).square().sum()) for one in found) / 2, rel=1e-5)
    assert len(step.noised) == 2  # one draw a step: they are all alike


def test_absent_patches_show_the_fill_as_degraded():
    x0, net = digits_like()[0], tiny_net()
    step = model().step(x0, t=5, label=3, fill="zeros")
    patches = step.players("patches", size=4)
    value = step.game(patches)(torch.tensor([[True, False, False, False]]))
    seen = torch.zeros(1, 1, 8, 8)
    seen[..., :4, :4] = blur(x0[None], torch.tensor([5]))[..., :4, :4]
    with torch.no_grad():
        found = net(seen, torch.tensor([5]), torch.tensor([3])).sample[0]
    assert float(value) == pytest.approx(-float((x0 - found).square().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda m, x: m.trajectory(3, payoff=middle, steps=4), ValueError, "latents="),
        (lambda m, x: m.step(x, t=0, label=3), ValueError, "from 1 to 8"),
        (lambda m, x: m.step(x, t=2, label=3, payoff="elbo"), Unsupported, "bound"),
        (lambda m, x: m.step(x, t=2, label=3, weights="min_snr").value(), Unsupported, "signal and noise"),
        (lambda m, x: m.step(x, t=2, label=3, fill="noise"), Unsupported, "noise"),
        (lambda m, x: m.invert(x, 3, steps=4), Unsupported, "inversion"),
    ],
)
def test_what_has_no_noise_is_asked_nothing_of_noise(ask, error, words):
    with pytest.raises(error, match=words):
        ask(model(), digits_like()[0])


@pytest.mark.parametrize(
    ("degrade", "words"),
    [
        (lambda x, t: x + torch.randn_like(x), "second call"),
        (lambda x, t: x * 0.5, "must be x itself"),
        (lambda x, t: x * (1 - t[0] / 10), "for row i"),
        (lambda x, t: x[:, :, :4], "same shape"),
    ],
)
def test_degradations_are_tried(degrade, words):
    with pytest.raises(ValueError, match=words):
        model(degrade).step(digits_like()[0], t=2, label=3)
    with pytest.raises(ValueError, match=words):
        model(degrade).trajectory(3, payoff=middle, steps=2, latents=digits_like())
