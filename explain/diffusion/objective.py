"""The denoising loss of a training image, averaged over fixed draws of step and noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, default_collate

from explain.diffusion.denoiser import Condition
from explain.guard import evaluating
from explain.objectives import TrainingObjective, trainable
from explain.types import Parameters, Players

if TYPE_CHECKING:
    from explain.diffusion.model import DiffusionModel

Labels: TypeAlias = Tensor | Condition | None
_GALLERY = 5_000  # more training images than this are not kept for pictures


def objective(
    model: DiffusionModel,
    image: Tensor,
    measured: Callable[[Parameters], Tensor],
    train: Any,
    remove: str | Players = "labels",
) -> TrainingObjective:
    """``J(theta) = (1/n) sum_i mean_k |wanted_ik - D(x_ik, t_k)|^2 + weight_decay/2 |theta|^2``.

    ``wanted`` is what the model was trained to predict (noise, image or v). The ``K`` draws of step and noise are fixed
    and shared by all images: steps spread evenly over the schedule, noise from a seed, so that the loss is a function.

    Args:
        model: the denoiser and its process.
        image: any image like the training images, ``[C, H, W]``.
        measured: ``params -> scalar``, the number in question.
        train: images ``[n, C, H, W]``, or ``(images, labels [n])``, a Dataset or a DataLoader of such pairs; labels
            may be embeddings ``[n, ...]``, or named arguments with one row an image.
        remove: "labels": an image leaves the loss.

    Raises:
        ValueError: no training images, images of another size, labels of another number, another ``remove``.
    """
    if remove != "labels":
        raise ValueError(f'remove must be "labels" (an image leaves the training loss), got {remove!r}')
    images, labels = _examples(train)
    if images.dim() != 4 or images.shape[1:] != image.shape or not len(images):
        size = ", ".join(map(str, image.shape))
        raise ValueError(f"training images must be [n, {size}], got {list(images.shape)}")
    images = images.to(image)
    conditions = _conditions(model, labels, len(images))
    times, noise = draws(model, image)

    def noised(batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, t = images[batch].repeat_interleave(len(times), 0), times.repeat(len(batch))
        e = noise.repeat(len(batch), 1, 1, 1)
        return rows, e, t, model.process.noised(rows, e, t)

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        _, _, t, x = noised(batch)
        condition = {name: rows[batch].repeat_interleave(len(times), 0) for name, rows in conditions.items()}
        # the fused attention kernels have no double backward; the plain one computes the same
        with evaluating(model.denoiser), sdpa_kernel(SDPBackend.MATH):
            out = model.denoiser.with_parameters(params)(x, t, condition)
        return out.view(len(batch), len(times), *image.shape)

    def loss(predictions: Tensor, batch: Tensor) -> Tensor:
        rows, e, t, _ = noised(batch)
        return (model.loss or _mean_square)(predictions, model.process.wanted(rows, e, t).view(predictions.shape))

    def number(params: Parameters) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return measured(params)

    players = Players("train", torch.arange(len(images)), _names(labels, len(images)), None, _gallery(images, labels))
    positions = torch.arange(len(images), device=images.device)
    batch_size = max(1, 2**22 // max(1, images[0].numel() * len(times) * 16))
    return TrainingObjective(
        trainable(model.denoiser),
        players,
        predict,
        positions,
        number,
        loss,
        model.weight_decay,
        batch_size,
        convex=model.loss is None,
        module=model.denoiser,
        labelled=False,
        data=(images, *conditions.values(), times, noise),
    )


def draws(model: DiffusionModel, like: Tensor) -> tuple[Tensor, Tensor]:
    """The fixed steps ``[K]`` and noise ``[K, C, H, W]`` that every training image is measured with."""
    count = model.draws
    spread = (torch.arange(count, dtype=torch.float64) + 0.5) / count * model.process.steps
    times = spread if model.process.signal is None else spread.long()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *like.shape, generator=generator, dtype=torch.float64)
    return times.to(like.device), noise.to(like)


def _mean_square(predictions: Tensor, wanted: Tensor) -> Tensor:
    return (predictions - wanted).square().flatten(1).mean(1)


def _examples(train: Any) -> tuple[Tensor, Labels]:
    if train is None:
        raise ValueError("which images was the model trained on? give Influence(train=(images, labels))")
    if isinstance(train, Tensor):
        return train, None
    if isinstance(train, DataLoader):
        train = train.dataset
    if isinstance(train, (tuple, list)) and len(train) == 2 and isinstance(train[0], Tensor) and train[0].dim() == 4:
        return train[0], train[1] if train[1] is None or isinstance(train[1], dict) else torch.as_tensor(train[1])
    rows = default_collate([train[i] for i in range(len(train))])
    return (rows, None) if isinstance(rows, Tensor) else (rows[0], rows[1])


def _conditions(model: DiffusionModel, labels: Labels, count: int) -> Condition:
    """The rows of all training images by argument name.

    Raises:
        ValueError: not one row an image.
    """
    net = model.denoiser
    if isinstance(labels, Tensor):
        labels = {} if net.names.label is None else {net.names.label: labels}
    found = {}
    for name, rows in (labels or {}).items():
        if rows.dim() < 1 or len(rows) != count:
            raise ValueError(f"{count} training images need as many rows of {name}, got {list(rows.shape)}")
        found[name] = rows.to(net.device, net.dtype if rows.is_floating_point() else rows.dtype)
    return found


def _names(labels: Labels, count: int) -> tuple[str, ...]:
    if not isinstance(labels, Tensor) or labels.dim() != 1:
        return tuple(f"image {i}" for i in range(count))
    return tuple(f"image {i} ({label})" for i, label in enumerate(labels.tolist()))


def _gallery(images: Tensor, labels: Labels) -> dict[str, Tensor]:
    if len(images) > _GALLERY:
        return {}
    found = {"images": images.detach().cpu()}
    return found if not isinstance(labels, Tensor) or labels.dim() != 1 else {**found, "classes": labels.cpu()}
