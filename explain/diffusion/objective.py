"""The denoising loss of a training image, averaged over fixed draws of step and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from explain.diffusion.players import pixel_players
from explain.diffusion.sites import tiled
from explain.diffusion.trained import TrainedDenoiser
from explain.diffusion.training_set import Conditions, Labels, check_answers, conditions_of, fitting, training_set
from explain.examples import Read, Rows, pieces
from explain.guard import evaluating
from explain.losses import of_values
from explain.training import TrainingObjective, check_own_loss, trainable
from explain.types import Parameters, Players, Unsupported

_GALLERY = 5_000  # more training images than this are not kept for pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingObjective(TrainingObjective):
    """The denoising loss of training images.

    Args:
        images: ``[n, *shape]``, or read from a data set as they are asked for.
        beside: labels or named arguments, one row an image.
        told: what was taken to be the trained loss, for the answer.
        asked: with other parameters, what is predicted for the image that is explained, ``[1, K, *shape]``; None of a
            run.
        noising: the fixed draws under which they are predicted.
    """

    images: Tensor | Rows
    beside: Labels
    noising: Noising
    told: Mapping[str, Any] = field(default_factory=dict, compare=False)
    asked: Callable[[Parameters], Tensor] | None = None

    def answer(self, params: Parameters) -> Tensor:
        """The network's predictions for the image that is explained, ``[1, K, *shape]`` of its draws of noise.

        Raises:
            Unsupported: a run is explained.
        """
        if self.asked is None:
            raise Unsupported(
                "a run has no one image that is noised: ask about steps of what it made, model.step(x0, t=[...])"
            )
        return self.asked(params)

    @property
    def inputs(self) -> Tensor | Rows:
        """The training images, `images`."""
        return self.images

    def losses(self, params: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of images ``[k, *shape]``, each with the conditions of the one at its position, ``labels [k]``."""
        return self.noising.loss_of(self.noising.foreseen(params, inputs, labels), inputs)

    def losses_of(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of predictions ``[k, K, *shape]`` for the images at positions ``labels [k]``."""
        return self.noising.loss(outputs, labels)

    def input_players(self, example: int) -> Players:
        """The pixels of a training image, one a channel, or the sites of what else it is, in the flattened order.

        Raises:
            IndexError: no such training image.
        """
        if not 0 <= example < self.size:
            raise IndexError(f"a training image must be from 0 to {self.size - 1}, got {example}")
        return pixel_players(self.images[example])

    def replaced(self, positions: Tensor, inputs: Tensor) -> Self:
        """Nothing: a model is poisoned to predict another class.

        Raises:
            Unsupported: a denoiser predicts none.
        """
        raise Unsupported(
            "poisoning trains again on other images until another class is predicted, and a denoiser predicts none: "
            "Perturbation says what other pixels of one training image would do"
        )

    @property
    def train(self) -> Read:
        """Images and what is beside them, for another number of the same model."""
        return Read((self.images, self.beside), self.players.index)

    def content(self) -> Iterator[Tensor]:
        """All that a training image is, in pieces that fit in memory."""
        conditions = self.beside if isinstance(self.beside, dict) else {"": self.beside}
        for part in (self.images, *conditions.values()):
            yield from () if part is None else pieces(part)
        yield from super().content()


class Measured(Protocol):
    """A number of a trained denoiser: at a step, of a run, of a pipeline's run."""

    @property
    def model(self) -> TrainedDenoiser:
        """The denoiser and all that is known of its training."""

    @property
    def like(self) -> Tensor:
        """An image ``[C, H, W]`` of the size that it was trained on."""

    def measured(self, params: Parameters) -> Tensor:
        """The number with other parameters, a scalar."""


def training_objective(number: Measured, train: Any, remove: str | Players = "labels") -> DenoisingObjective:
    """``J(theta) = (1/n) sum_i mean_k |wanted_ik - D(x_ik, t_k)|^2 / d + weight_decay/2 |theta|^2``, ``d`` numbers an
    image.

    ``wanted`` is what the model was trained to predict (noise, image or v). The ``K`` draws of step and noise are fixed
    and shared by all images: steps spread evenly over the schedule, noise from a seed, so that the loss is a function.

    Args:
        number: the number in question.
        train: images ``[n, *shape]``, or ``(images, labels [n])``, a Dataset or a DataLoader of such pairs; labels
            may be embeddings ``[n, ...]``, or named arguments with one row an image. A map-style data set above 256 MiB
            is read a batch at a time; only its classes are kept. Or the ``train`` of another number's objective.
        remove: "labels": an image leaves the loss.

    Raises:
        ValueError: no training images, images of another size, labels of another number, another ``remove``, or a data
            set that gives others each time it is asked.
        TypeError: a data set of something else.
    """
    if remove != "labels":
        raise ValueError(f'remove must be "labels" (an image leaves the training loss), got {remove!r}')
    model, image = number.model, number.like
    given, beside, positions = training_set(train, image)
    images = fitting(given, image)
    conditions = conditions_of(model, beside, len(images))
    check_answers(model, images, conditions, image)
    noising = Noising(model, images, conditions, *draws(model, image))
    made = DenoisingObjective(
        params=trainable(model.module),
        players=Players("train", positions, _names(beside, positions), None, _gallery(images, beside)),
        predict=noising.predict,
        labels=torch.arange(len(images), device=images.device),
        number=number.measured,
        loss_of=noising.loss,
        weight_decay=model.weight_decay,
        batch_size=max(1, 2**22 // max(1, image.numel() * len(noising.times) * 16)),
        convex=not callable(model.loss),
        module=model.module,
        labelled=False,
        data=(noising.times, noising.noise),
        images=images,
        beside=beside,
        noising=noising,
        told=_told(model),
        asked=getattr(number, "predictions", None),
    )
    check_own_loss(made)
    return made


@dataclass(frozen=True, eq=False)
class Noising:
    """The training images under the fixed draws: ``K`` noised copies of each, what is predicted and what is wanted.

    Args:
        model: the denoiser and its process.
        images: ``[n, *shape]``.
        conditions: one row an image.
        times: ``[K]``.
        noise: ``[K, *shape]``.
    """

    model: TrainedDenoiser
    images: Tensor | Rows
    conditions: Conditions
    times: Tensor
    noise: Tensor

    def predict(self, params: Parameters, batch: Tensor) -> Tensor:
        """Predictions for the images at these positions, ``[k, K, *shape]``."""
        return self.foreseen(params, self.images[batch], batch)

    def foreseen(self, params: Parameters, images: Tensor, batch: Tensor) -> Tensor:
        """Predictions for ``images [k, *shape]`` with the conditions at these positions, ``[k, K, *shape]``."""
        x0, e, t = self._drawn(images)
        copies = len(self.times)
        condition = {name: rows[batch].repeat_interleave(copies, 0) for name, rows in self.conditions.items()}
        with evaluating(self.model.module):
            out = self.model.module.with_parameters(params)(self.model.process.noised(x0, e, t), t, condition)
        return out.view(len(batch), *self.noise.shape)

    def loss(self, predictions: Tensor, batch: Tensor) -> Tensor:
        """The trained loss of the images at these positions, ``[k]``."""
        return self.loss_of(predictions, self.images[batch])

    def loss_of(self, predictions: Tensor, images: Tensor) -> Tensor:
        """The trained loss of each of these ``images [k, *shape]``, ``[k]``."""
        loss = self.model.loss
        loss_of = loss if callable(loss) else of_values(loss or "mse")
        return loss_of(predictions, self.model.process.wanted(*self._drawn(images)).view(predictions.shape))

    def _drawn(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images, noise and steps, a row for every image and draw."""
        x0 = images.repeat_interleave(len(self.times), 0)
        return x0, tiled(self.noise, len(images)), self.times.repeat(len(images))


def draws(model: TrainedDenoiser, like: Tensor) -> tuple[Tensor, Tensor]:
    """The fixed steps ``[K]`` and noise ``[K, *shape]`` that every training image is measured with."""
    count = model.draws
    times = model.process.spread(count)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *like.shape, generator=generator, dtype=torch.float64)
    return times.to(like.device), noise.to(like)


def _told(model: TrainedDenoiser) -> dict[str, Any]:
    """Which loss the training is taken to have had."""
    loss = model.loss
    if loss is None:
        assumed = "mse of the prediction, every step alike: another as loss= of explain.wrap"
        return {"loss": "mse", "assumed": {"loss": assumed}}
    return {"loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "callable")}


def _names(labels: Labels, positions: Tensor) -> tuple[str, ...]:
    numbers = positions.tolist()
    if not isinstance(labels, Tensor) or labels.dim() != 1:
        return tuple(f"image {i}" for i in numbers)
    return tuple(f"image {i} ({label})" for i, label in zip(numbers, labels.tolist(), strict=True))


def _gallery(images: Tensor | Rows, labels: Labels) -> dict[str, Tensor]:
    found = {}
    if isinstance(images, Tensor) and images.dim() == 4 and len(images) <= _GALLERY:
        found["images"] = images.detach().cpu()
    if isinstance(labels, Tensor) and labels.dim() == 1:
        found["classes"] = labels.cpu()
    return found
