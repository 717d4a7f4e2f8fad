"""Relatives of the DDPM: steered by a classifier, in two stages, and without noise; digits that train in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

import explain
from explain.diffusion.cascade import Cascade
from models import cascaded_diffusion, classifier_guidance, cold_diffusion, ddpm
from models.cascaded_diffusion import SuperResolution
from models.classifier_guidance import NoisedClassifier, Unlabelled
from models.datasets import Images, digits
from models.ddpm import NULL
from models.panels.by_hand import agreement
from models.panels.panel import Finding, panel
from models.panels.pictures import above
from models.panels.small_digits import DIGIT, RECIPE, STEPS, denoiser, little, noise, read, readable, run_by_hand

COLD = replace(cold_diffusion.DIGITS, channels=(16, 16), iterations=200, batch_size=64, lr=3e-3, average=0.98)
SMALL = replace(RECIPE, size=4, iterations=200)


def noised(data: Images) -> NoisedClassifier:
    """A classifier of noised digits."""
    schedule = ddpm.ddim(RECIPE)
    return classifier_guidance.train(NoisedClassifier(32), data, schedule, iterations=300, progress=False)


def lowered(data: Images) -> UNet2DModel:
    """A DDPM of digits of 4 x 4."""
    small = Images(cascaded_diffusion.lowered(data.images), data.labels)
    return ddpm.train(small, SMALL, progress=False)[0]


@panel(
    "Classifier guidance",
    "Dhariwal and Nichol, NeurIPS 2021",
    conclude="At which steps the classifier's gradient turns the run.",
    beware="That the denoiser knows a three: it was never told a label, the classifier was.",
)
def steered() -> Finding:
    """Steps of a run without labels: with the classifier's gradient, or without."""
    unet, clipped = denoiser()
    net, scheduler, scale = Unlabelled(unet).eval(), DDIMScheduler.from_config(clipped.config, clip_sample=False), 4.0
    classifier = little("NoisedClassifier", classifier_guidance, lambda: NoisedClassifier(32), noised, RECIPE)
    payoff, start = readable(), noise(1, 1, 8, 8)
    target = explain.wrap(net, scheduler=scheduler, time="step", shape=(1, 8, 8), classifier=classifier).trajectory(
        DIGIT, payoff=payoff, steps=STEPS, guidance=scale, latents=start
    )
    why = explain.Shapley("steps", seed=0).explain(target)

    def worth(coalition: Tensor) -> float:
        own, x = DDIMScheduler.from_config(scheduler.config), start
        own.set_timesteps(STEPS)
        for t, pushed in zip(own.timesteps, coalition, strict=True):
            seen = x.detach().requires_grad_()
            evidence = classifier(seen, t[None]).log_softmax(1)[0, DIGIT]
            push = (1 - own.alphas_cumprod[t]).sqrt() * scale * torch.autograd.grad(evidence, seen)[0]
            with torch.no_grad():
                x = own.step(net(x, t[None]) - pushed * push, t, x).prev_sample
        return float(payoff(x.detach()))

    def sampled(scale: float, labels: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return classifier_guidance.sample(net, scheduler, classifier, labels, STEPS, scale, generator=generator)

    return Finding.of(
        why,
        f"At which steps does a classifier's gradient turn a run without labels into a {DIGIT}?",
        f"a judge's log-odds of {DIGIT}",
        picture=explain.plot.steps(why, target.images().clamp(-1, 1)),
        by_hand=agreement(target, why, worth),
        steered=read(lambda labels: sampled(scale, labels)),
        unsteered=read(lambda labels: sampled(0.0, labels)),
    )


@panel(
    "Cascaded diffusion",
    "Ho et al., JMLR 2022",
    conclude="Which of two stages has to be told the label for a judge to read it.",
    beware="That the other stage does nothing: it draws, with or without the label.",
)
def cascade() -> Finding:
    """Two stages, 4 x 4 and 8 x 8: each with its label, or without."""
    small = little("First", cascaded_diffusion, lambda: ddpm.unet(SMALL), lowered, SMALL)
    large = little(
        "Second",
        cascaded_diffusion,
        lambda: SuperResolution(RECIPE),
        lambda data: cascaded_diffusion.train(data, RECIPE, progress=False),
        RECIPE,
    )
    scheduler = ddpm.ddim(RECIPE)
    payoff, level, weight, label = readable(), cascaded_diffusion.LEVEL, 2.0, torch.tensor([DIGIT])
    starts, between = (noise(1, 1, 4, 4), noise(1, 1, 8, 8, seed=1)), noise(1, 1, 4, 4, seed=2)
    given = {"low": torch.zeros(1, 1, 4, 4), "level": torch.tensor([level])}
    first = explain.wrap(small, scheduler=scheduler, null=NULL)
    null = {"label": torch.tensor([NULL]), **given}
    second = explain.wrap(large, scheduler=scheduler, time="step", null=null, shape=(1, 8, 8))
    asked: dict[str, Any] = {"steps": STEPS, "guidance": weight}
    target = Cascade(
        [
            first.trajectory(DIGIT, payoff=lambda low: low.mean((1, 2, 3)), latents=starts[0], **asked),
            second.trajectory({"label": label, **given}, payoff=payoff, latents=starts[1], **asked),
        ],
        into="low",
        prepare=lambda samples: cascaded_diffusion.augmented(samples, level, between),
    )
    why = explain.Shapley("stages").explain(target)

    @torch.no_grad()
    def made(coalition: Tensor) -> Tensor:
        low, x = starts
        own = DDIMScheduler.from_config(scheduler.config)
        own.set_timesteps(STEPS)
        weights = weight * coalition.float()
        for t in own.timesteps:
            c, u = (small(low, t, class_labels=torch.tensor([name])).sample for name in (DIGIT, NULL))
            low = own.step(u + weights[0] * (c - u), t, low).prev_sample
        low = cascaded_diffusion.augmented(low, level, between)
        for t in own.timesteps:
            c, u = (large(x, t[None], torch.tensor([name]), low, given["level"]) for name in (DIGIT, NULL))
            x = own.step(u + weights[1] * (c - u), t, x).prev_sample
        return x

    shown = {"none": (False, False), "stage 1": (True, False), "stage 2": (False, True), "both": (True, True)}
    pictures = {f"{name} knows": made(torch.tensor(known)) for name, known in shown.items()}
    return Finding.of(
        why,
        f"Which stage of a cascade must know that a {DIGIT} is wanted: that of 4 x 4 pixels, or that of 8 x 8?",
        f"a judge's log-odds of {DIGIT}",
        picture=above(why, {f"{name}\n{float(payoff(one)):.1f}": one[0] for name, one in pictures.items()}),
        by_hand=agreement(target, why, lambda coalition: float(payoff(made(coalition)))),
    )


@panel(
    "Cold diffusion",
    "Bansal et al., NeurIPS 2023",
    conclude="At which steps of deblurring the label helps.",
    beware="That it is needed: the blurred picture that the run starts from knows the digit as well.",
)
def cold() -> Finding:
    """Steps out of a digit that was blurred all the way: with its label, or without."""
    process = cold_diffusion.process("blur", COLD)
    net = little(
        "Cold",
        cold_diffusion,
        lambda: ddpm.unet(COLD),
        lambda data: cold_diffusion.train(data, process, COLD, progress=False),
        COLD,
    )
    seen, payoff = digits()[1], readable()
    image = seen.images[seen.labels == DIGIT][:1]
    start = process.noised(image, None, process.steps)
    target = explain.wrap(net, scheduler=process, null=NULL).trajectory(
        DIGIT, payoff=payoff, steps=STEPS, latents=start
    )
    why = explain.Shapley("steps", seed=0).explain(target)

    def worth(coalition: Tensor) -> float:
        return float(payoff(run_by_hand(net, cold_diffusion.process("blur", COLD), start, coalition)))

    return Finding.of(
        why,
        f"At which steps does the label help to bring a blurred {DIGIT} back?",
        f"a judge's log-odds of {DIGIT}",
        picture=explain.plot.steps(why, target.images().clamp(-1, 1)),
        by_hand=agreement(target, why, worth),
    )
