"""The number of a denoising step: what its prediction says about the image, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from explain.diffusion.targets import StepTarget

STEP_PAYOFFS = ("error", "evidence", "norm", "x0")


def step_payoff(
    target: StepTarget,
    predict: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    times: Tensor,
    noise: Tensor,
    weight: Tensor,
) -> Tensor:
    """The payoff of each row ``x [n, C, H, W]``, ``[n]``, summed or averaged over the target's region.

    ``predict(*weights)`` answers for these rows with classifier-free guidance of each ``weight [n]``.

    "error" is ``-|e - e_hat|^2``, "norm" ``|e_hat|^2``, "x0" the mean of ``x0_hat``. "evidence" is what the condition
    adds to the fit of the noise, ``|e - D(null)|^2 - |e - D(label)|^2`` (Kong et al. 2024); without the label it is 0.

    Raises:
        ValueError: a payoff that does not give one number a row.
    """
    process = target.model.process
    wide = torch.promote_types(x.dtype, torch.float32)  # half precision holds no sum of many squares
    x, noise, where = x.to(wide), noise.to(wide), target.region.to(wide)

    def squares(difference: Tensor) -> Tensor:
        return (difference.square() * where).sum((1, 2, 3))

    if target.payoff == "evidence":
        both = (process.noise_in(x, p.to(wide), times) for p in predict(weight, torch.zeros_like(weight)))
        with_label, without = (squares(noise - found) for found in both)
        return without - with_label
    prediction = predict(weight)[0].to(wide)
    if target.payoff == "error":
        return -squares(noise - process.noise_in(x, prediction, times))
    if target.payoff == "norm":
        return squares(process.noise_in(x, prediction, times))
    clean = process.clean(x, prediction, times)
    if target.payoff == "x0":
        return (clean * where).sum((1, 2, 3)) / (where.sum() * clean.size(1))
    assert callable(target.payoff)
    values = target.payoff(clean.to(target.image.dtype))
    if not isinstance(values, Tensor) or values.shape != x.shape[:1]:
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"payoff must give one number a row, [{len(x)}], got {got}")
    return values
