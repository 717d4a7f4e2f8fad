"""How a denoiser's answer is read, found out on the labels that it was trained with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from explain.diffusion.process import Gaussian, Prediction

READINGS: tuple[Prediction, ...] = ("epsilon", "sample", "v_prediction")
SCALES = {"0/1": (0.0, 1.0), "-1/1": (-1.0, 1.0)}
_CLEARLY = 1.5  # times as large the next best reading's error must be
_DRAWS = 4


class Reading(NamedTuple):
    """What the answer means, the scale of one-hot labels, and the share of the training loss's target missed so."""

    prediction: Prediction
    scale: str
    error: float


def readings(
    predict: Callable[[Tensor, int], Tensor],
    signal: Tensor,
    labels: Tensor,
    judged: Tensor,
    predictions: tuple[Prediction, ...] = READINGS,
    scales: tuple[str, ...] = tuple(SCALES),
) -> list[Reading]:
    """Each reading with ``mean |p - w|^2 / mean |w|^2``, ``p`` the answer and ``w`` what it would be, best first.

    The share of the training loss's target that is missed, over eight steps of the whole schedule: where noise is all,
    a network of ``e`` answers what it sees and one of ``v`` the opposite of the labels. That the labels implied are
    right says less: read as ``v``, an answer that falls short of ``e`` implies labels as good.

    Args:
        predict: ``(y_t [n, C], t) -> [n, C]``.
        signal: ``a_t [T]``.
        labels: one-hot, ``[n, C]``.
        judged: bool ``[n]``, whose error counts.
        predictions: readings of the answer that are tried.
        scales: of the labels.
    """
    steps = len(signal)
    times = torch.linspace(0, steps - 1, min(8, steps)).long().tolist()
    generator = torch.Generator().manual_seed(0)
    size = (_DRAWS, *labels.shape)
    noises = [torch.randn(size, generator=generator, dtype=torch.float64).to(labels) for _ in times]
    found = []
    for scale in scales:
        low, high = SCALES[scale]
        Y = low + (high - low) * labels
        errors = dict.fromkeys(predictions, 0.0)
        for t, draws in zip(times, noises, strict=True):
            step = torch.tensor(t)
            answers = [predict(Gaussian(signal, steps, "epsilon").noised(Y, e, step), t) for e in draws]
            for prediction in predictions:
                process = Gaussian(signal, steps, prediction)
                wanted = torch.stack([process.wanted(Y.expand_as(e), e, step) for e in draws])[:, judged]
                missed = (torch.stack(answers)[:, judged] - wanted).square().mean() / wanted.square().mean()
                errors[prediction] += float(missed) / len(times)
        found += [Reading(prediction, scale, error) for prediction, error in errors.items()]
    return sorted(found, key=lambda reading: reading.error)


def settled(found: list[Reading]) -> Reading:
    """The best reading, where no other comes near it.

    Raises:
        ValueError: two readings fit alike; with their errors.
    """
    best = found[0]
    if len(found) > 1 and found[1].error < _CLEARLY * best.error:
        said = "; ".join(f"{one.prediction} of labels {one.scale}: {one.error:.0%}" for one in found[:3])
        raise ValueError(
            "what the network predicts cannot be told from the labels that are known (share of the target that is "
            f"missed, {said}): say prediction_type='epsilon', 'sample' or 'v_prediction', and scale='0/1' or '-1/1'"
        )
    return best


def said(best: Reading, found: list[Reading]) -> str:
    """The reading in a sentence, beside the next best."""
    text = f"{best.prediction}, of one-hot labels {best.scale}: it misses {best.error:.0%} of its target"
    others = [one for one in itertools.islice(found, 3) if one != best]
    return text + (f", as {others[0].prediction} of {others[0].scale} {others[0].error:.0%}" if others else "")
