"""Denoisers of 8 x 8 digits that train in seconds: what the panels of diffusion ask about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any, TypeVar

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn

from explain.guard import random_states_kept
from models import checkpoints, ddpm, descent, judge
from models.datasets import Images, digits
from models.ddpm import CLASSES, NULL, Recipe
from models.demo_digits import log_odds

Net = TypeVar("Net", bound=nn.Module)

DIGIT = 3
STEPS = 6
RECIPE = replace(ddpm.DIGITS, channels=(16, 16), iterations=300, batch_size=64, lr=3e-3, average=0.98)


def denoiser() -> tuple[UNet2DModel, DDIMScheduler]:
    """A DDPM and its schedule."""
    net = little(
        "DDPM", ddpm, lambda: ddpm.unet(RECIPE), lambda data: ddpm.train(data, RECIPE, progress=False)[0], RECIPE
    )
    return net, ddpm.ddim(RECIPE)


def little(
    name: str, code: ModuleType, build: Callable[[], Net], train: Callable[[Images], Net], recipe: Recipe
) -> Net:
    """A network trained on digits, in eval mode, from the cache where it was trained before.

    Args:
        name: of the network.
        code: the module that trains it.
        build: a fresh one.
        train: what it is trained by.
        recipe: its sizes and training.
    """
    learned, _ = digits()

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        with random_states_kept():
            torch.manual_seed(0)
            return train(learned).state_dict(), {}

    settings = {"of": "digits", "recipe": asdict(recipe), "diffusers": diffusers.__version__}
    config = checkpoints.origin(f"Little{name}", (code, train, ddpm, descent), learned, **settings)
    with random_states_kept():
        net = build()
    net.load_state_dict(checkpoints.kept(f"Little{name}", config, make).state)
    return net.eval()


@torch.no_grad()
def run_by_hand(net: UNet2DModel, schedule: Any, start: Tensor, told: Tensor) -> Tensor:
    """Where a run from ``start`` ends: a step has the label where ``told [steps]`` is true."""
    x = start
    schedule.set_timesteps(len(told))
    for t, known in zip(schedule.timesteps, told, strict=True):
        label = torch.tensor([DIGIT if known else NULL])
        x = schedule.step(net(x, t, class_labels=label).sample, t, x).prev_sample
    return x


def seen_by() -> nn.Module:
    """A judge of digits that no denoiser learned with."""
    return judge.load_or_train("digits", epochs=20, progress=False).module.requires_grad_(False)


def readable() -> Callable[[Tensor], Tensor]:
    """``samples [n, 1, 8, 8] -> log p/(1 - p) [n]`` of the digit, by the judge."""
    return log_odds(seen_by(), DIGIT)


def read(samples: Callable[[Tensor], Tensor]) -> str:
    """How many of ``samples(labels)``, ten of each digit, the judge takes for the digit asked for."""
    wanted = torch.arange(100) % CLASSES
    share = judge.accuracy(seen_by(), Images(samples(wanted), wanted))
    return f"{share:.0%} of 100 samples are read as the digit asked for"


def noise(*size: int, seed: int = 0) -> Tensor:
    """Where a run starts."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))
