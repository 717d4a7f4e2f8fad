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
_DRAWS = 8


class Reading(NamedTuple):
    """What the answer means, the scale of one-hot labels, and ``mean |e - e_hat|^2`` of the labels read so."""

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
    """Each reading with the error of the noise and of the labels that it implies, the best first.

    The mean over steps between a fifth and three fifths of the schedule of ``min(|e - e_hat|^2, 9)`` and
    ``min(|Y - y0_hat|^2, 9)`` together: an answer that is read as another thing misses one or the other.

    Args:
        predict: ``(y_t [n, C], t) -> [n, C]``.
        signal: ``a_t [T]``.
        labels: one-hot, ``[n, C]``.
        judged: bool ``[n]``, whose error counts.
        predictions: readings of the answer that are tried.
        scales: of the labels.
    """
    steps = len(signal)
    times = torch.linspace(steps * 0.2, steps * 0.6, min(4, steps)).long().unique().tolist()
    generator = torch.Generator().manual_seed(0)
    size = (_DRAWS, *labels.shape)
    noises = [torch.randn(size, generator=generator, dtype=torch.float64).to(labels) for _ in times]
    found = []
    for scale in scales:
        low, high = SCALES[scale]
        Y = low + (high - low) * labels
        errors = dict.fromkeys(predictions, 0.0)
        for t, draws in zip(times, noises, strict=True):
            for e in draws:
                step = torch.tensor(t)
                y = Gaussian(signal, steps, "epsilon").noised(Y, e, step)
                answer = predict(y, t)
                for prediction in predictions:
                    process = Gaussian(signal, steps, prediction)
                    missed = (process.noise_in(y, answer, step) - e).square().clamp_max(9.0)
                    off = (process.clean(y, answer, step) - Y).square().clamp_max(9.0) / (high - low) ** 2
                    errors[prediction] += float((missed + off)[judged].mean()) / (len(times) * _DRAWS)
        found += [Reading(prediction, scale, error) for prediction, error in errors.items()]
    return sorted(found, key=lambda reading: reading.error)


def settled(found: list[Reading]) -> Reading:
    """The best reading, where no other comes near it.

    Raises:
        ValueError: two readings fit alike; with their errors.
    """
    best = found[0]
    if len(found) > 1 and found[1].error < _CLEARLY * best.error:
        said = "; ".join(f"{one.prediction} of labels {one.scale}: {one.error:.3g}" for one in found[:3])
        raise ValueError(
            "what the network predicts cannot be told from the labels that are known (squared error of noise and "
            f"labels, {said}): say prediction_type='epsilon', 'sample' or 'v_prediction', and scale='0/1' or '-1/1'"
        )
    return best


def said(best: Reading, found: list[Reading]) -> str:
    """The reading in a sentence, beside the next best."""
    text = f"{best.prediction}, of one-hot labels {best.scale}: squared error of noise and labels {best.error:.3g}"
    others = [one for one in itertools.islice(found, 3) if one != best]
    return text + (f", next {others[0].prediction} {others[0].scale} with {others[0].error:.3g}" if others else "")
