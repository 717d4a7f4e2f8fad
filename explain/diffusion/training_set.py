"""The images that a denoiser was trained on, with what stands beside them: read, and checked against the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.diffusion.denoiser import check_floats
from explain.diffusion.proofs import check_rows, elsewhere
from explain.diffusion.trained import TrainedDenoiser
from explain.examples import Examples, Read, Rows, check_parts, examples_of
from explain.guard import recordable
from explain.types import NonFinite

Conditions: TypeAlias = dict[str, Tensor | Rows]  # arguments of the network by name, one row an image
Labels: TypeAlias = Tensor | Rows | Conditions | None


def fitting(images: Tensor | Rows, image: Tensor) -> Tensor | Rows:
    """Training images ``[n, *shape]`` of the type and on the device of the one that is asked about, ``[*shape]``.

    Raises:
        ValueError: another size, or none.
        TypeError: whole numbers.
    """
    check_floats(images, "training images")
    if images.dim() != image.dim() + 1 or images.shape[1:] != image.shape or not len(images):
        size = ", ".join(map(str, image.shape))
        raise ValueError(f"training images must be [n, {size}], got {list(images.shape)}")
    return _recordable(images.to(image.device, image.dtype))


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


def training_set(train: Any, like: Tensor) -> tuple[Tensor | Rows, Labels, Tensor]:
    """Images with as many dimensions as ``like`` has, what is beside them, and their positions.

    Raises:
        ValueError: no training images, weights beside them, or a data set that gives others each time it is asked.
        TypeError: a data set of something else.
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
    if pair and train[0].dim() == like.dim() + 1:
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


def conditions_of(model: TrainedDenoiser, labels: Labels, count: int) -> Conditions:
    """The rows of all training images by argument name.

    Raises:
        ValueError: not one row an image, an unknown name, or no label for a network that needs one.
        TypeError: a network of which nobody can tell which argument is the label.
    """
    net = model.module
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


def check_answers(model: TrainedDenoiser, images: Tensor | Rows, conditions: Conditions, image: Tensor) -> None:
    """Check two training images, those of the smallest and the largest class where there are classes.

    Raises:
        ValueError: they are on another scale than the image asked about, or the network does not answer them, or not
            each by itself.
        TypeError: conditions that the network does not take.
        NonFinite: NaN or infinity in the images.
    """
    net, chosen = model.module, [0, len(images) - 1]
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
