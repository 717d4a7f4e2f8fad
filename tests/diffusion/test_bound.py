"""The variational bound, term by term: against closed forms, the exact density, and in every parameterisation."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusion_cases import digits_like, unet_model
from reference.diffusion import chain_density, gaussian_bound

import explain
from explain.diffusion.bound import chain, error_weights
from explain.diffusion.model import DiffusionModel
from explain.occlusion import Occlusion
from explain.shapley import Shapley

MEAN, VARIANCE = torch.tensor([0.3, -0.5]), torch.tensor([0.5, 0.05])
X0 = torch.tensor([0.8, -0.2])


def _schedule(steps):
    """``a^2`` with ``log SNR`` evenly from 8 to -8, and its betas."""
    kept = torch.linspace(8, -8, steps, dtype=torch.float64).sigmoid()
    return kept, 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])


def _exact(process, kind):
    """``E[x0 | x_t]`` of ``N(MEAN, VARIANCE)``, said in any parameterisation, as a network of (x_t, t)."""

    def net(x, t):
        a, s = process.levels(t, x)
        k = a * VARIANCE / (a**2 * VARIANCE + s**2)
        clean = MEAN + k * (x - a * MEAN)
        noise = (x - a * clean) / s
        return {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": a * noise - s * clean,
            "flow_prediction": noise - clean,
        }[kind]

    return net


def _model(steps, kind="epsilon", draws=1):
    _, betas = _schedule(steps)
    shell = DiffusionModel(lambda x, t: x, betas=betas, time="step", prediction_type=kind)
    return explain.wrap(_exact(shell.process, kind), betas=betas, time="step", prediction_type=kind, shape=(2,))


def _per_coordinate(reference, steps):
    kept = _schedule(steps)[0].tolist()
    return [reference(kept, float(x), float(m), float(v)) for x, m, v in zip(X0, MEAN, VARIANCE, strict=True)]


def test_the_sum_over_all_steps_is_the_bound_on_the_exact_density():
    exact = float(torch.distributions.Normal(MEAN.double(), VARIANCE.double().sqrt()).log_prob(X0.double()).sum())
    bounds = {}
    for steps in (20, 400, 800):
        bounds[steps] = sum(map(sum, _per_coordinate(gaussian_bound, steps)))
        assert bounds[steps] < sum(_per_coordinate(chain_density, steps))  # Jensen's inequality, of the very chain
    assert 0 < exact - bounds[800] < exact - bounds[400] < 0.5 < exact - bounds[20]
    # as the steps grow the chain is the data's own reverse process: what is missing falls by their number
    assert 2 * bounds[800] - bounds[400] == pytest.approx(exact, abs=0.01)
    step = _model(20).step(X0, range(20), payoff="elbo", draws=200)
    each = torch.stack([_one_draw(step, k) for k in range(200)])
    assert step.value() == pytest.approx(float(each.mean()), rel=1e-4)
    assert step.value() == pytest.approx(bounds[20], abs=5 * float(each.std()) / 200**0.5)


def _one_draw(step, k):
    """The bound of one draw of each step, written out."""
    steps, draws = len(step.steps), step.draws
    kept = _schedule(steps)[0]
    rows = torch.arange(steps) * draws + k
    x, e = step.noised[rows].double(), step.noise[rows].double()
    a, s = kept.sqrt()[:, None], (1 - kept).sqrt()[:, None]
    gain = a * VARIANCE / (a**2 * VARIANCE + s**2)
    errors = (MEAN + gain * (x - a * MEAN) - X0).square().sum(1)
    ratio = kept / (1 - kept)
    before = torch.cat([2 * ratio[:1], ratio[:-1]])  # of the first step the reconstruction: SNR / 2
    fixed = -math.log(2 * math.pi / float(ratio[0])) - 0.5 * float(
        kept[-1] * X0.square().sum() + 2 * (-kept[-1] - (1 - kept[-1]).log())
    )
    assert e.shape == x.shape
    return -(0.5 * (before - ratio) * errors).sum() + fixed


def test_terms_are_the_closed_forms():
    steps = 20
    step = _model(steps).step(X0, range(steps), payoff="elbo", draws=4000)
    expected = torch.tensor(_per_coordinate(gaussian_bound, steps), dtype=torch.float64).sum(0)
    torch.testing.assert_close(step.terms(), expected, rtol=0.1, atol=0.02)
    assert float(step.terms().sum()) == pytest.approx(step.value(), rel=1e-6)
    assert step.describe()["assumed"]["elbo"].startswith("nats, of the density of x0 as given: steps 0 to 19")


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
def test_every_parameterisation_has_the_same_bound(kind):
    one, other = (_model(20, k).step(X0, range(20), payoff="elbo") for k in ("epsilon", kind))
    torch.testing.assert_close(one.terms(), other.terms(), rtol=1e-3, atol=1e-3)


def test_the_bound_of_flows_and_of_edm():
    """The bound hangs on ``SNR`` alone: a schedule with the same ratios has the same error terms."""
    flow = FlowMatchEulerDiscreteScheduler(20)
    edm = EDMEulerScheduler(num_train_timesteps=20, sigma_data=0.7)
    exact = float(torch.distributions.Normal(MEAN.double(), VARIANCE.double().sqrt()).log_prob(X0.double()).sum())
    shells = {
        "flow": DiffusionModel(lambda x, t: x, scheduler=flow, time="step"),
        "edm": DiffusionModel(lambda x, t: x, scheduler=edm, time="log_sigma"),
    }
    flows = explain.wrap(_exact(shells["flow"].process, "flow_prediction"), scheduler=flow, time="step")

    def denoised(x, sigma):
        gain = VARIANCE / (VARIANCE + sigma.view(-1, 1) ** 2)
        return MEAN + gain * (x - MEAN)

    sharp = explain.wrap(denoised, scheduler=edm, time="sigma", prediction_type="sample")
    for model in (flows, sharp):
        first, last = chain(model.process)
        step = model.step(X0, range(first, last + 1), payoff="elbo", draws=20)
        ratio = model.process.sigma(torch.arange(first, last + 1)) ** -2
        noisy = X0 + ratio[:, None, None] ** -0.5 * step.noise.double().view(len(ratio), 20, 2)
        gain = VARIANCE / (VARIANCE + 1 / ratio[:, None, None])  # of x0 on x0 + sigma e
        errors = (MEAN + gain * (noisy - MEAN) - X0).square().sum(2).mean(1)
        before = torch.cat([2 * ratio[:1], ratio[:-1]])
        expected = -0.5 * (before - ratio) * errors
        expected[0] -= math.log(2 * math.pi / float(ratio[0]))
        a, s = (level.double() for level in model.process.levels(torch.tensor([last]), X0[None].double()))
        expected[-1] -= 0.5 * float(a**2 * X0.square().sum() + 2 * (s**2 - 1 - (s**2).log()))
        torch.testing.assert_close(step.terms(), expected, rtol=1e-3, atol=1e-3)
        assert float(expected.sum()) < exact
    with pytest.raises(ValueError, match=r"whole steps 1 to 19, those with noise and signal, got 20"):
        flows.step(X0, 20, payoff="elbo")


def test_steps_of_the_bound_are_players():
    step = _model(20).step(X0, [0, 5, 19], payoff="elbo", draws=3)
    for explainer in (Shapley("steps"), Occlusion("steps")):
        why = explainer.explain(step)
        torch.testing.assert_close(why.scores, step.terms())
    assert why.players.names == ("t=0", "t=5", "t=19")
    assert (why.value, why.base) == (pytest.approx(step.value()), 0)
    torch.testing.assert_close(sum(part.terms() for part in step.each_step()).sum(), step.terms().sum())
    coordinates = _model(20).step(X0, [0, 5, 19], payoff="elbo", fill="zeros")
    credit = Shapley("coordinates").explain(coordinates)
    single = [Shapley("coordinates").explain(one).scores for one in coordinates.each_step()]
    torch.testing.assert_close(credit.scores, torch.stack(single).sum(0))  # linear in the number
    error = unet_model().step(digits_like()[0], [10, 50], 3)
    torch.testing.assert_close(error.terms().sum(), torch.tensor(error.value(), dtype=torch.float64))


def test_weights_are_those_of_the_image_error():
    model, image = unet_model(), digits_like()[0]
    kept = model.scheduler.alphas_cumprod.double()
    ratio = kept / (1 - kept)
    t, before = torch.tensor([1, 10, 90]), torch.tensor([0, 9, 89])
    plain = torch.stack([model.step(image, int(k), 3).terms()[0] for k in t])
    assert float(plain.max()) < 0
    expected = {
        "snr": plain,
        "min_snr": plain * ratio[t].clamp_max(5) / ratio[t],
        "elbo": plain * 0.5 * (ratio[before] - ratio[t]) / ratio[t],
    }
    for name, each in expected.items():
        for k, value in zip(t, each, strict=True):
            found = model.step(image, int(k), 3, weights=name)
            assert found.value() == pytest.approx(float(value), rel=1e-4)
            assert found.describe()["weights"] == name
    own = model.step(image, 10, 3, weights=lambda t: t.double())
    assert own.value() == pytest.approx(float(plain[1] * 10 / ratio[10]), rel=1e-4)
    both = model.step(image, [10, 90], 3, weights="min_snr", payoff="evidence")
    parts = [2 * float(term) for term in model.step(image, [10, 90], 3, payoff="evidence").terms()]
    shares = ratio[[10, 90]].clamp_max(5) / ratio[[10, 90]]
    assert both.value() == pytest.approx(float(shares @ torch.tensor(parts, dtype=torch.float64)) / 2, rel=1e-4)
    bound = model.step(image, [10, 90], 3, payoff="elbo")
    alike = model.step(image, [10, 90], 3, weights="elbo")
    assert bound.value() == pytest.approx(2 * alike.value(), rel=1e-4)  # summed, not averaged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "p2"}, "weights must be one of snr, min_snr, elbo, or a function"),
        ({"weights": "snr", "payoff": "x0"}, "weights are of squared errors"),
        ({"weights": "snr", "payoff": "elbo"}, "which has its own weights"),
        ({"weights": lambda t: 1.0}, r"one finite number for each step, \[4\], got float"),
    ],
)
def test_weights_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        unet_model().step(digits_like()[0], 10, 3, **options).value()


def test_a_step_without_signal_has_no_error_of_the_image():
    scheduler = DDIMScheduler(100, rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False)
    model = explain.wrap(lambda x, t: x, scheduler=scheduler, time="step")
    assert chain(model.process) == (0, 98)
    with pytest.raises(ValueError, match="at t=99 there is no signal"):
        model.step(digits_like()[0], 99, weights="min_snr").value()
    assert float(error_weights(None, model.process, torch.tensor([99]))) == 1


def test_training_images_of_the_bound():
    image = digits_like()[0]
    step = unet_model(draws=2).step(image, [10, 50], 3, payoff="elbo", draws=1)
    train = (digits_like(3, seed=1), torch.tensor([0, 1, 2]))
    objective = step.objective(train)
    assert float(objective.measurement(objective.params)) == pytest.approx(step.value(), rel=1e-5)
