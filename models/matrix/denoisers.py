"""Representatives that denoise pictures: a step, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.func import functional_call

import explain
from explain.types import Players
from models.matrix.case import Case, Smooth, Training
from models.matrix.graphs import flat, stirred

SHAPE, STEPS, STEP, DRAWS = (1, 2, 3), 20, 8, 2
RUN, LEVELS = 4, 3  # steps of a run, and noise levels at which a training picture is measured
STEP_NOISE, OTHER = 0x5DEECE66, 0x2545F4914F6CDD1D  # streams of a seed: what steps add, what stands for absent noise
Network = Callable[..., Tensor]  # x_t [n, *shape], t [n], and what else it is given -> its answer
Predict = Callable[[Tensor, int], Tensor]  # x_t [n, *shape], t -> what a step is made of


class Denoiser(nn.Module):
    """The noise in pictures ``[n, 1, 2, 3]``, by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """At steps ``t [n]``."""
        return self.last((self.first(x) + t.view(-1, 1, 1, 1) / STEPS).tanh())


def pictures(count: int, seed: int = 1, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Float64, in [-1, 1]."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def normal(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """The first noise of a seed, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(
    net: nn.Module,
    number: Callable[[Network], Tensor],
    seen: Callable[[Tensor], Tensor],
    wanted: Callable[[Tensor], Tensor],
    times: Tensor,
    labels: Tensor | None = None,
    size: Callable[[Network], Tensor] | None = None,
) -> Training:
    """Five pictures that a network learned to denoise, each at `LEVELS` fixed steps with fixed noise.

    Args:
        net: ``(x_t, t [n], ...)``.
        number: of a network that is called so.
        seen: what it is given for pictures ``[n, *shape]``, ``[n, LEVELS, *shape]``.
        wanted: what it is to answer.
        times: the steps, ``[LEVELS]``.
        labels: beside each picture, ``[5]``.
        size: the mean square of what it answers, where a step is asked about.
    """
    theta, back = flat(net)
    x0 = pictures(5, seed=2, shape=SHAPE)

    def at(theta: Tensor) -> Network:
        return lambda *inputs: functional_call(net, back(theta), inputs)

    def answers(theta: Tensor, rows: Tensor) -> Tensor:
        beside = [] if labels is None else [labels[: len(rows)].repeat_interleave(LEVELS, 0)]
        x = seen(rows)
        return at(theta)(x.flatten(0, 1), times.repeat(len(rows)), *beside).view_as(x)

    def losses(theta: Tensor, rows: Tensor) -> Tensor:
        return (wanted(rows) - answers(theta, rows)).square().flatten(1).mean(1)

    return Training(
        theta,
        lambda theta: losses(theta, x0),
        lambda theta: number(at(theta)),
        weight_decay=0.1,
        train=x0 if labels is None else (x0, labels),
        inputs=x0,
        losses_of=lambda theta, x: losses(theta, x[None]),
        sizes=lambda theta: answers(theta, x0).square().flatten(1).mean(1),
        size=None if size is None else lambda theta: size(at(theta)),
    )


def of_noise(
    net: nn.Module,
    kept: Tensor,
    number: Callable[[Network], Tensor],
    labels: Tensor | None = None,
    size: Callable[[Network], Tensor] | None = None,
) -> Training:
    """The same of a network that foresees noise; ``kept`` is ``abar_t [T]``."""
    noise, times = normal(0, (LEVELS, *SHAPE)), ((torch.arange(LEVELS) + 0.5) / LEVELS * len(kept)).long()
    signal, spread = (part.sqrt()[times].view(-1, 1, 1, 1) for part in (kept, 1 - kept))
    return trained(
        net,
        number,
        lambda rows: signal * rows[:, None] + spread * noise,
        lambda rows: noise.expand(len(rows), *noise.shape),
        times,
        labels,
        size,
    )


def at_step(net: Network) -> Predict:
    """A network of pictures and steps, all at one."""
    return lambda x, t: net(x, torch.full((len(x),), t))


class Looking(nn.Module):
    """The noise in pictures ``[n, 1, 2, 3]``, by attention of each pixel on all."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.into, self.out = nn.Parameter(torch.randn(6, 4)), nn.Linear(2, 4), nn.Linear(4, 1)
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))

    def told(self, x: Tensor, t: Tensor) -> Tensor:
        """What each pixel is, ``[n, 6, 4]``."""
        time = (t / STEPS).view(-1, 1, 1).expand(-1, 6, 1).to(x)
        return self.into(torch.cat([x.flatten(1)[..., None], time], 2)) + 2 * self.places

    def looked(self, x: Tensor, t: Tensor) -> Tensor:
        """The shares that pixels give pixels, ``[n, 6, 6]``."""
        h = self.told(x, t)
        return (self.query(h) @ self.key(h).mT / 2).softmax(-1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """At steps ``t [n]``."""
        h = self.told(x, t)
        heard = F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        return self.out((h + heard).tanh()).view_as(x)


def one_step() -> Case:
    """One step of a DDPM: how well it foresees the noise in a picture, patches of it mid-grey."""
    return _step(stirred(Denoiser()))


def looking_step() -> Case:
    """The same of a network whose pixels attend."""
    return _step(stirred(Looking(), 0.5))


def _step(net: nn.Module) -> Case:
    scheduler = DDPMScheduler(num_train_timesteps=STEPS)
    x0, noise = pictures(1)[0], normal(0, (DRAWS, *SHAPE))
    kept = scheduler.alphas_cumprod.double()
    model = explain.wrap(net, scheduler=scheduler, shape=SHAPE, time="step", weight_decay=0.1, draws=LEVELS)

    def noised(clean: Tensor) -> Tensor:
        return kept[STEP].sqrt() * clean + (1 - kept[STEP]).sqrt() * noise

    def number(x: Tensor, predict: Predict) -> Tensor:
        return -(noise - predict(x, STEP)).square().flatten(1).sum(1).mean()

    def patches(players: Players, there: Tensor) -> Tensor:
        owner = players.geometry["labels"]
        with torch.no_grad():
            return number(noised(torch.where(torch.isin(owner, there.nonzero()[:, 0])[None], x0, 0.0)), at_step(net))

    def pixels(players: Players) -> Smooth:
        owner = players.geometry["labels"].expand(DRAWS, *SHAPE)
        return Smooth(noised(x0), noised(torch.zeros_like(x0)), owner, lambda x: number(x, at_step(net)))

    target = model.step(x0, STEP, draws=DRAWS, seed=0, fill="zeros")
    training = of_noise(
        net,
        kept,
        lambda net: number(noised(x0), at_step(net)),
        size=lambda net: at_step(net)(noised(x0), STEP).square().mean(),
    )
    looked: dict[str, Callable[[Players], Tensor]] = {}
    if isinstance(net, Looking):  # all pixels are asked about, in each draw
        with torch.no_grad():
            shares = net.looked(noised(x0), torch.full((DRAWS,), STEP)).mean((0, 1))
        looked = dict.fromkeys(("mean", "last"), lambda players: _owned(shares, players))
    return Case(target, {"patches": patches}, {"patches": pixels}, looked=looked, training=training)


def _owned(shares: Tensor, players: Players) -> Tensor:
    """What the pixels of each player got, ``[P]``."""
    return shares.new_zeros(len(players)).index_add(0, players.geometry["labels"].flatten(), shares)


def brightness(samples: Tensor) -> Tensor:
    """What runs are asked about: squares, weighted by place."""
    weights = torch.linspace(0.5, 1.5, samples[0].numel(), dtype=samples.dtype)
    return (samples.flatten(1).square() * weights).sum(1)


def sampled(
    predict: Predict, kept: Tensor, times: list[int], start: Tensor, eta: float, looks: Tensor, seed: int
) -> Tensor:
    """A run in the form of Song et al. (2021), equation 12; ``eta = 1`` over all steps is DDPM's ancestral sampler.

    Where a step does not look, the picture that was foreseen before is held to, and at first zeros.

    Args:
        predict: the noise.
        kept: ``abar_t [T]``.
        times: the steps, from the noisiest on.
        start: ``x_T [1, *shape]``.
        eta: the share of the ancestral sampler's noise.
        looks: bool, one a step.
        seed: of the noise that steps add.
    """
    generator, x, held = torch.Generator().manual_seed(seed ^ STEP_NOISE), start, torch.zeros_like(start)
    for step, t in enumerate(times):
        a = kept[t]
        before = kept[times[step + 1]] if step + 1 < len(times) else torch.ones(()).double()
        if looks[step]:
            held = (x - (1 - a).sqrt() * predict(x, t)) / a.sqrt()
        noise = (x - a.sqrt() * held) / (1 - a).sqrt()
        spread = eta * ((1 - before) / (1 - a)).sqrt() * (1 - a / before).sqrt()
        x = before.sqrt() * held + (1 - before - spread**2).clamp_min(0).sqrt() * noise
        if eta and step + 1 < len(times):
            x = x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


def exact(scheduler: Any) -> Any:
    """Its schedule in float64, where diffusers rounds to float32."""
    for name in ("betas", "alphas", "alphas_cumprod", "one", "final_alpha_cumprod"):
        if isinstance(getattr(scheduler, name, None), Tensor):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def ran(
    scheduler: Any, share: float, times: list[int], payoff: Callable[[Tensor], Tensor] = brightness, **options: Any
) -> Case:
    """Two runs without a condition: steps that do not look, and parts of the noise that they start from.

    ``share`` of the ancestral sampler's noise is added at each of ``times``; the ``payoff`` is of the ends.
    """
    scheduler = exact(scheduler)
    net, kept, looking = stirred(Denoiser(), 0.3), scheduler.alphas_cumprod.double(), torch.ones(len(times)).bool()
    model = explain.wrap(net, scheduler=scheduler, shape=SHAPE, time="step", weight_decay=0.1, draws=LEVELS)
    target = model.trajectory(payoff=payoff, steps=len(times), draws=DRAWS, seed=0, **options)
    starts = torch.stack([normal(seed) for seed in range(DRAWS)])
    others = torch.stack([normal(seed ^ OTHER) for seed in range(DRAWS)])

    def number(start: Tensor, looks: Tensor = looking, predict: Predict | None = None) -> Tensor:
        own = predict or at_step(net)
        ends = [sampled(own, kept, times, start[i][None], share, looks, seed=i) for i in range(DRAWS)]
        return payoff(torch.cat(ends)).mean()

    def noise(players: Players, there: Tensor) -> Tensor:
        present = torch.isin(players.geometry["labels"], there.nonzero()[:, 0])
        return number(torch.where(present, starts, others))

    def smooth(players: Players) -> Smooth:
        return Smooth(starts, others, players.geometry["labels"].expand_as(starts), number)

    training = of_noise(net, kept, lambda net: number(starts, predict=at_step(net)))
    answers = {"noise": torch.no_grad()(noise), "steps": torch.no_grad()(lambda _, there: number(starts, there))}
    return Case(target, answers, {"noise": smooth}, training=training)


def ddpm_run() -> Case:
    """All steps of the ancestral sampler."""
    return ran(DDPMScheduler(num_train_timesteps=RUN, clip_sample=False), 1.0, list(range(RUN - 1, -1, -1)))


def ddim_run() -> Case:
    """Every fifth step, with half of the ancestral noise."""
    scheduler = DDIMScheduler(num_train_timesteps=STEPS, clip_sample=False)
    return ran(scheduler, 0.5, [15, 10, 5, 0], eta=0.5)


DENOISERS = {"DDPM step": one_step, "attentive DDPM step": looking_step, "DDPM run": ddpm_run, "DDIM run": ddim_run}
