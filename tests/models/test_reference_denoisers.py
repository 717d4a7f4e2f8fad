"""Cold, cascaded and classifier-guided diffusion: what the models sample is what the toolkit explains, to rounding."""

from dataclasses import replace

import pytest
import torch

import explain
from explain.diffusion.cascade import Cascade
from explain.shapley import Shapley
from models import cascaded_diffusion, classifier_guidance, cold_diffusion, ddpm, judge
from models.datasets import Images, digits
from models.ddpm import NULL

TINY = {"channels": (8, 8), "iterations": 15, "batch_size": 32, "average": 0.5}


def middle(samples):
    return samples[:, :, 3:5, 3:5].mean((1, 2, 3))


@pytest.fixture(scope="module")
def few():
    return Images(*(part[:64] for part in digits()[0]))


@pytest.mark.parametrize(
    ("degradation", "gone"), [("blur", (slice(None), slice(None))), ("mask", (slice(3, 5), slice(3, 5)))]
)
def test_degradations_begin_with_the_picture_and_leave_almost_nothing_of_it(degradation, gone, few):
    cold = cold_diffusion.process(degradation)
    cold.check(few.images[0])
    spread = [
        float(cold.noised(few.images, None, t)[:, :, *gone].flatten(1).std(1).mean()) for t in range(cold.steps + 1)
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 0.1 * spread[0]


def test_another_degradation_is_refused():
    with pytest.raises(ValueError, match="blur, mask"):
        cold_diffusion.process("snow")


def test_cold_runs_are_the_models_own(few):
    recipe = replace(cold_diffusion.DIGITS, **TINY)
    net = cold_diffusion.train(few, cold_diffusion.process("blur", recipe), recipe, progress=False)
    label = int(few.labels[0])
    for sampling in ("naive", "improved"):
        cold = cold_diffusion.process("blur", recipe, sampling)
        start = cold.noised(few.images[:1], None, cold.steps)
        made = cold_diffusion.restored(net, cold, start, few.labels[:1], steps=4)
        run = explain.wrap(net, scheduler=cold, null=NULL).trajectory(label, payoff=middle, steps=4, latents=start)
        assert run.value() == pytest.approx(float(middle(made)), abs=1e-5)
        assert Shapley("steps").explain(run).checks["efficiency_gap"] < 1e-9


def test_guided_runs_are_the_models_own(few):
    unet, _ = ddpm.train(few, replace(ddpm.DIGITS, **TINY), progress=False)
    scheduler, net = ddpm.ddim(ddpm.DIGITS), classifier_guidance.Unlabelled(unet).eval()
    classifier = classifier_guidance.NoisedClassifier(8)
    before = [part.clone() for part in classifier.parameters()]
    classifier_guidance.train(classifier, few, scheduler, iterations=15, progress=False)
    assert any(not torch.equal(*both) for both in zip(before, classifier.parameters(), strict=True))
    model = explain.wrap(net, scheduler=scheduler, time="step", shape=(1, 8, 8), classifier=classifier)
    run = model.trajectory(3, payoff=middle, steps=4, guidance=2.0, seed=5)
    generator = torch.Generator().manual_seed(0)
    made = classifier_guidance.sample(net, scheduler, classifier, torch.tensor([3]), 4, 2.0, generator=generator)
    start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert float(middle(made)) == pytest.approx(replace(run, latents=start).value(), abs=1e-5)


def test_cascades_are_the_models_own(few):
    recipes = replace(cascaded_diffusion.SMALL, **TINY), replace(cascaded_diffusion.LARGE, **TINY)
    low = Images(cascaded_diffusion.lowered(few.images), few.labels)
    small, _ = ddpm.train(low, recipes[0], progress=False)
    large = cascaded_diffusion.train(few, recipes[1], progress=False)
    scheduler, level, label = ddpm.ddim(recipes[1]), 0.3, torch.tensor([3])
    generator = torch.Generator().manual_seed(0)
    made = cascaded_diffusion.sample(small, large, scheduler, label, 3, 2.0, level, generator=generator)

    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(1, 1, 4, 4, generator=generator)
    noise = torch.randn(1, 1, 4, 4, generator=generator)
    later = torch.randn(1, 1, 8, 8, generator=generator)
    given = {"label": label, "low": torch.zeros(1, 1, 4, 4), "level": torch.tensor([level])}
    first = explain.wrap(small, scheduler=scheduler, null=NULL)
    second = explain.wrap(
        large, scheduler=scheduler, time="step", null=given | {"label": torch.tensor([NULL])}, shape=(1, 8, 8)
    )
    cascade = Cascade(
        [
            first.trajectory(3, payoff=middle, steps=3, guidance=2.0, latents=starts),
            second.trajectory(given, payoff=middle, steps=3, guidance=2.0, latents=later),
        ],
        into="low",
        prepare=lambda samples: cascaded_diffusion.augmented(samples, level, noise),
    )
    assert cascade.value() == pytest.approx(float(middle(made)), abs=1e-5)
    assert Shapley("stages").explain(cascade).players.names == ("stage 1", "stage 2")


def test_the_gain_of_improved_runs_is_a_share_of_the_distance_with_an_interval_around_it(few):
    net, cold = judge.Judge(8).eval(), cold_diffusion.process("blur")
    real = few.images[:80]
    naive, improved = (cold.noised(real, None, t) for t in (10, 3))
    found = cold_diffusion.gain(net, naive, improved, real)
    wanted = judge.distance(net, improved, real) / judge.distance(net, naive, real)
    assert found == pytest.approx(1 - wanted)
    low, high = cold_diffusion.gain_interval(net, naive, improved, real, draws=12)
    assert 0 < low < found < high < 1
    assert cold_diffusion.gain_interval(net, improved, naive, real, draws=6)[1] < 0


def test_the_distance_of_digits_to_themselves_is_none_and_grows_with_what_is_done_to_them(few):
    net = judge.Judge(8).eval()
    blurred = cold_diffusion.process("blur").noised(few.images, None, 10)
    assert judge.distance(net, few.images, few.images) == pytest.approx(0, abs=1e-5)
    assert judge.distance(net, blurred, few.images) > 1e-3
