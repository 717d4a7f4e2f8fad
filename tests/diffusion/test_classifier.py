"""Classifier guidance: beside the paper's formula, in every parameterisation, and what it is not asked."""

import pytest
import torch
from diffusers import DDIMScheduler
from diffusion_cases import digits_like
from torch import nn

import explain
from explain.diffusion.classifier import ClassifierGuided
from explain.diffusion.model import DiffusionModel
from explain.influence import Influence
from explain.shapley import Shapley

STEPS = 100


class Plain(nn.Module):
    """A denoiser that no label was trained into."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, t):
        return self.second((self.first(x) + t.view(-1, 1, 1, 1) / STEPS).tanh())


class Classifier(nn.Module):
    """Of noised images and their step."""

    def __init__(self, classes=5):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x, t):
        return self.layer(x.flatten(1).tanh()) * (1 + t[:, None] / STEPS)


def made(kind="epsilon", classifier=None, **options):
    torch.manual_seed(0)
    net, judge = Plain().eval(), Classifier().eval()
    scheduler = DDIMScheduler(STEPS, clip_sample=False, prediction_type=kind)
    options = {"time": "step", "shape": (1, 8, 8), "classifier": classifier or judge, **options}
    return net, judge, scheduler, explain.wrap(net, scheduler=scheduler, **options)


def middle(samples):
    return samples[:, :, 3:5, 3:5].mean((1, 2, 3))


def by_hand(net, judge, scheduler, start, label, scales):
    """Dhariwal and Nichol 2021, algorithm 2: DDIM with ``e - sqrt(1 - abar) s grad log p(y | x_t)``."""
    scheduler.set_timesteps(len(scales))
    x = start
    for t, scale in zip(scheduler.timesteps, scales, strict=True):
        seen = x.detach().requires_grad_()
        judge(seen, t.reshape(1)).log_softmax(1)[:, label].sum().backward()
        with torch.no_grad():
            e = net(x, t.reshape(1)) - (1 - scheduler.alphas_cumprod[t]).sqrt() * scale * seen.grad
            x = scheduler.step(e, t, x).prev_sample
    return x


def test_runs_and_their_steps_are_the_papers_algorithm():
    net, judge, scheduler, model = made()
    run = model.trajectory(3, payoff=middle, steps=4, guidance=5.0, seed=1)
    expected = by_hand(net, judge, scheduler, run.start, 3, [5.0] * 4)
    assert run.value() == pytest.approx(float(middle(expected)), rel=1e-5)
    values = run.game("steps")(torch.tensor([[True, False, True, False]]))
    expected = by_hand(net, judge, scheduler, run.start, 3, [5.0, 0.0, 5.0, 0.0])
    assert float(values) == pytest.approx(float(middle(expected)), rel=1e-5)
    assert "classifier" in run.describe()["assumed"]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_score_is_moved_by_the_classifiers_gradient_in_every_parameterisation(kind):
    _, judge, _, model = made(kind)
    x, t = digits_like(2), torch.tensor([20, 70])
    plain, steered = (model.denoiser(x, t, c) for c in ({}, {"label": torch.tensor([2])}))
    seen = x.clone().requires_grad_()
    judge(seen, t).log_softmax(1)[:, 2].sum().backward()
    moved = model.process.score(x, steered, t) - model.process.score(x, plain, t)
    assert torch.allclose(moved, seen.grad, atol=1e-5)


def test_absent_labels_leave_the_network_as_it_is():
    net, _, _, model = made()
    x0 = digits_like()[0]
    step = model.step(x0, t=40, label=3, guidance=2.0, draws=2)
    without = step.game("labels")(torch.tensor([[False]]))
    with torch.no_grad():
        found = net(step.noised, torch.tensor([40, 40]))
    assert float(without) == pytest.approx(-float((step.noise - found).square().sum()) / 2, rel=1e-5)
    assert Shapley("labels").explain(step).checks["efficiency_gap"] < 1e-9


def test_gradients_go_through_the_classifiers_own():
    _, _, _, model = made()
    run = model.trajectory(3, payoff=middle, steps=2, guidance=5.0)
    told = run.differentiable(run.players("noise", size=4))
    inputs = told.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(told.f(inputs).sum(), inputs)
    with torch.no_grad():
        ahead, back = (told.f(told.inputs + sign * 1e-2 * gradient) for sign in (1, -1))
    assert float(ahead - back) / 2e-2 == pytest.approx(float(gradient.square().sum()), rel=1e-2)


def test_training_images_are_those_of_the_network_alone():
    _, _, _, model = made(weight_decay=0.1)
    step = model.step(digits_like()[0], t=40, label=3)
    objective = step.objective((digits_like(6, seed=1), torch.arange(6) % 5))
    assert all(name.startswith("net.") for name in objective.params)
    with pytest.warns(UserWarning, match="minimum"):
        assert Influence(train=(digits_like(6, seed=1), torch.arange(6) % 5)).explain(step).scores.isfinite().all()


@pytest.mark.parametrize(
    ("classifier", "label", "words"),
    [
        (Classifier(), 7, "classes 0 to 4"),
        (lambda x, t: torch.full((len(x), 4), 0.25), 1, "probabilities"),
        (lambda x, t: x.mean((1, 2, 3)), 1, "logits"),
        (lambda x: x, 1, "cannot be called"),
    ],
)
def test_classifiers_are_tried(classifier, label, words):
    with pytest.raises(ValueError, match=words):
        made(classifier=classifier)[3].step(digits_like()[0], t=40, label=label)


def test_what_goes_with_no_classifier_is_refused():
    with pytest.raises(ValueError, match="no null"):
        made(null=3)
    scheduler = DDIMScheduler(STEPS)
    with pytest.raises(TypeError, match="takes a label itself"):
        DiffusionModel(lambda x, t, label: x, scheduler=scheduler, time="step", classifier=Classifier())
    with pytest.raises(TypeError, match="classifier must be"):
        ClassifierGuided(made()[3].module, 3, made()[3].process)
