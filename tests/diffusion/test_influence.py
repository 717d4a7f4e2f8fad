"""Which training images are behind a denoising step: LiSSA against the whole Hessian, and both against retraining."""

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusion_cases import STEPS, digits_like, tiny_unet
from reference.influence import flat_function, trained_loss
from scipy.stats import pearsonr

from explain.diffusion.model import DiffusionModel
from explain.diffusion.objective import draws
from explain.influence import (
    Attack,
    Box,
    ConjugateGradient,
    Hessian,
    Influence,
    Lissa,
    Perturbation,
    Relabelling,
    SelfInfluence,
    poison,
)
from explain.types import Unsupported
from models import tiny_denoiser
from models.datasets import Images, digits

LEARNED = 100
AWAY = 32  # images left out, one after the other


@pytest.fixture(scope="module")
def data():
    images, labels = digits()[0]
    return Images(images[:LEARNED].double(), labels[:LEARNED])


@pytest.fixture(scope="module")
def asked():
    images, labels = digits()[1]
    return images[0].double(), int(labels[0])


@pytest.fixture(scope="module")
def trained(data):
    model = tiny_denoiser.train(tiny_denoiser.untrained(), data, progress=False)
    assert sum(p.numel() for p in model.denoiser.parameters()) <= 5000
    return model


@pytest.fixture(scope="module")
def over_steps(trained, asked):
    """The error at three noise levels on average, with fixed draws."""
    return trained.step(asked[0], t=[20, 50, 80], label=asked[1], draws=4, seed=5)


def influence(data, solver):
    return Influence(train=(data.images, data.labels), solver=solver, curvature="hessian", damping=0.0, seed=0)


@pytest.fixture(scope="module")
def exact(data, over_steps):
    return influence(data, "exact").explain(over_steps)


def test_the_objective_is_the_loss_in_paper_form(data, trained, over_steps):
    objective = over_steps.objective((data.images, data.labels))
    times, noise = draws(trained, data.images[0])
    signal = torch.as_tensor(trained.scheduler.alphas_cumprod).double()
    assert len(times.unique()) == len(times) == 8
    losses = []
    for x0, label in zip(data.images[:10], data.labels[:10], strict=True):
        squares = []
        for t, e in zip(times, noise, strict=True):
            x = signal[t].sqrt() * x0 + (1 - signal[t]).sqrt() * e
            e_hat = trained.denoiser.net(x[None], t[None], label[None])[0]
            squares.append((e - e_hat).square().mean())
        losses.append(torch.stack(squares).mean())
    torch.testing.assert_close(objective.train_loss(objective.params, torch.arange(10)), torch.stack(losses))


def test_the_model_is_at_a_minimum(exact):
    assert exact.checks["gradient_norm"] < 1e-5
    assert exact.checks["hessian_lambda_min"] > 0
    assert exact.checks["damping"] == 0


def test_lissa_is_exact(data, over_steps, exact):
    lissa = influence(data, "lissa").explain(over_steps)
    assert relative(lissa.scores, exact.scores) < 0.05
    assert lissa.checks["residual"] < 1e-3


def test_lissa_is_exact_on_batches(data, trained, asked):
    step = trained.step(asked[0], t=50, label=asked[1], seed=5)
    sampled = influence(data, Lissa(batch_size=25, repeats=4, tolerance=1e-2)).explain(step)
    assert relative(sampled.scores, influence(data, "cg").explain(step).scores) < 0.05
    assert sampled.checks["batch_size"] == 25


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_exact_is_what_retraining_from_the_same_start_finds(data, over_steps, exact):
    """Koh and Liang 2017, figure 2: each image left out in turn, trained anew from the first weights."""
    objective = over_steps.objective((data.images, data.labels))
    start = tiny_denoiser.untrained().step(data.images[0], t=0, label=0).objective(data).params
    away = exact.scores.argsort()[:: LEARNED // AWAY][:AWAY]  # from the most harmful to the most helpful
    before = objective.measurement(objective.params)
    actual = torch.stack(
        [before - objective.measurement(tiny_denoiser.minimum(objective.edited(int(i)), start)) for i in away]
    )
    predicted = exact.scores[away]
    assert len(predicted) >= 30
    assert pearsonr(predicted, actual).statistic >= 0.9
    slope = float(predicted @ actual / (predicted @ predicted))
    assert 0.8 < slope < 1.25  # the scale too, not only the order


def test_an_image_seen_twice_counts_the_same_both_times(trained, asked, data):
    twice = Images(data.images[[0, 1, 2, 1]], data.labels[[0, 1, 2, 1]])
    step = trained.step(asked[0], t=50, label=asked[1])
    found = Influence(train=twice, solver="cg", curvature="ggn", damping=0.1, seed=0).explain(step)
    torch.testing.assert_close(found.scores[1], found.scores[3])
    assert found.players.names[1] == f"image 1 ({int(data.labels[1])})"


def test_through_the_attention_of_a_unet(asked, data):
    """The fused attention kernels have no second derivative; the Hessian by finite differences does."""
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4, 4),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, norm_num_groups=2, num_class_embeds=11,
    ).double().eval()  # fmt: skip
    assert sum(p.numel() for p in net.parameters()) < 5100
    scheduler = DDPMScheduler(num_train_timesteps=100)
    step = DiffusionModel(net, time="step", scheduler=scheduler, null=10, draws=2).step(asked[0], t=50, label=asked[1])
    few = Images(data.images[:3], data.labels[:3])
    objective = step.objective(few)
    v = torch.randn(Hessian(objective).size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    _, theta = flat_function(objective)

    def slope(at):
        at = at.requires_grad_()
        return torch.autograd.grad(trained_loss(objective, at), at)[0]

    step_size = 1e-5
    difference = (slope(theta + step_size * v) - slope(theta - step_size * v)) / (2 * step_size)
    assert relative(Hessian(objective) @ v, difference) < 1e-6
    with pytest.warns(UserWarning, match="not at a minimum"):  # these are its first weights
        scores = [
            Influence(train=few, solver=solver, curvature="ggn", damping=0.1, seed=0).explain(step).scores
            for solver in ("cg", "lissa")
        ]
    assert relative(scores[1], scores[0]) < 0.05


@pytest.mark.filterwarnings("ignore::UserWarning")  # far from a minimum, two steps only
@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_the_answer_says_how_attention_was_differentiated(curvature):
    model = DiffusionModel(tiny_unet(), scheduler=DDPMScheduler(STEPS), null=10, draws=2)
    train = digits_like(1, seed=1), torch.tensor([1])
    asked = Influence(train, solver=ConjugateGradient(max_iterations=2), curvature=curvature, damping=1e3, seed=0)
    why = asked.explain(model.step(digits_like()[0], t=20, label=3))
    assert why.checks["derivatives"] == "reverse over reverse, plain attention"


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")  # of these six alone
def test_further_questions_about_training_images(data, over_steps):
    few = data.images[:6], data.labels[:6]
    engine = Influence(train=few, solver="cg", curvature="ggn", damping=0.1, seed=0)
    found = SelfInfluence(engine).explain(over_steps)
    assert found.parts["self_loss"].shape == found.scores.shape == (6,)
    assert (found.scores > 0).all()
    with pytest.raises(Unsupported, match="no labels that the model learns to predict"):
        Relabelling(1, engine=engine).explain(over_steps)
    why = Perturbation(0, engine=engine).explain(over_steps)
    assert (why.players.kind, why.scores.shape, why.parts["map"].shape) == ("pixels", (64,), (1, 8, 8))
    most, by = int(why.scores.abs().argmax()), 1e-3
    to = few[0][0].clone()
    to.view(-1)[most] += by
    moved = Perturbation(0, to, engine).explain(over_steps)
    assert float(moved.scores[most]) / by == pytest.approx(float(why.scores[most]), rel=0.05)
    with pytest.raises(IndexError, match="from 0 to 5"):
        Perturbation(6, engine=engine).explain(over_steps)
    with pytest.raises(Unsupported, match="a denoiser predicts none"):
        poison(over_steps, 0, Attack(box=Box(low=-1.0), engine=engine))
