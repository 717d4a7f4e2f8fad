"""The diffusion half of the demo: a denoiser of handwritten digits, asked about one step and about a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm.auto import tqdm

import explain
from explain.diffusion.model import DiffusionModel
from explain.diffusion.targets import StepTarget, TrajectoryTarget
from explain.guard import evaluating
from explain.influence import Lissa
from models import ddpm, judge
from models.answers import Answer, Picture, asked, figure_of
from models.datasets import Images, digits

NAME = "DDPM"
T = 300  # of 1000: the digit is under noise of about its own strength
EACH = 8  # training images of every class that may be credited
LOSS_DRAWS = 3  # fixed (step, noise) draws of each training image's loss
DAMPING = 5.0  # about a twentieth of the largest eigenvalue of the curvature


class Story(NamedTuple):
    """A trained denoiser, the step and the run that are asked about, and the training images that may be behind."""

    trained: ddpm.Trained
    digit: int
    step: StepTarget
    run: TrajectoryTarget
    train: Images


def story(seed: int, fresh: bool) -> Story:
    """The digit is one that the denoiser never saw; the run draws another of its class, read by the judge."""
    trained = ddpm.load_or_train(seed=seed, fresh=fresh)
    seen_by = judge.load_or_train(seed=seed, fresh=fresh)
    learned, unseen = digits()
    digit = 3
    image = unseen.images[(unseen.labels == digit).nonzero()[seed % 8, 0]]
    model: DiffusionModel = explain.wrap(trained.unet, scheduler=trained.scheduler, null=ddpm.NULL, draws=LOSS_DRAWS)
    step = model.step(image, t=T, label=digit, seed=seed, reference=learned.images)
    run = model.trajectory(digit, payoff=log_odds(seen_by.module, digit), steps=10, guidance=2.0, seed=seed, draws=4)
    return Story(trained, digit, step, run, _some(learned, seed, EACH))


def log_odds(net: nn.Module, digit: int) -> Callable[[Tensor], Tensor]:
    """``samples -> log p/(1 - p) [n]`` of a class by the judge: unlike ``log p`` it does not saturate."""

    def payoff(samples: Tensor) -> Tensor:
        with evaluating(net):
            logits = net(samples)
        others = torch.cat([logits[:, :digit], logits[:, digit + 1 :]], 1)
        return logits[:, digit] - others.logsumexp(1)

    payoff.__name__ = f"log-odds of {digit}"
    return payoff


def _some(data: Images, seed: int, each: int) -> Images:
    """The same number of training images of every class: who may be credited."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for digit in range(ddpm.CLASSES):
        own = (data.labels == digit).nonzero().view(-1)
        chosen.append(own[torch.randperm(len(own), generator=generator)[:each]])
    rows = torch.cat(chosen)
    return Images(data.images[rows], data.labels[rows])


def title(told: Story) -> str:
    """Of the report."""
    return f"Why a {told.digit}? One step and one run of a DDPM."


def runs(told: Story) -> list[explain.Target]:
    """What the report shows step by step."""
    return [told.step, told.run]


def curves(told: Story) -> list[explain.Target]:
    """What the report asks again with fewer patches, or steps with the label."""
    return runs(told)


def introduction(told: Story) -> str:
    """What was trained, how well, and what is asked."""
    facts, cached = told.trained.info.facts, " (cached)" if told.trained.info.cached else ""
    return (
        f"Handwritten digits, 8 x 8: a DDPM of {len(told.trained.info.data.images)} images{cached}\n"
        f"class accuracy of 500 guided samples: {facts['class_accuracy']:.1%}; "
        f"the judge's own on real digits: {facts['judge_accuracy']:.1%}\n"
        f"asked: the error of one step at t={T} on an unseen {told.digit}, and the judge's log-odds of {told.digit} "
        f"after a run of {told.run.steps} steps"
    )


def questions(told: Story, seed: int) -> Iterator[tuple[explain.Explainer, explain.Target]]:
    """All four families on the step, with gradients beside, and all four on the run."""
    behind = explain.Influence(
        train=tuple(told.train), solver=Lissa(tolerance=1e-2), curvature="ggn", damping=DAMPING, seed=seed
    )
    yield explain.Shapley("patches", samples=1024, seed=seed), told.step
    yield explain.Lime("patches", samples=1000, seed=seed), told.step
    yield explain.Gradient("patches", seed=seed), told.step
    yield explain.Attention("patches"), told.step
    yield behind, told.step
    yield explain.Shapley("steps", seed=seed), told.run
    yield explain.Lime("steps", samples=500, seed=seed), told.run
    yield explain.Attention("patches"), told.run
    yield behind, told.run


def answers(told: Story, seed: int) -> Iterator[Answer]:
    """The step and the run, by every method."""
    names = {id(told.step): f"{NAME} step", id(told.run): f"{NAME} run"}
    for explainer, target in tqdm(list(questions(told, seed)), desc=f"explaining {NAME}"):
        yield asked(names[id(target)], explainer, target)


def pictures(told: Story, found: list[Answer]) -> list[Picture]:
    """Patches, the strip of steps, attention maps, and the training digits behind the step."""
    by = {(a.model, a.explanation.method): a.explanation for a in found}
    step, run = f"{NAME} step", f"{NAME} run"
    steps = explain.plot.steps(by[run, "Shapley"], told.run.images())
    attention = explain.plot.attention_maps(by[step, "Attention"])
    return [
        Picture(
            "overview-ddpm",
            "The DDPM: patches, attention and training digits behind one step; the steps of a run",
            _overview(told, by[step, "Shapley"], by[step, "Attention"], by[step, "Influence"], by[run, "Shapley"]),
        ),
        Picture(
            "ddpm-steps",
            "What the run foresees at each step, and what each step with the label is worth",
            figure_of(steps),
        ),
        Picture("ddpm-attention-maps", "Where the step looks, layer by layer", figure_of(attention)),
    ]


def _overview(
    told: Story,
    patches: explain.Explanation,
    attention: explain.Explanation,
    behind: explain.Explanation,
    steps: explain.Explanation,
) -> Figure:
    """Above, the digit and its noised form, credit of patches, attention, training digits; below, the run."""
    figure, axes = plt.subplot_mosaic(
        [["digit", "patches", "attention", "behind"], ["noised", "patches", "attention", "behind"], ["steps"] * 4],
        figsize=(15, 7.5),
        layout="constrained",
        width_ratios=[0.42, 1, 1, 1.7],
        height_ratios=[1, 1, 1.7],
    )
    for name, image in (("digit", told.step.image), ("noised", told.step.noised[0])):
        axes[name].imshow(image[0].numpy(), cmap="gray")
        axes[name].set_axis_off()
    axes["digit"].set_title(f"unseen {told.digit}", loc="left", fontsize="medium")
    axes["noised"].set_title(f"at t={T}", loc="left", fontsize="medium")
    patches.plot(axes["patches"])
    attention.plot(axes["attention"])
    explain.plot.strip(behind, axes["behind"], k=4)
    explain.plot.steps(steps, told.run.images(), axes["steps"])
    return figure
