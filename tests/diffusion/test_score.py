"""The score and the probability flow, on Gaussian data, where both are known in closed form."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from explain.diffusion.process import Gaussian

TABLE = torch.linspace(0.999, 0.01, 50, dtype=torch.float64).sqrt()
MEAN, VARIANCE = 0.7, 0.3
KINDS = [("epsilon", 1.0), ("sample", 1.0), ("v_prediction", 1.0), ("edm", 0.5), ("flow_prediction", 1.0)]
T = torch.tensor([1, 20, 49])


def _process(prediction, deviation=1.0):
    return Gaussian(None if prediction == "flow_prediction" else TABLE / deviation, 50, prediction, deviation)


def _levels(process):
    """``a`` and ``s`` of `T`, written anew."""
    if process.signal is None:
        return 1 - T.double()[:, None] / 50, T.double()[:, None] / 50
    a = TABLE[T][:, None] / process.deviation
    return a, (1 - (process.deviation * a) ** 2).sqrt()


def _x():
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _best(process, x, a, s):
    """What the best model of ``x_0 ~ N(m, c)`` says: the posterior means put into the training target."""
    away = (x - a * MEAN) / (a**2 * VARIANCE + s**2)
    return process.wanted(MEAN + a * VARIANCE * away, s * away, T)


@pytest.mark.parametrize(("kind", "deviation"), KINDS)
def test_the_best_models_score_is_that_of_the_noised_gaussian_and_back(kind, deviation):
    process, x = _process(kind, deviation), _x()
    a, s = _levels(process)
    seen = x.clone().requires_grad_()
    torch.distributions.Normal(a * MEAN, (a**2 * VARIANCE + s**2).sqrt()).log_prob(seen).sum().backward()
    said = _best(process, x, a, s)
    torch.testing.assert_close(process.score(x, said, T), seen.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(process.saying_score(seen.grad, x, T), said, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "deviation"), KINDS)
@pytest.mark.parametrize("to", [kind for kind, _ in KINDS])
def test_a_conversion_says_what_the_other_model_would_and_comes_back(kind, deviation, to):
    process, x = _process(kind, deviation), _x()
    said = _best(process, x, *_levels(process))
    if to in (("v_prediction", "edm") if process.signal is None else ("flow_prediction",)):
        with pytest.raises(ValueError, match=f"to must be one of .* for this noise.*{to}"):
            process.converted(x, said, T, to)
        return
    other = replace(process, prediction=to)
    found = process.converted(x, said, T, to)
    torch.testing.assert_close(found, _best(other, x, *_levels(process)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.converted(x, found, T, kind), said, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.score(x, found, T), process.score(x, said, T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "deviation"), KINDS)
def test_along_the_flow_the_place_in_the_distribution_stays(kind, deviation):
    """``x = a m + z sqrt(a^2 c + s^2)`` with a fixed ``z``: its derivative by ``log(s / a)``, by automatic means."""
    process = _process(kind, deviation)
    a, s = _levels(process)
    z = _x()

    def path(level):
        if process.signal is None:
            own = 1 / (1 + level.exp())
        else:
            own = 1 / (level.exp() ** 2 + deviation**2).sqrt()
        return own * MEAN + z * ((own**2 * VARIANCE) + (own * level.exp()) ** 2).sqrt()

    level = (s / a).log()
    x, moved = torch.func.jvp(path, (level,), (torch.ones_like(level),))
    torch.testing.assert_close(process.flow(x, _best(process, x, a, s), T), moved, rtol=1e-9, atol=1e-9)


def test_the_flow_carries_noise_to_data():
    """Heun's steps down the flow end at the quantile of the data that they began at among the noise."""
    process = _process("epsilon")
    levels = torch.linspace(*process.sigma(torch.tensor([49, 0])).log().tolist(), 400, dtype=torch.float64)
    z = torch.tensor([[-2.0, -0.5, 0.0, 1.0]], dtype=torch.float64)

    def moments(level):
        a = 1 / (1 + level.exp() ** 2).sqrt()
        return a * MEAN, (a**2 * VARIANCE + (a * level.exp()) ** 2).sqrt()

    def slope(x, level):
        centre, spread = moments(level)
        t = process.at_sigma(level.exp()[None])
        return process.flow(x, process.saying_score(-(x - centre) / spread**2, x, t), t)

    x = moments(levels[0])[0] + moments(levels[0])[1] * z
    for here, there in pairwise(levels):
        first = slope(x, here)
        x = x + (there - here) * (first + slope(x + (there - here) * first, there)) / 2
    centre, spread = moments(levels[-1])
    torch.testing.assert_close(x, centre + spread * z, rtol=1e-3, atol=1e-3)
