"""Whether a derivative through a training foretells anything: the training again, with weights a little aside.

Engstrom, Ilyas et al. (2025) call trainings whose numbers move smoothly with the data metasmooth: of others the
derivative is right and says nothing. Weights go along a random direction, as far as leaving one example out goes (a
length of 1) or a tenth of each weight where that is less, and twice as far the other way: two trainings, for all
numbers together. Of a smooth number the answers a unit of length are ``s(h) = f' + f'' h / 2``, so that
``(2 s(1) + s(-2)) / 3`` is the derivative and their difference the bend, which every first-order answer leaves out; of
one that is not they are anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from explain.doubts import doubt
from explain.influence.through.course import Course

SIZES = (1.0, -2.0)  # how far weights are moved
MOVE = 0.1  # of a weight at most, where moved by 1
ROUNDED = 16  # units in the last place that a number may be off by, and nobody's roughness
ROUGH = 0.5  # a gap above this is warned about


class Response(NamedTuple):
    """How numbers answered to moves of the weights.

    ``slopes [sizes, k]`` a unit of length, ``foretold [k]`` by the derivative, ``gaps [k]`` between that and the slopes
    without their bend, in units of what a move does as a rule. ``length``: of the shorter move.
    """

    slopes: Tensor
    foretold: Tensor
    gaps: Tensor
    length: float

    def checks(self, k: int) -> dict[str, object]:
        """Of number ``k``."""
        return {
            "smoothness_gap": float(self.gaps[k]),
            "response": self.slopes[:, k].tolist(),
            "response_foretold": float(self.foretold[k]),
            "response_sizes": [size * self.length for size in SIZES],
        }


def response(
    course: Course, numbers: Callable[[Tensor], Tensor], now: Tensor, scores: Tensor, generator: torch.Generator
) -> Response:
    """The training again with weights moved along a random direction.

    Args:
        course: the training.
        numbers: of parameters ``[p]``, ``[k]``.
        now: the numbers of the training as it was, ``[k]``.
        scores: their derivatives by the weights, ``[k, n]``.
        generator: of the direction.
    """
    direction = torch.randint(0, 2, (course.size,), generator=generator).double() * 2 - 1
    direction /= direction.norm()
    device, length = course.start.device, min(1.0, MOVE * course.size**0.5)
    moves = [size * length for size in SIZES]
    slopes = torch.stack(
        [(numbers(course.end((1 + move * direction).to(device))) - now) / move for move in moves]
    )  # not at the same distance on both sides: a bend would go unseen
    foretold = scores @ direction
    usual = torch.maximum(foretold.abs(), scores.norm(dim=1) / course.size**0.5)
    near, far = (abs(size) for size in SIZES)
    off = ((far * slopes[0] + near * slopes[1]) / (near + far) - foretold).abs()  # the bend cancels
    rounding = ROUNDED * torch.finfo(course.start.dtype).eps * now.abs() / length
    off = (off - rounding).clamp(min=0.0)
    return Response(slopes, foretold, torch.where(off > 0, off / usual, 0.0), length)


def warn(found: Response) -> None:
    """Warns where a number does not answer as its derivative says."""
    worst = float(found.gaps.max())
    if not worst <= ROUGH:
        k = int(found.gaps.nan_to_num(torch.inf).argmax())
        said = " and ".join(f"{slope:.2g}" for slope in found.slopes[:, k].tolist())
        doubt(
            f"the training is not smooth: with weights moved along a random direction by {SIZES[0] * found.length:.2g} "
            f"and {SIZES[1] * found.length:.2g} (leaving one example out moves them by 1) the number moves by {said} a "
            f"unit, and its derivative says {float(found.foretold[k]):.2g}: scores foretell a retraining badly. What "
            "helps: fewer steps, a smaller learning rate with warm-up, larger "
            "batches, float64, smooth activations, for Adam a larger eps"
        )
