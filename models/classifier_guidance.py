"""Classifier guidance (Dhariwal and Nichol 2021) of digits: a denoiser without labels, a classifier of noised ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn
from tqdm.auto import tqdm

from explain.guard import evaluating, random_states_kept
from models import checkpoints, ddpm, descent, judge
from models.datasets import Images
from models.ddpm import NULL
from models.descent import descend

SCALE = 4.0


class Trained(NamedTuple):
    """A denoiser without labels, the schedule, a classifier of noised digits, and how well they do together."""

    unet: Unlabelled
    scheduler: DDIMScheduler
    classifier: NoisedClassifier
    facts: dict[str, Any]


class Unlabelled(nn.Module):
    """``e_hat(x_t, t)``: a denoiser asked with its null label alone, which is what it would be without any.

    Args:
        unet: trained with labels that were dropped at random.
    """

    def __init__(self, unet: UNet2DModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The predicted noise."""
        return self.unet(x, t, class_labels=torch.full((len(x),), NULL, device=x.device)).sample


class NoisedClassifier(nn.Module):
    """Digits with noise ``x_t [n, 1, 8, 8]`` and their step ``t [n]`` to logits ``[n, 10]``.

    >>> NoisedClassifier()(torch.zeros(2, 1, 8, 8), torch.tensor([0, 900])).shape
    torch.Size([2, 10])
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.out = nn.Sequential(nn.Linear(16 * width, 128), nn.SiLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits."""
        when = self.time(get_timestep_embedding(t.expand(len(x)), 32))[:, :, None, None]
        h = F.silu(self.first(x) + when)
        h = F.avg_pool2d(F.silu(self.second(h) + when), 2)
        return self.out(h.flatten(1))


def load_or_train(
    *,
    scale: float = SCALE,
    iterations: int = 1500,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Trained:
    """The DDPM of `models.ddpm` without its labels, and a classifier, from the cache where they were trained before.

    ``facts["class_accuracy"]`` is the share of 500 guided samples that `models.judge`, which saw neither, takes for the
    digit that was asked for; ``facts["unguided"]`` that of samples without guidance. The schedule does not clip: what
    guidance moves beyond [-1, 1] would be cut off at every step, and of 200 samples 15 % came out as asked in place of
    97.5 %.
    """
    found = ddpm.load_or_train("digits", folder=folder, progress=progress)
    unet, data = Unlabelled(found.unet).eval(), found.info.data
    scheduler = DDIMScheduler.from_config(found.scheduler.config, clip_sample=False)
    classifier = _fresh(seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        train(classifier, data, scheduler, iterations=iterations, seed=seed, progress=progress)
        seen_by = judge.load_or_train("digits", folder=folder, progress=progress).module
        wanted = torch.arange(500) % 10
        facts = {}
        for name, strength in (("class_accuracy", scale), ("unguided", 0.0)):
            generator = torch.Generator().manual_seed(seed)
            made = sample(unet, scheduler, classifier, wanted, scale=strength, generator=generator, progress=progress)
            facts[name] = judge.accuracy(seen_by, Images(made, wanted))
        return classifier.state_dict(), facts

    code = sys.modules[__name__], ddpm, descent, judge
    settings = {"iterations": iterations, "scale": scale, "seed": seed, "diffusers": diffusers.__version__}
    kept = checkpoints.kept(
        "NoisedClassifier",
        checkpoints.origin("NoisedClassifier", code, [*data, *found.unet.parameters()], **settings),
        make,
        folder=folder,
        fresh=fresh,
    )
    classifier.load_state_dict(kept.state)
    return Trained(unet, scheduler, classifier.eval(), kept.facts)


def train(
    classifier: NoisedClassifier,
    data: Images,
    scheduler: DDIMScheduler,
    *,
    iterations: int = 1500,
    seed: int = 0,
    progress: bool = True,
) -> NoisedClassifier:
    """Minimise ``E -log p(y | a_t x_0 + s_t e, t)``, in place; global random states are kept."""
    with random_states_kept():
        torch.manual_seed(seed)
        classifier.train()

        def loss() -> Tensor:
            chosen = torch.randint(len(data.images), (128,))
            x0, t = data.images[chosen], torch.randint(scheduler.config.num_train_timesteps, (128,))
            noised = scheduler.add_noise(x0, torch.randn_like(x0), t)
            return F.cross_entropy(classifier(noised, t), data.labels[chosen])

        optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3)
        descend(loss, optimizer, iterations, name="classifier", progress=progress)
    return classifier.eval()


# --- Dhariwal and Nichol 2021, algorithm 2 ---


@torch.no_grad()
def sample(
    unet: Callable[[Tensor, Tensor], Tensor],
    scheduler: DDIMScheduler,
    classifier: NoisedClassifier,
    labels: Tensor,
    steps: int = 50,
    scale: float = SCALE,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> Tensor:
    """Images ``[n, 1, 8, 8]`` by DDIM with ``e - s_t scale grad log p(y | x_t)``; the scheduler is left as it is."""
    scheduler = DDIMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(steps)
    x = torch.randn(len(labels), 1, 8, 8, generator=generator)
    with evaluating(classifier):
        for t in tqdm(scheduler.timesteps, desc="sampling", disable=not progress, leave=False):
            with torch.enable_grad():
                seen = x.detach().requires_grad_()
                evidence = classifier(seen, t.expand(len(x))).log_softmax(1).gather(1, labels[:, None]).sum()
                gradient = torch.autograd.grad(evidence, seen)[0]
            noise = (1 - scheduler.alphas_cumprod[t]).sqrt()
            x = scheduler.step(unet(x, t.expand(len(x))) - noise * scale * gradient, t, x).prev_sample
    return x


def _fresh(seed: int) -> NoisedClassifier:
    with random_states_kept():
        torch.manual_seed(seed)
        return NoisedClassifier()
