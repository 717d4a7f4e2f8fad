"""Denoisers of small digits, trained in seconds; every coalition is run again by the model's own loop."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

import explain
from models import ddpm
from models.datasets import digits
from models.ddpm import NULL
from models.panels.by_hand import agreement
from models.panels.panel import Finding, panel
from models.panels.pictures import beside, in_units
from models.panels.small_digits import DIGIT, STEPS, denoiser, noise, read, readable, run_by_hand


@panel(
    "DDPM",
    "Ho et al., NeurIPS 2020",
    conclude="Which parts of the digit make the noise on it easier to tell, or harder.",
    beware="Which parts look like a three. The number is an error of the noise, and an empty patch may be the easiest.",
)
def one_step() -> Finding:
    """Patches of a digit that it never saw; an absent one is grey under the same noise."""
    net, scheduler = denoiser()
    seen, t = digits()[1], 300
    image = seen.images[seen.labels == DIGIT][0]
    target = explain.wrap(net, scheduler=scheduler, null=NULL).step(image, t=t, label=DIGIT, fill="zeros")
    why = in_units(explain.Shapley("patches", samples=512, seed=0).explain(target), "minus squared error")
    label = torch.full((target.draws,), DIGIT)

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        shown = coalition.view(4, 4).repeat_interleave(2, 0).repeat_interleave(2, 1) * image
        x = scheduler.add_noise(shown.expand_as(target.noise), target.noise, torch.tensor(t))
        error = (net(x, t, class_labels=label).sample - target.noise).square()
        return -float(error.sum((1, 2, 3)).mean())

    return Finding.of(
        why,
        f"Which parts of a {DIGIT} let a DDPM tell the noise on it, at step {t} of 1000?",
        f"minus the squared error of the noise, the mean of {target.draws} draws",
        beside(why),
        by_hand=agreement(target, why, worth),
    )


@panel(
    "DDIM",
    "Song et al., ICLR 2021",
    conclude="At which steps the label moves the run towards what a judge reads as a three.",
    beware="When the three is drawn: a step without the label is still a step.",
)
def run() -> Finding:
    """Steps of a whole run: with the label, or without."""
    net, scheduler = denoiser()
    payoff, start = readable(), noise(1, 1, 8, 8)
    target = explain.wrap(net, scheduler=scheduler, null=NULL).trajectory(
        DIGIT, payoff=payoff, steps=STEPS, latents=start
    )
    why = explain.Shapley("steps", seed=0).explain(target)

    def worth(coalition: Tensor) -> float:
        return float(payoff(run_by_hand(net, DDIMScheduler.from_config(scheduler.config), start, coalition)))

    return Finding.of(
        why,
        f"At which steps of a DDIM run must the label be known for a {DIGIT} to come out?",
        f"a judge's log-odds of {DIGIT}",
        picture=explain.plot.steps(why, target.images().clamp(-1, 1)),
        by_hand=agreement(target, why, worth),
    )


@panel(
    "Classifier-free guidance",
    "Ho and Salimans 2021",
    conclude="At which steps a weight above 1 makes the digit clearer than the conditional model alone does.",
    beware="That more is better: the judge likes what is clear, and not what is varied.",
)
def guided() -> Finding:
    """Guidance at each step of a run: with its weight, or the plain conditional model."""
    net, scheduler = denoiser()
    payoff, start, weight = readable(), noise(1, 1, 8, 8), 3.0
    target = explain.wrap(net, scheduler=scheduler, null=NULL).trajectory(
        DIGIT, payoff=payoff, steps=STEPS, guidance=weight, latents=start
    )
    why = explain.Shapley("guidance", seed=0).explain(target)

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        own, x = DDIMScheduler.from_config(scheduler.config), start
        own.set_timesteps(STEPS)
        for t, pushed in zip(own.timesteps, coalition, strict=True):
            c, u = (net(x, t, class_labels=torch.tensor([label])).sample for label in (DIGIT, NULL))
            x = own.step(u + weight * (c - u) if pushed else c, t, x).prev_sample
        return float(payoff(x))

    def sampled(weight: float, labels: Tensor) -> Tensor:
        return ddpm.sample(net, scheduler, labels, STEPS, weight, generator=torch.Generator().manual_seed(0))

    return Finding.of(
        why,
        f"At which steps does guidance of weight {weight:g} make a {DIGIT} clearer than weight 1 does?",
        f"a judge's log-odds of {DIGIT}",
        picture=explain.plot.steps(why, target.images().clamp(-1, 1)),
        by_hand=agreement(target, why, worth),
        guided=read(lambda labels: sampled(weight, labels)),
        unguided=read(lambda labels: sampled(1.0, labels)),
    )
