"""DDPM (Ho et al. 2020) of handwritten digits, guided without a classifier (Ho and Salimans 2021), sampled by DDIM."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from explain.guard import evaluating, random_states_kept
from models import checkpoints, descent, judge
from models.datasets import Images, images
from models.descent import descend

CLASSES = 10
NULL = CLASSES  # the label that stands for no label


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is built and trained.

    Args:
        size: of the square images.
        channels: of each resolution, halved from one to the next.
        attention: at which of them.
        blocks: residual blocks of each.
        iterations: batches drawn.
        batch_size: images of each.
        lr: Adam's; warmed up over the first twentieth, then a half cosine to zero.
        drop: how often the label is replaced by the null label.
        average: decay of the exponential moving average of the weights.
        steps: ``T``; betas run linearly from 1e-4 to 0.02 (Ho et al. 2020, section 4).
    """

    size: int
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    blocks: int = 1
    iterations: int = 3000
    batch_size: int = 128
    lr: float = 1e-3
    drop: float = 0.1
    average: float = 0.995
    steps: int = 1000


DIGITS = Recipe(size=8, channels=(32, 32), attention=(False, True), iterations=800)
MNIST = Recipe(28, (32, 64, 64), (False, True, True), lr=5e-4, average=0.999)
RECIPES = {"digits": DIGITS, "mnist": MNIST}


class Trained(NamedTuple):
    """What `load_or_train` gives.

    ``unet`` has the averaged weights, which samples are drawn with; ``info.last`` those that the loss was minimised in.
    """

    unet: UNet2DModel
    scheduler: DDIMScheduler
    info: Info


class Info(NamedTuple):
    """How well the model does, its last weights before averaging, its training images, and where it is kept."""

    facts: dict[str, Any]
    last: dict[str, Tensor]
    data: Images
    cached: bool
    path: os.PathLike[str]


def load_or_train(
    data: str = "digits",
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """A class-conditional DDPM of ``data``, from the cache where it was trained before.

    ``info.facts`` has "class_accuracy", the share of 500 guided DDIM samples that `models.judge` sees as the digit
    asked for, and "judge_accuracy", the judge's own on real digits that it never saw.

    Args:
        data: "digits" (8 x 8, some two minutes of one core), or "mnist" (28 x 28, hours of one core).
        recipe: `DIGITS` or `MNIST` when None.
        seed: of weights, batches, noise and dropped labels.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.
        progress: shows tqdm.

    Raises:
        ValueError: unknown data, or a recipe for images of another size.
        FileNotFoundError: MNIST is not at hand.
    """
    learned, _ = images(data)
    recipe = recipe or RECIPES[data]
    if learned.images.shape[1:] != (1, recipe.size, recipe.size):
        raise ValueError(f"{data} has images {list(learned.images.shape[1:])}, the recipe is for size {recipe.size}")

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        averaged, last = train(learned, recipe, seed=seed, progress=progress)
        seen_by = judge.load_or_train(data, folder=folder, progress=progress)
        wanted = torch.arange(500) % CLASSES
        generator = torch.Generator().manual_seed(seed)
        samples = sample(averaged, ddim(recipe), wanted, generator=generator, progress=progress)
        facts = {
            "class_accuracy": judge.accuracy(seen_by.module, Images(samples, wanted)),
            "judge_accuracy": seen_by.facts["accuracy"],
        }
        weights = {f"averaged.{name}": value for name, value in averaged.state_dict().items()}
        return weights | {f"last.{name}": value for name, value in last.state_dict().items()}, facts

    found = checkpoints.kept("DDPM", _config(data, learned, recipe, seed), make, folder=folder, fresh=fresh)
    averaged, last = _parts(found.state)
    return Trained(_loaded(recipe, averaged), ddim(recipe), Info(found.facts, last, learned, found.cached, found.path))


def load(path: str | os.PathLike[str]) -> tuple[UNet2DModel, DDIMScheduler]:
    """The averaged weights and the schedule of a file that `load_or_train` wrote.

    Raises:
        ValueError: a pickle, a damaged file, or a checkpoint of another model.
        OSError: no such file, or it cannot be read.
    """

    def build(state: dict[str, Tensor], config: dict[str, Any]) -> tuple[UNet2DModel, DDIMScheduler]:
        recipe = Recipe(**config["recipe"])
        return _loaded(recipe, _parts(state)[0]), ddim(recipe)

    return checkpoints.rebuilt(path, build)


# --- Ho et al. 2020 ---


def unet(recipe: Recipe) -> UNet2DModel:
    """The denoiser ``e_hat(x_t, t, label)``, with ten labels and the null label."""
    down = tuple("AttnDownBlock2D" if attends else "DownBlock2D" for attends in recipe.attention)
    up = tuple("AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(recipe.attention))
    return UNet2DModel(
        sample_size=recipe.size,
        in_channels=1,
        out_channels=1,
        layers_per_block=recipe.blocks,
        block_out_channels=recipe.channels,
        down_block_types=down,
        up_block_types=up,
        attention_head_dim=8,
        norm_num_groups=8,
        num_class_embeds=CLASSES + 1,
    )


def train(data: Images, recipe: Recipe, *, seed: int = 0, progress: bool = True) -> tuple[UNet2DModel, UNet2DModel]:
    """Minimise ``E |e - e_hat(a_t x_0 + s_t e, t, label)|^2`` (Ho et al. 2020, algorithm 1).

    Labels are replaced by the null label at random (Ho and Salimans 2021, algorithm 1). Global random states are kept.

    Returns:
        The denoiser with the moving average of its weights, and with the last weights themselves; both in eval mode.
    """
    with random_states_kept():
        torch.manual_seed(seed)
        net = unet(recipe).train()
        noising = ddpm(recipe)
        average = EMAModel(net.parameters(), decay=recipe.average)
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)

        def loss() -> Tensor:
            chosen = torch.randint(len(data.images), (recipe.batch_size,))
            x0, labels = data.images[chosen], data.labels[chosen]
            labels = labels.where(torch.rand(len(labels)) >= recipe.drop, NULL)
            t = torch.randint(recipe.steps, (len(x0),))
            e = torch.randn_like(x0)
            e_hat = net(noising.add_noise(x0, e, t), t, class_labels=labels).sample
            return F.mse_loss(e_hat, e)

        def then(_: int) -> None:
            average.step(net.parameters())

        descend(loss, optimizer, recipe.iterations, then=then, name="DDPM", progress=progress)
        last = net.eval()
        averaged = copy.deepcopy(last)
        average.copy_to(averaged.parameters())
    return averaged, last


def ddpm(recipe: Recipe) -> DDPMScheduler:
    """The process that the noise comes by."""
    return DDPMScheduler(num_train_timesteps=recipe.steps, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)


def ddim(recipe: Recipe) -> DDIMScheduler:
    """The same process, sampled without noise in fewer steps (Song et al. 2021)."""
    return DDIMScheduler.from_config(ddpm(recipe).config)


# --- Song et al. 2021, Ho and Salimans 2021 ---


@torch.no_grad()
def sample(
    unet: UNet2DModel,
    scheduler: DDIMScheduler | DDPMScheduler,
    labels: Tensor,
    steps: int = 25,
    guidance: float = 2.0,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> Tensor:
    """Images ``[n, C, H, W]`` of these labels, denoised from noise with ``u + guidance (c - u)``.

    ``c`` and ``u`` are the predictions with the label and with the null label; guidance 1 is the plain conditional
    model (Ho and Salimans 2021, whose ``w`` is guidance - 1). A `DDIMScheduler` takes the steps of Song et al. 2021
    (eta 0). The scheduler is copied; unet and global random states are as before.

    Args:
        unet: the denoiser.
        scheduler: `ddim`'s, or `ddpm`'s for sampling with noise (Ho et al. 2020, algorithm 2).
        labels: ``[n]`` classes.
        steps: of the scheduler.
        guidance: see above.
        generator: of the noise.
        progress: shows tqdm.
    """
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    null = torch.full_like(labels, unet.config.num_class_embeds - 1)
    size = (len(labels), unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    x = torch.randn(size, generator=generator)
    with evaluating(unet):
        for t in tqdm(scheduler.timesteps, desc="sampling", disable=not progress, leave=False):
            c, u = unet(torch.cat([x, x]), t, class_labels=torch.cat([labels, null])).sample.chunk(2)
            x = scheduler.step(u + guidance * (c - u), t, x, generator=generator).prev_sample
    return x


# --- checkpoints ---


def _config(data: str, learned: Images, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Everything that the weights hang on."""
    code = sys.modules[__name__], descent, judge
    settings = {"of": data, "recipe": asdict(recipe), "seed": seed, "diffusers": diffusers.__version__}
    return checkpoints.origin("DDPM", code, learned, **settings)


def _parts(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    averaged, last = (
        {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        for part in ("averaged.", "last.")
    )
    return averaged, last


def _loaded(recipe: Recipe, state: dict[str, Tensor]) -> UNet2DModel:
    with random_states_kept():  # the first weights are drawn, then replaced
        net = unet(recipe)
    net.load_state_dict(state)
    return net.eval()
