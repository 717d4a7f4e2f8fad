"""Representatives whose runs are steered by labels, a classifier or the run before; blur undone, and latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

import explain
from explain.diffusion.cascade import Cascade
from explain.diffusion.cold import Cold
from explain.diffusion.model import DiffusionModel
from explain.diffusion.targets import TrajectoryTarget
from explain.types import Players
from models.matrix.case import Case, Smooth, Training
from models.matrix.denoisers import (
    DRAWS,
    LEVELS,
    OTHER,
    SHAPE,
    Denoiser,
    Network,
    Predict,
    at_step,
    brightness,
    exact,
    normal,
    of_noise,
    pictures,
    ran,
    sampled,
    trained,
)
from models.matrix.graphs import stirred

T, TIMES, WEIGHT, LABEL, NULL = 20, [15, 10, 5, 0], 2.0, 1, 2


class _Labelled(nn.Module):
    """The noise in pictures of a class; class 2 is none."""

    def __init__(self, cells: int = 6) -> None:
        super().__init__()
        self.net, self.labels = Denoiser(), nn.Embedding(3, cells)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.net(x + self.labels(y).view(-1, *x.shape[1:]).expand_as(x), t)


Guided = Callable[[Network, Tensor, int, float], Tensor]  # network, x_t, t, weight -> what a step is made of


def steered(
    target: TrajectoryTarget, net: nn.Module, guided: Guided, kept: Tensor, labels: Tensor | None = None
) -> Case:
    """Runs of DDIM along a label: steps with it or without, guided or plain, the label itself, and the first noise."""
    starts = torch.stack([normal(seed) for seed in range(DRAWS)])
    others = torch.stack([normal(seed ^ OTHER) for seed in range(DRAWS)])
    every = torch.ones(len(TIMES), dtype=torch.bool)

    def number(start: Tensor, weights: Tensor | None = None, own: Network = net) -> Tensor:
        each = torch.full((len(TIMES),), WEIGHT) if weights is None else weights

        def predict(x: Tensor, t: int) -> Tensor:
            return guided(own, x, t, float(each[TIMES.index(t)]))

        return brightness(sampled(predict, kept, TIMES, start, 0.0, every, 0)).mean()

    def noise(players: Players, there: Tensor) -> Tensor:
        return number(torch.where(torch.isin(players.geometry["labels"], there.nonzero()[:, 0]), starts, others))

    answers = {
        "steps": lambda _, there: number(starts, torch.where(there, WEIGHT, 0.0)),
        "guidance": lambda _, there: number(starts, torch.where(there, WEIGHT, 1.0)),
        "labels": lambda _, there: number(starts, torch.where(there, WEIGHT, 0.0).expand(len(TIMES))),
        "noise": noise,
    }
    smooth = {"noise": lambda players: Smooth(starts, others, players.geometry["labels"].expand_as(starts), number)}
    training = of_noise(net, kept, lambda net: number(starts, own=net), labels)
    return Case(target, {name: torch.no_grad()(f) for name, f in answers.items()}, smooth, training=training)


def without_classifier() -> Case:
    """Guidance by a label that was sometimes left out in training (Ho and Salimans 2021)."""
    net, scheduler = stirred(_Labelled(), 0.3), exact(DDIMScheduler(num_train_timesteps=T, clip_sample=False))
    kept = scheduler.alphas_cumprod
    model = explain.wrap(net, scheduler=scheduler, shape=SHAPE, time="step", null=NULL, weight_decay=0.1, draws=LEVELS)
    target = model.trajectory(LABEL, payoff=brightness, steps=len(TIMES), guidance=WEIGHT, draws=DRAWS, seed=0)

    def guided(net: Network, x: Tensor, t: int, weight: float) -> Tensor:
        with_label, without = (net(x, torch.full((len(x),), t), torch.full((len(x),), y)) for y in (LABEL, NULL))
        return without + weight * (with_label - without)

    return steered(target, net, guided, kept, torch.tensor([0, 1, 2, 0, 1]))


class _Classes(nn.Module):
    """Logits of three classes of a noised picture."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out((self.into(x.flatten(1)) + t.view(-1, 1) / T).tanh())


def by_classifier() -> Case:
    """Guidance by the gradient of a classifier of noised pictures (Dhariwal and Nichol 2021)."""
    net, judge = stirred(Denoiser(), 0.3), stirred(_Classes(), 0.3)
    scheduler = exact(DDIMScheduler(num_train_timesteps=T, clip_sample=False))
    kept = scheduler.alphas_cumprod
    model = explain.wrap(
        net, scheduler=scheduler, shape=SHAPE, time="step", classifier=judge, weight_decay=0.1, draws=LEVELS
    )
    target = model.trajectory(LABEL, payoff=brightness, steps=len(TIMES), guidance=WEIGHT, draws=DRAWS, seed=0)

    def guided(net: Network, x: Tensor, t: int, weight: float) -> Tensor:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            seen = x if x.requires_grad else x.detach().requires_grad_()
            evidence = judge(seen, torch.full((len(x),), t)).log_softmax(1)[:, LABEL].sum()
            slope = torch.autograd.grad(evidence, seen, create_graph=again)[0]
        return at_step(net)(x, t) - weight * (1 - kept[t]).sqrt() * slope

    return steered(target, net, guided, kept)


# --- a cascade ---


class _Above(nn.Module):
    """The noise in pictures of a class beside one half as large, ``low [n, 1, 1, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _Labelled()

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor, low: Tensor) -> Tensor:
        return self.net(x + F.interpolate(low, size=x.shape[2:]), t, class_labels)


SMALL = (1, 1, 3)


def cascade() -> Case:
    """Two stages of DDIM, the second beside what the first ended in (Ho et al. 2022)."""
    scheduler = exact(DDIMScheduler(num_train_timesteps=T, clip_sample=False))
    kept, first, second = scheduler.alphas_cumprod, stirred(_Labelled(3), 0.3), stirred(_Above(), 0.3)
    options = {"scheduler": scheduler, "time": "step"}
    runs = {"payoff": brightness, "steps": len(TIMES), "guidance": WEIGHT, "draws": DRAWS, "seed": 0}
    none = torch.zeros(1, *SMALL).double()
    small = explain.wrap(first, shape=SMALL, null=NULL, **options).trajectory(LABEL, **runs)
    large = explain.wrap(second, shape=SHAPE, null={"class_labels": NULL, "low": none}, **options)
    target = Cascade([small, large.trajectory({"class_labels": LABEL, "low": none}, **runs)], into="low")
    every = torch.ones(len(TIMES), dtype=torch.bool)

    def number(weights: Tensor, held: Tensor) -> Tensor:
        """Weights of each step of both stages; whether each stage starts from its own noise."""
        found = []
        for seed in range(DRAWS):
            low = None
            for stage, shape in enumerate((SMALL, SHAPE)):

                def predict(x: Tensor, t: int, stage: int = stage, low: Tensor | None = low) -> Tensor:
                    both = [
                        first(x, torch.full((1,), t), torch.full((1,), y))
                        if low is None
                        else second(x, torch.full((1,), t), torch.full((1,), y), low)
                        for y in (LABEL, NULL)
                    ]
                    weight = float(weights[stage * len(TIMES) + TIMES.index(t)])
                    return both[1] + weight * (both[0] - both[1])

                start = normal(seed if held[stage] else seed ^ OTHER, shape)[None]
                low = sampled(predict, kept, TIMES, start, 0.0, every, seed)
            assert low is not None
            found.append(brightness(low)[0])
        return torch.stack(found).mean()

    own = torch.ones(2, dtype=torch.bool)
    answers = {
        "steps": lambda _, there: number(torch.where(there, WEIGHT, 0.0), own),
        "stages": lambda _, there: number(torch.where(there, WEIGHT, 0.0).repeat_interleave(len(TIMES)), own),
        "noise": lambda _, there: number(torch.full((2 * len(TIMES),), WEIGHT), there),
        "guidance": lambda _, there: number(torch.where(there, WEIGHT, 1.0), own),
        "labels": lambda _, there: number(torch.where(there, WEIGHT, 0.0).expand(2 * len(TIMES)), own),
    }
    return Case(target, {name: torch.no_grad()(f) for name, f in answers.items()})


# --- cold diffusion ---

BLURS = 4


def blurred(x: Tensor, t: Tensor) -> Tensor:
    """``t`` passes of the mean of each pixel and its neighbours, ends repeated."""
    for step in range(BLURS):
        wide = F.pad(x.reshape(-1, 1, x.size(-1)), (1, 1), mode="replicate").view(*x.shape[:-1], -1)
        passed = (wide[..., :-2] + wide[..., 1:-1] + wide[..., 2:]) / 3
        x = torch.where((t > step).view(-1, 1, 1, 1), passed, x)
    return x


def _restorer() -> tuple[nn.Module, DiffusionModel]:
    net, cold = stirred(Denoiser(), 0.3), Cold(blurred, BLURS)
    return net, explain.wrap(net, scheduler=cold, shape=SHAPE, time="step", weight_decay=0.1, draws=LEVELS)


def _restoring(
    net: nn.Module, number: Callable[[Network], Tensor], size: Callable[[Network], Tensor] | None = None
) -> Training:
    times = ((torch.arange(LEVELS) + 0.5) / LEVELS * BLURS).long() + 1
    return trained(
        net,
        number,
        lambda rows: torch.stack([blurred(rows, torch.full((len(rows),), int(t))) for t in times], 1),
        lambda rows: rows[:, None].expand(-1, LEVELS, *SHAPE),
        times,
        size=size,
    )


def unblurring() -> Case:
    """A step of cold diffusion (Bansal et al. 2022): how well a picture is restored, patches of it zero."""
    (net, model), x0, t = _restorer(), pictures(1)[0], 3

    def degraded(clean: Tensor) -> Tensor:
        return blurred(clean[None], torch.tensor([t]))

    def number(x: Tensor, predict: Predict) -> Tensor:
        return -(x0 - predict(x, t)).square().sum()

    @torch.no_grad()
    def patches(players: Players, there: Tensor) -> Tensor:
        present = torch.isin(players.geometry["labels"], there.nonzero()[:, 0])
        return number(torch.where(present, degraded(x0), degraded(torch.zeros_like(x0))), at_step(net))

    def pixels(players: Players) -> Smooth:
        owner = players.geometry["labels"].expand(1, *SHAPE)
        return Smooth(degraded(x0), degraded(torch.zeros_like(x0)), owner, lambda x: number(x, at_step(net)))

    training = _restoring(
        net,
        lambda net: number(degraded(x0), at_step(net)),
        size=lambda net: at_step(net)(degraded(x0), t).square().mean(),
    )
    target = model.step(x0, t, fill="zeros")
    return Case(target, {"patches": patches}, {"patches": pixels}, training=training)


def unblurred() -> Case:
    """Runs of cold diffusion by its improved sampling: steps that look, or hold to what was foreseen before."""
    net, model = _restorer()
    start = blurred(pictures(DRAWS, seed=4), torch.full((DRAWS,), BLURS))
    target = model.trajectory(payoff=brightness, steps=BLURS, draws=DRAWS, latents=start)

    def number(looks: Tensor, predict: Predict) -> Tensor:
        x, held = start, torch.zeros_like(start)
        for step, t in enumerate(range(BLURS, 0, -1)):
            held = predict(x, t) if looks[step] else held
            x = x - blurred(held, torch.full((DRAWS,), t)) + blurred(held, torch.full((DRAWS,), t - 1))
        return brightness(x).mean()

    every = torch.ones(BLURS, dtype=torch.bool)
    steps = torch.no_grad()(lambda _, there: number(there, at_step(net)))
    return Case(target, {"steps": steps}, training=_restoring(net, lambda net: number(every, at_step(net))))


# --- latents ---


def decoded() -> Case:
    """Runs of DDIM on latents, asked about the pictures that a decoder makes of them (Rombach et al. 2022)."""
    decoder = stirred(nn.ConvTranspose2d(1, 1, 2, stride=2), 0.3)

    def seen(latents: Tensor) -> Tensor:
        return brightness(decoder(latents / 0.5).tanh())

    return ran(DDIMScheduler(num_train_timesteps=T, clip_sample=False), 0.0, TIMES, payoff=seen)


GUIDED: dict[str, Callable[[], Case]] = {
    "guidance": without_classifier,
    "classifier guidance": by_classifier,
    "cascade": cascade,
    "cold step": unblurring,
    "cold run": unblurred,
    "latent diffusion": decoded,
}
