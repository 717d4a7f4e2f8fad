"""One denoising step of a latent model, asked about pixels: the clean picture is filled, encoded and noised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explain.diffusion.bound import StepWeights
from explain.diffusion.denoiser import Condition, checked_image
from explain.diffusion.fills import checked_reference, clean_fill
from explain.diffusion.games import StepCoalitions
from explain.diffusion.objective import DenoisingObjective
from explain.diffusion.payoffs import PICTURES, check_payoff
from explain.diffusion.pipelines.coder import Coder
from explain.diffusion.pipelines.doubts import said_of_spread
from explain.diffusion.players import image_players, label_player, owner_of_pixels
from explain.diffusion.settings import checked_region
from explain.diffusion.targets import StepTarget
from explain.diffusion.trained import TrainedDenoiser
from explain.diffusion.training_set import training_set
from explain.examples import Read
from explain.guard import usual_modes
from explain.payoffs import one_a_row, payoff_name
from explain.spelling import came
from explain.types import Differentiable, Game, Masks, Objective, Players, Values, present_atoms

FILLS = ("mean", "reference", "zeros")
_ENCODED = 32  # training pictures that the VAE is given at once
Encoded = Callable[[list[Any]], Condition]


@dataclass(frozen=True)
class Asking:
    """What a pipeline was asked with: for the answer, and for training pictures.

    Args:
        pipeline: its name.
        condition: the prompt or class.
        negative: the negative prompt.
        encoded: the network's conditions for captions or classes, one row each.
    """

    pipeline: str
    condition: Any
    negative: str | None
    encoded: Encoded


class PictureStep(StepTarget):
    """The number that a pipeline's network says about a noised picture, as a question about its pixels.

    Patches and superpixels are of the clean picture ``[3, H, W]`` in [0, 1]: it is filled, encoded and noised, with the
    noise that all coalitions share. Payoffs "x0" and functions see ``x0_hat`` decoded, and so does the region; "error",
    "evidence" and "norm" are of the noise in the latent, where a region counts each place by its share of pixels.
    Training pictures are pixels too, and their captions text.

    See `PipelineModel.step` for the settings.
    """

    def __init__(
        self,
        model: TrainedDenoiser,
        coder: Coder,
        picture: Tensor,
        steps: tuple[float, ...],
        condition: Condition | None,
        asking: Asking,
        seed: int,
        draws: int,
        payoff: str | Callable[[Tensor], Tensor],
        region: Tensor | None,
        guidance: float,
        fill: str,
        reference: Tensor | None,
        batch_size: int | None,
        weights: StepWeights | None,
    ) -> None:
        if fill not in FILLS:
            raise ValueError(
                f"fill of a picture must be one of {', '.join(FILLS)}, {came(fill, FILLS)}"
                + (": noise has no place in a picture, space='latents' has it" if fill == "noise" else "")
            )
        self.coder, self.picture, self.asked_with, self.said_payoff = coder, picture, asking, payoff
        self.pixel_region = checked_region(region, picture.shape[1:]).to(picture.device)
        if payoff == "elbo" and region is not None:
            raise ValueError("the bound is of the whole latent: ask for payoff='elbo' without a region")
        with torch.no_grad():
            latent = coder.encode(picture[None])[0]
            if callable(payoff):
                check_payoff(payoff, coder.decode(latent[None]), PICTURES)
        seen = self._decoded if callable(payoff) or payoff == "x0" else payoff
        super().__init__(
            model, latent, steps, condition, seed, draws, seen, None, guidance, "mean", None, batch_size, weights
        )
        self.fill, self.reference = fill, None if reference is None else checked_pictures(reference, picture)
        if region is not None and isinstance(seen, str):
            self.region = _shares(self.pixel_region, latent)
        self.assumed = {k: v for k, v in self.assumed.items() if k != "x0"} | self._said(latent)

    def _decoded(self, clean: Tensor) -> Tensor:
        """The payoff of ``x0_hat``, decoded."""
        pictures = self.coder.decode(clean)
        if callable(self.said_payoff):
            return one_a_row(self.said_payoff(pictures), len(pictures), "picture")
        where = self.pixel_region.to(pictures)
        return (pictures * where).flatten(1).sum(1) / (where.sum() * pictures.size(1))

    def _said(self, latent: Tensor) -> dict[str, str]:
        """What is to be known of the way to the latent and back."""
        if self.coder.vae is None:
            return {"x0": "a picture in [0, 1], which the network sees as 2 x - 1"}
        with torch.no_grad():
            lost = float((self.coder.decode(latent[None])[0] - self.picture).abs().mean())
        found = {
            "x0": f"a picture in [0, 1], as the mean of the VAE encodes it; decoded it is {lost:.2g} off on average"
        }
        if odd := said_of_spread(latent):
            found["vae"] = odd
        return found

    @cached_property
    def absent(self) -> Tensor:
        """What absent pixels show, ``[1, 3, H, W]``; one reference picture a draw ``[K, 3, H, W]`` for "reference".

        Raises:
            ValueError: "reference" without pictures.
        """
        generator = torch.Generator().manual_seed(self.seed + 1)
        return clean_fill(self.picture, len(self.times), self.fill, self.reference, generator, grey=0.5)

    def noised_from(self, pictures: Tensor) -> Tensor:
        """``x_t [b, K, C, h, w]`` of clean pictures ``[b, 1, 3, H, W]``, or one a draw ``[b, K, 3, H, W]``."""
        latents = self.coder.encode(pictures.flatten(0, 1)).view(*pictures.shape[:2], *self.image.shape)
        rows = latents.expand(len(pictures), *self.noise.shape).flatten(0, 1)
        noise, times = self.noise.repeat(len(pictures), 1, 1, 1), self.times.repeat(len(pictures))
        return self.model.process.noised(rows, noise, times).view(len(pictures), *self.noise.shape)

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "patches" (``size=``) or "superpixels" (``segments=``) of the picture, "labels", "steps"."""
        if kind in ("patches", "superpixels"):
            return image_players(self.picture, kind, options)
        if kind == "labels" and self.label is not None:
            return label_player("prompt" if isinstance(self.asked_with.condition, str) else self._condition_name())
        return super().players(kind, **options)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of parts of the picture, or of the prompt."""
        players = self._resolved(players)
        if players.kind not in ("patches", "superpixels"):
            return super().game(players)
        return PictureCoalitions(self, players).game()

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of clean pictures ``[1, 1 or K, 3, H, W]``; the baseline is the fill."""
        owner = owner_of_pixels(self._resolved(players), self.picture.shape[1:]).to(self.picture.device)
        baseline = self.absent[None]
        inputs = self.picture.expand_as(baseline).clone()
        return Differentiable(
            inputs, baseline, lambda x: self.numbers(self.noised_from(x)), owner.expand_as(baseline[0]), self.fill
        )

    def pixels(self) -> Tensor:
        """The pixels that the number is read from, as positions in ``[H * W]``."""
        return self.pixel_region.reshape(-1).nonzero().view(-1).cpu()

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training pictures, ``train=(pictures [n, 3, H, W] in [0, 1], captions)``.

        Pictures are encoded and captions read as the pipeline does. Classes, of pipelines that take them.
        """
        if train is None or isinstance(train, Read):  # the latter of another number's objective: latents
            return super().objective(train, remove)
        pictures, beside = _pairs(train, self.picture)
        checked = checked_pictures(pictures, self.picture, "training pictures")
        with usual_modes(), torch.no_grad():
            latents = torch.cat([self.coder.encode(part) for part in checked.split(_ENCODED)])
            conditions = None if beside is None else self.asked_with.encoded(beside)
        made = super().objective((latents, conditions), remove)
        assert isinstance(made, DenoisingObjective)
        names = tuple(
            f"image {i}" if beside is None else f"image {i} ({beside[i]})" for i in made.players.index.tolist()
        )
        players = replace(made.players, names=names, geometry={**made.players.geometry, "images": checked.cpu()})
        return replace(made, players=players)

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        said = {"prompt": self.asked_with.condition, "negative": self.asked_with.negative}
        return super().describe() | {
            "model": self.asked_with.pipeline,
            **(said if isinstance(self.asked_with.condition, str) else {"label": self.asked_with.condition}),
            "payoff": payoff_name(self.said_payoff),
            "space": "pixels",
            "region": int(self.pixel_region.sum()),
        }


@dataclass(frozen=True, eq=False)
class PictureCoalitions(StepCoalitions):
    """The number for masks over parts of the clean picture: filled, encoded, noised."""

    number: PictureStep
    fill: str = ""
    reference: Tensor | None = None

    @property
    def removal(self) -> str:
        """What absent parts show."""
        return f"{self.number.fill} of the clean picture"

    @cached_property
    def owner(self) -> Tensor:
        """The player of each pixel, int64 ``[H, W]``; -1 for pixels that nobody owns."""
        return owner_of_pixels(self.players, self.number.picture.shape[1:]).to(self.number.picture.device)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        number = self.number
        with torch.no_grad():
            present = present_atoms(masks.to(self.owner.device), self.owner)[:, None, None]
            return number.numbers(number.noised_from(torch.where(present, number.picture, number.absent)))


def as_tensor(x0: Any) -> Any:
    """A PIL image as a picture ``[3, H, W]`` in [0, 1]; whatever else is given as it is."""
    if not hasattr(x0, "convert"):
        return x0
    return torch.from_numpy(np.array(x0.convert("RGB"))).movedim(-1, 0).float() / 255


def checked_picture(x0: Any, like: torch.dtype) -> Tensor:
    """A picture ``[3, H, W]`` in [0, 1], as the pipeline takes and gives them.

    Raises:
        TypeError: whole numbers.
        ValueError: another shape or range.
    """
    if isinstance(x0, Tensor) and not x0.dtype.is_floating_point:
        raise TypeError(f"x0 must be a picture of floats in [0, 1], got {x0.dtype}: of 0 to 255 give x0 / 255")
    picture = checked_image(x0, like)
    if picture.dim() != 3 or picture.size(0) not in (1, 3):
        remedy = "a latent is asked about with space='latents'" if picture.dim() == 3 else "ask about one, x0[i]"
        raise ValueError(f"x0 must be a picture [3, H, W] in [0, 1], got {list(picture.shape)}: {remedy}")
    low, high = float(picture.min()), float(picture.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"x0 must be a picture in [0, 1], as the pipeline gives them, got values from {low:.3g} to {high:.3g}: of "
            "[-1, 1] give x / 2 + 0.5, of 0 to 255 x / 255; a latent is asked about with space='latents'"
        )
    return picture


def checked_pictures(pictures: Any, picture: Tensor, what: str = "reference") -> Tensor:
    """Pictures ``[m, 3, H, W]`` in [0, 1], of the size of the one that is asked about.

    Raises:
        ValueError: another shape or range.
    """
    found = checked_reference(pictures, picture)
    if float(found.min()) < 0 or float(found.max()) > 1:
        raise ValueError(
            f"{what} must be pictures in [0, 1], got values from {float(found.min()):.3g} to {float(found.max()):.3g}"
        )
    return found


def _pairs(train: Any, like: Tensor) -> tuple[Any, list[Any] | None]:
    """Pictures, and their captions or classes.

    Raises:
        ValueError: another number of captions than of pictures.
    """
    if isinstance(train, (tuple, list)) and len(train) == 2 and isinstance(train[0], Tensor) and train[0].dim() == 4:
        pictures, beside = train
    else:
        pictures, beside, _ = training_set(train, like)
        pictures = pictures if isinstance(pictures, Tensor) else pictures[torch.arange(len(pictures))]
    found = beside.tolist() if isinstance(beside, Tensor) else beside
    if found is not None and len(found) != len(pictures):
        raise ValueError(f"{len(pictures)} training pictures need as many captions, got {len(found)}")
    return pictures, None if found is None else list(found)


def _shares(region: Tensor, latent: Tensor) -> Tensor:
    """The share of each place of a latent ``[C, h, w]`` that lies in a region of pixels ``[H, W]``, ``[h, w]``."""
    return torch.nn.functional.interpolate(region[None, None].float(), latent.shape[1:], mode="area")[0, 0]
