"""`damping="auto"` where the training stopped just short of a minimum: a denoiser of points on a spiral."""

import math

import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from explain import Influence
from explain.diffusion.model import DiffusionModel
from explain.influence import Hessian
from explain.influence.linear_maps import Flat
from explain.influence.scores import training_gradient
from explain.influence.spectrum import Spectrum, sufficient_damping

POINTS, PENALTY, AWAY = 30, 1e-3, 3


class Net(nn.Module):
    """``e_hat`` of points ``[n, 2, 1, 1]``: one hidden layer on the point and the angle of its step."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 10), nn.Linear(10, 2)

    def forward(self, x, t):
        angle = math.pi / 100 * t.to(x.dtype)[:, None]
        return self.outer(self.inner(torch.cat([x.flatten(1), angle.cos(), angle.sin()], 1)).tanh()).view_as(x)


def trained(objective, until, steps=60):
    """Damped Newton steps on ``|H|`` from the objective's parameters on, until the gradient is below this."""
    flat, damping = Flat(objective.params), 1e-2
    theta = flat.vector(objective.params)

    def loss(at):
        losses = objective.train_loss(flat.params(at), torch.arange(objective.size))
        return float(losses.mean() + objective.weight_decay / 2 * at.square().sum())

    found = loss(theta)
    for _ in range(steps):
        here = objective.at(flat.params(theta))
        gradient = training_gradient(here)
        if gradient.norm() < until:
            break
        values, vectors = torch.linalg.eigh(Hessian(here).dense())
        for _ in range(20):
            step = vectors @ ((vectors.T @ gradient) / (values.abs() + damping))
            if (after := loss(theta - step)) < found:
                theta, found, damping = theta - step, after, damping / 5
                break
            damping *= 4
    return flat.params(theta)


@pytest.fixture(scope="module")
def spiral():
    """The wrapped denoiser, its points, and three numbers."""
    torch.manual_seed(0)
    turn = 1.5 * math.pi * (1 + 2 * torch.rand(POINTS + 3, dtype=torch.float64))
    points = (torch.stack([turn * turn.cos(), turn * turn.sin()], 1) / 10).view(-1, 2, 1, 1)
    betas = torch.linspace(1e-3, 0.1, 100)
    net = Net().double()
    model = DiffusionModel(net, time="step", betas=betas, shape=(2, 1, 1), weight_decay=PENALTY, draws=8)
    data, others = points[:POINTS], points[POINTS:]
    objective = model.step(data[0], t=0).objective(data)
    model.denoiser.load_state_dict(trained(objective, until=2e-3))
    return data, [model.step(x0, t=t, seed=5, draws=8) for x0, t in zip(others, (10, 50, 85), strict=True)]


def test_a_hessian_that_is_nearly_positive_keeps_to_the_penalty_and_foretells_retraining(spiral):
    data, targets = spiral
    with pytest.warns(UserWarning, match="Inverted instead: hessian with damping"):
        whys = Influence(data, seed=0).explain_all(targets)
    checks = whys[0].checks
    assert checks["curvature"] == "hessian"
    assert checks["hessian_lambda_min"] < 0 < checks["lambda_min"]
    assert checks["damping"] < 3 * PENALTY < 1e-3 * checks["lambda_max"]
    assert "by less than a tenth" in checks["why_curvature"]

    objectives = [target.objective(data) for target in targets]
    finished = trained(objectives[0], until=1e-8)
    before = [float(each.measurement(finished)) for each in objectives]
    start, away = objectives[0].at(finished), range(0, POINTS, AWAY)
    without = [trained(start.edited(i), until=1e-8) for i in away]
    for objective, value, why in zip(objectives, before, whys, strict=True):
        actual = [value - float(objective.measurement(params)) for params in without]
        assert pearsonr(why.scores[::AWAY], actual).statistic > 0.9


def test_how_much_is_enough():
    nearly, far = Spectrum(-1e-5, 12.0), Spectrum(-1e-2, 12.0)
    assert sufficient_damping(nearly) == pytest.approx(0.01201)
    assert sufficient_damping(nearly, PENALTY) == pytest.approx(PENALTY + 1e-5)
    assert sufficient_damping(Spectrum(-3e-4, 12.0), PENALTY) == pytest.approx(3.3e-3)
    assert sufficient_damping(far, PENALTY) == sufficient_damping(far) == pytest.approx(0.022)
    assert sufficient_damping(Spectrum(0.5, 12.0), PENALTY) == 0
