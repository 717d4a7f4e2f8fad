"""Cascaded diffusion (Ho et al. 2022) of handwritten digits: 4 x 4 first, then to 8 x 8 given what the first made.

The second stage learns with *noise conditioning augmentation*: what it is given is noised, as far as a level says that
it is given too, so that it forgives what the first stage gets wrong.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any, NamedTuple

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm.auto import tqdm

from explain.guard import evaluating, random_states_kept
from models import checkpoints, ddpm, descent, judge
from models.datasets import Images, digits
from models.ddpm import CLASSES, NULL, Recipe
from models.descent import descend

SMALL = Recipe(size=4, channels=(32, 32), attention=(False, True), iterations=800)
LARGE = Recipe(size=8, channels=(32, 32), attention=(False, True), iterations=800)
LEVEL = 0.2  # at sampling; in training from 0 to the most
MOST = 0.6


class SuperResolution(nn.Module):
    """``e_hat(x_t, t, label, low, level)``, digits of 8 x 8 given one of 4 x 4.

    Args:
        recipe: of its U-Net, which sees ``x_t``, the small picture made wide, and the level as a third channel.
    """

    def __init__(self, recipe: Recipe = LARGE) -> None:
        super().__init__()
        self.unet = UNet2DModel.from_config({**ddpm.unet(recipe).config, "in_channels": 3})

    def forward(self, x: Tensor, t: Tensor, label: Tensor, low: Tensor, level: Tensor) -> Tensor:
        """The predicted noise; ``low [n, 1, 4, 4]`` as augmented, ``level [n]`` from 0 to 1."""
        wide = F.interpolate(low, scale_factor=2, mode="nearest")
        seen = torch.cat([x, wide, level.view(-1, 1, 1, 1).expand_as(x)], 1)
        return self.unet(seen, t, class_labels=label).sample


class Trained(NamedTuple):
    """Both stages, their schedule, and how well they do together."""

    small: UNet2DModel
    large: SuperResolution
    scheduler: DDIMScheduler
    facts: dict[str, Any]


def load_or_train(
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
    small: Recipe = SMALL,
    large: Recipe = LARGE,
) -> Trained:
    """Both stages, from the cache where they were trained before; some three minutes of one core.

    ``facts["class_accuracy"]`` is the share of 500 cascaded samples that `models.judge` takes for the digit that was
    asked for; ``facts["by_level"]`` that at other levels of augmentation.
    """
    data, _ = digits()

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        first, _ = ddpm.train(Images(lowered(data.images), data.labels), small, seed=seed, progress=progress)
        second = train(data, large, seed=seed, progress=progress)
        seen_by = judge.load_or_train("digits", folder=folder, progress=progress).module
        wanted = torch.arange(500) % CLASSES
        by_level = {}
        for level in (0.0, LEVEL, 0.4, MOST):
            generator = torch.Generator().manual_seed(seed)
            made = sample(first, second, ddpm.ddim(large), wanted, level=level, generator=generator, progress=progress)
            by_level[f"{level:g}"] = judge.accuracy(seen_by, Images(made, wanted))
        weights = {f"small.{name}": value for name, value in first.state_dict().items()}
        weights |= {f"large.{name}": value for name, value in second.state_dict().items()}
        return weights, {"class_accuracy": by_level[f"{LEVEL:g}"], "by_level": by_level}

    code = sys.modules[__name__], ddpm, descent, judge
    settings = {"small": asdict(small), "large": asdict(large), "seed": seed, "diffusers": diffusers.__version__}
    config = checkpoints.origin("CascadedDiffusion", code, data, **settings)
    found = checkpoints.kept("CascadedDiffusion", config, make, folder=folder, fresh=fresh)
    with random_states_kept():
        first, second = ddpm.unet(small), SuperResolution(large)
    for net, part in ((first, "small."), (second, "large.")):
        net.load_state_dict({n.removeprefix(part): v for n, v in found.state.items() if n.startswith(part)})
    return Trained(first.eval(), second.eval(), ddpm.ddim(large), found.facts)


def lowered(images: Tensor) -> Tensor:
    """Pictures ``[n, 1, 8, 8]`` as the first stage knows them, ``[n, 1, 4, 4]``: the mean of each square."""
    return F.avg_pool2d(images, 2)


def augmented(low: Tensor, level: Tensor | float, noise: Tensor) -> Tensor:
    """``sqrt(1 - s^2) low + s e``, noised to a level ``s`` in ``[0, 1]``, one or ``[n]``."""
    s = torch.as_tensor(level).to(low).view(-1, 1, 1, 1)
    return (1 - s**2).sqrt() * low + s * noise


def train(data: Images, recipe: Recipe = LARGE, *, seed: int = 0, progress: bool = True) -> SuperResolution:
    """Minimise ``E |e - e_hat(a_t x_0 + s_t e, t, label, augmented low, level)|^2`` over levels from 0 to `MOST`.

    Returns:
        The second stage with the moving average of its weights, in eval mode; global random states are kept.
    """
    with random_states_kept():
        torch.manual_seed(seed)
        net = SuperResolution(recipe).train()
        noising, average = ddpm.ddpm(recipe), EMAModel(net.parameters(), decay=recipe.average)

        def loss() -> Tensor:
            chosen = torch.randint(len(data.images), (recipe.batch_size,))
            x0, labels = data.images[chosen], data.labels[chosen]
            labels = labels.where(torch.rand(len(labels)) >= recipe.drop, NULL)
            t, level = torch.randint(recipe.steps, (len(x0),)), MOST * torch.rand(len(x0))
            e, low = torch.randn_like(x0), lowered(x0)
            given = augmented(low, level, torch.randn_like(low))
            return F.mse_loss(net(noising.add_noise(x0, e, t), t, labels, given, level), e)

        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
        descend(
            loss,
            optimizer,
            recipe.iterations,
            then=lambda _: average.step(net.parameters()),
            name="super-resolution",
            progress=progress,
        )
        average.copy_to(net.parameters())
    return net.eval()


@torch.no_grad()
def sample(
    small: UNet2DModel,
    large: SuperResolution,
    scheduler: DDIMScheduler,
    labels: Tensor,
    steps: int = 25,
    guidance: float = 2.0,
    level: float = LEVEL,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> Tensor:
    """Images ``[n, 1, 8, 8]``: the first stage's samples, augmented to a level, and the second stage given them."""
    low = ddpm.sample(small, scheduler, labels, steps, guidance, generator=generator, progress=progress)
    low = augmented(low, level, torch.randn(low.shape, generator=generator))
    scheduler = DDIMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(steps)
    x, null = torch.randn(len(labels), 1, 8, 8, generator=generator), torch.full_like(labels, NULL)
    levels = torch.full((len(labels),), level)
    with evaluating(large):
        for t in tqdm(scheduler.timesteps, desc="sampling", disable=not progress, leave=False):
            c, u = (large(x, t.expand(len(x)), y, low, levels) for y in (labels, null))
            x = scheduler.step(u + guidance * (c - u), t, x).prev_sample
    return x
