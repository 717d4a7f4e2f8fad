"""The denoising loss of a training image, averaged over fixed draws of step and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from explain.diffusion.denoiser import check_floats
from explain.diffusion.proofs import check_rows, elsewhere
from explain.examples import Examples, Read, Rows, check_parts, examples_of, pieces
from explain.guard import evaluating, recordable
from explain.losses import of_values
from explain.objectives import TrainingObjective, check_own_loss, trainable
from explain.types import NonFinite, Parameters, Players

if TYPE_CHECKING:
    from explain.diffusion.model import DiffusionModel

Conditions: TypeAlias = dict[str, Tensor | Rows]  # arguments of the network by name, one row an image
Labels: TypeAlias = Tensor | Rows | Conditions | None
_GALLERY = 5_000  # more training images than this are not kept for pictures


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingObjective(TrainingObjective):
    """The denoising loss of training images.

    Args:
        images: ``[n, C, H, W]``, or read from a data set as they are asked for.
        beside: labels or named arguments, one row an image.
    """

    images: Tensor | Rows
    beside: Labels

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


def objective(
    model: DiffusionModel,
    image: Tensor,
    measured: Callable[[Parameters], Tensor],
    train: Any,
    remove: str | Players = "labels",
) -> DenoisingObjective:
    """``J(theta) = (1/n) sum_i mean_k |wanted_ik - D(x_ik, t_k)|^2 / d + weight_decay/2 |theta|^2``, ``d = C H W``.

    ``wanted`` is what the model was trained to predict (noise, image or v). The ``K`` draws of step and noise are fixed
    and shared by all images: steps spread evenly over the schedule, noise from a seed, so that the loss is a function.

    Args:
        model: the denoiser and its process.
        image: any image like the training images, ``[C, H, W]``.
        measured: ``params -> scalar``, the number in question.
        train: images ``[n, C, H, W]``, or ``(images, labels [n])``, a Dataset or a DataLoader of such pairs; labels
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
    images, labels, positions = _examples(train)
    check_floats(images, "training images")
    if images.dim() != 4 or images.shape[1:] != image.shape or not len(images):
        size = ", ".join(map(str, image.shape))
        raise ValueError(f"training images must be [n, {size}], got {list(images.shape)}")
    images = _recordable(images.to(image.device, image.dtype))
    conditions = _conditions(model, labels, len(images))
    times, noise = draws(model, image)
    _check_training(model, images, conditions, image)

    def noised(batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, t = images[batch].repeat_interleave(len(times), 0), times.repeat(len(batch))
        e = noise.repeat(len(batch), 1, 1, 1)
        return rows, e, t, model.process.noised(rows, e, t)

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        _, _, t, x = noised(batch)
        condition = {name: rows[batch].repeat_interleave(len(times), 0) for name, rows in conditions.items()}
        with evaluating(model.denoiser):
            out = model.denoiser.with_parameters(params)(x, t, condition)
        return out.view(len(batch), len(times), *image.shape)

    loss_of = model.loss if callable(model.loss) else of_values(model.loss or "mse")

    def loss(predictions: Tensor, batch: Tensor) -> Tensor:
        rows, e, t, _ = noised(batch)
        return loss_of(predictions, model.process.wanted(rows, e, t).view(predictions.shape))

    players = Players("train", positions, _names(labels, positions), None, _gallery(images, labels))
    made = DenoisingObjective(
        trainable(model.denoiser),
        players,
        predict,
        torch.arange(len(images), device=images.device),
        measured,
        loss,
        model.weight_decay,
        max(1, 2**22 // max(1, image.numel() * len(times) * 16)),
        convex=not callable(model.loss),
        module=model.denoiser,
        labelled=False,
        data=(times, noise),
        images=images,
        beside=labels,
    )
    check_own_loss(made)
    return made


def draws(model: DiffusionModel, like: Tensor) -> tuple[Tensor, Tensor]:
    """The fixed steps ``[K]`` and noise ``[K, C, H, W]`` that every training image is measured with."""
    count = model.draws
    spread = (torch.arange(count, dtype=torch.float64) + 0.5) / count * model.process.steps
    times = spread if model.process.signal is None else spread.long()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, *like.shape, generator=generator, dtype=torch.float64)
    return times.to(like.device), noise.to(like)


@dataclass
class _Columns:
    """From a collated batch to images and whatever stands beside them; ``names`` are those of named arguments."""

    names: tuple[str, ...] | None = None

    def __call__(self, batch: Any) -> tuple[Tensor, ...]:
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        check_parts(parts)
        images, *rest = parts
        beside = rest[0] if rest else {}
        if isinstance(beside, dict):
            self.names = tuple(beside)
        found = (images, *(beside.values() if isinstance(beside, dict) else (beside,)))
        if not isinstance(images, Tensor):
            raise TypeError(
                "a training set gives images, or pairs of an image and its label or named arguments, as tensors or "
                f"numbers, got {[type(part).__name__ for part in found]}"
            )
        return images, *(part if isinstance(part, Tensor) else _labels(part) for part in found[1:])


def _examples(train: Any) -> tuple[Tensor | Rows, Labels, Tensor]:
    """Images, what is beside them, and their positions.

    Raises:
        ValueError: none, or tensors beside images and labels.
    """
    if train is None:
        raise ValueError("which images was the model trained on? give Influence(train=(images, labels))")
    if isinstance(train, Read) and not isinstance(train.columns, Examples):  # of another number's objective
        return train.columns[0], train.columns[1], train.positions
    if isinstance(train, Tensor):
        return train, None, torch.arange(len(train))
    if isinstance(train, tuple) and len(train) > 2 and all(isinstance(part, Tensor) for part in train):
        raise ValueError(
            f"training images are given as (images, labels), got {len(train)} tensors: several conditions go by name, "
            "(images, {'class_labels': ..., ...}), and weights of examples are not supported"
        )
    pair = isinstance(train, (tuple, list)) and len(train) == 2 and isinstance(train[0], Tensor | Rows)
    if pair and train[0].dim() == 4:
        images, labels = train
        labels = labels if labels is None or isinstance(labels, (dict, Rows)) else _labels(labels)
        return images, labels, torch.arange(len(images))
    columns = _Columns()
    found, positions = examples_of(train, columns)
    images, *beside = _kept(found) if isinstance(found, Examples) else found
    if columns.names is not None:
        return images, dict(zip(columns.names, beside, strict=True)) or None, positions
    return images, beside[0], positions


def _labels(labels: Any) -> Tensor:
    """Labels as one tensor.

    Raises:
        TypeError: captions, or what else is no number.
    """
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        first = labels[0] if isinstance(labels, (list, tuple)) and labels else labels
        raise TypeError(
            "labels must be classes [n], embeddings [n, ...] or named arguments with one row an image, got a "
            f"{type(labels).__name__} of {type(first).__name__}: captions are given as a text encoder reads them, "
            "encode_prompt(captions), [n, tokens, width]"
        ) from error


def _kept(examples: Examples) -> list[Tensor | Rows]:
    """What is read by position, and, of single numbers such as classes, all of them."""
    rows = [Rows(examples, column) for column in range(examples.width)]
    single = [column for column, part in enumerate(rows) if part.dim() == 1]
    batches = [[batch[column] for column in single] for batch in (examples.batches() if single else ())]
    kept = {column: torch.cat(parts) for column, parts in zip(single, zip(*batches, strict=True), strict=True)}
    return [kept.get(column, part) for column, part in enumerate(rows)]


def _conditions(model: DiffusionModel, labels: Labels, count: int) -> Conditions:
    """The rows of all training images by argument name.

    Raises:
        ValueError: not one row an image, an unknown name, or no label for a network that needs one.
        TypeError: a network of which nobody can tell which argument is the label.
    """
    net = model.denoiser
    if labels is not None and not isinstance(labels, dict) and net.names.label is None and net.names.candidates:
        net.condition(0)  # says which names there are
    if isinstance(labels, (Tensor, Rows)):
        labels = {} if net.names.label is None else {net.names.label: labels}
    found = {}
    for name, given in (labels or {}).items():
        rows = given if isinstance(given, Rows) else _labels(given)
        if rows.dim() < 1 or len(rows) != count:
            raise ValueError(f"{count} training images need as many rows of {name}, got {list(rows.shape)}")
        if rows.dtype == torch.bool and rows.dim() == 1:
            raise TypeError(f"{name} must be classes, whole numbers, or embeddings, got bools: give labels.long()")
        found[name] = _recordable(rows.to(net.device, net.dtype if rows.is_floating_point() else rows.dtype))
    net.check_complete({name: rows[:1] for name, rows in found.items()})
    return found


def _check_training(model: DiffusionModel, images: Tensor | Rows, conditions: Conditions, image: Tensor) -> None:
    """Check two training images, those of the smallest and the largest class where there are classes.

    Raises:
        ValueError: they are on another scale than the image asked about, or the network does not answer them, or not
            each by itself.
        TypeError: conditions that the network does not take.
        NonFinite: NaN or infinity in the images.
    """
    net, chosen = model.denoiser, [0, len(images) - 1]
    for rows in conditions.values():
        if isinstance(rows, Tensor) and rows.dim() == 1:
            chosen = [int(rows.argmin()), int(rows.argmax())]
    x = images[torch.tensor(chosen, device=image.device)]
    if not bool(x.isfinite().all()):
        raise NonFinite("training images hold NaN or infinity: clean them first")
    reach, own = float(x.abs().max()), float(image.abs().max())
    if max(reach, 1) > 20 * max(own, 1) or max(own, 1) > 20 * max(reach, 1):
        raise ValueError(
            f"training images reach {reach:.3g} where the image asked about reaches {own:.3g}: give both on the scale "
            "that the denoiser was trained on; divide or shift one of them (pixels 0 to 255: images / 127.5 - 1)"
        )
    pair = {name: rows[torch.tensor(chosen, device=image.device)] for name, rows in conditions.items()}
    for row in (0, 1):
        net.condition({name: rows[row : row + 1] for name, rows in pair.items()})
    _, t = elsewhere(model.process, x[:1], torch.zeros(1, dtype=torch.long, device=image.device))
    check_rows(net, x, t.flip(0), pair)


def _recordable(rows: Tensor | Rows) -> Tensor | Rows:
    return recordable(rows) if isinstance(rows, Tensor) else rows


def _names(labels: Labels, positions: Tensor) -> tuple[str, ...]:
    numbers = positions.tolist()
    if not isinstance(labels, Tensor) or labels.dim() != 1:
        return tuple(f"image {i}" for i in numbers)
    return tuple(f"image {i} ({label})" for i, label in zip(numbers, labels.tolist(), strict=True))


def _gallery(images: Tensor | Rows, labels: Labels) -> dict[str, Tensor]:
    found = {}
    if isinstance(images, Tensor) and len(images) <= _GALLERY:
        found["images"] = images.detach().cpu()
    if isinstance(labels, Tensor) and labels.dim() == 1:
        found["classes"] = labels.cpu()
    return found
