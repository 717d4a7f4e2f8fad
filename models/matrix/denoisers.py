"""Representatives that denoise pictures."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

import explain
from explain.types import Players
from models.matrix.case import Case, Smooth
from models.matrix.graphs import stirred

SHAPE, STEPS, STEP, DRAWS = (1, 2, 3), 20, 8, 2


class _Denoiser(nn.Module):
    """The noise in pictures ``[n, 1, 2, 3]``, by two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.last((self.first(x) + t.view(-1, 1, 1, 1) / STEPS).tanh())


def denoiser() -> Case:
    """One step of a DDPM: how well it foresees the noise in a picture, patches of it mid-grey."""
    net, scheduler = stirred(_Denoiser()), DDPMScheduler(num_train_timesteps=STEPS)
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(*SHAPE, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(DRAWS, *x0.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = scheduler.alphas_cumprod[STEP].double()
    model = explain.wrap(net, scheduler=scheduler, shape=SHAPE, time="step", prediction_type="epsilon")

    def noised(clean: Tensor) -> Tensor:
        return kept.sqrt() * clean + (1 - kept).sqrt() * noise

    def number(noised: Tensor) -> Tensor:
        foreseen = net(noised, torch.full((DRAWS,), STEP))
        return -(noise - foreseen).square().flatten(1).sum(1).mean()

    def patches(players: Players, there: Tensor) -> Tensor:
        owner = players.geometry["labels"]
        with torch.no_grad():
            return number(noised(torch.where(torch.isin(owner, there.nonzero()[:, 0])[None], x0, 0.0)))

    def pixels(players: Players) -> Smooth:
        owner = players.geometry["labels"].expand(DRAWS, *SHAPE)
        return Smooth(noised(x0), noised(torch.zeros_like(x0)), owner, number)

    target = model.step(x0, STEP, draws=DRAWS, seed=0, fill="zeros")
    return Case(target, {"patches": patches}, {"patches": pixels})


DENOISERS = {"DDPM step": denoiser}
