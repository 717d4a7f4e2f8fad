"""What a denoising step's prediction says about the image, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.diffusion.process import Gaussian
from explain.diffusion.sites import over_channels
from explain.payoffs import one_a_row

STEP_PAYOFFS = ("error", "evidence", "norm", "x0")


@dataclass(frozen=True, eq=False)
class StepPayoff:
    """The number that is read off a prediction, summed or averaged over a region.

    "error" is ``-|e - e_hat|^2``, "norm" ``|e_hat|^2``, "x0" the mean of ``x0_hat``. "evidence" is what the condition
    adds to the fit of the noise, ``|e - D(null)|^2 - |e - D(label)|^2`` (Kong et al. 2024); without the label it is 0.

    Args:
        payoff: one of these, or a function ``x0_hat [n, *shape] -> [n]``.
        process: what a prediction says about the image and its noise.
        region: bool, over the sites of a sample: ``[H, W]`` of an image.
    """

    payoff: str | Callable[[Tensor], Tensor]
    process: Gaussian
    region: Tensor

    def __call__(
        self, predict: Callable[..., tuple[Tensor, ...]], x: Tensor, times: Tensor, noise: Tensor, weight: Tensor
    ) -> Tensor:
        """The payoff of each row ``x [n, *shape]`` at ``times [n]``, noised with ``noise``, ``[n]``.

        ``predict(*weights)`` answers for these rows with classifier-free guidance of each ``weight [n]``.

        Raises:
            ValueError: a payoff that does not give one number a row.
        """
        own = x.dtype
        wide = torch.promote_types(own, torch.float32)  # half precision holds no sum of many squares
        x, noise = x.to(wide), noise.to(wide)
        if self.payoff == "evidence":
            both = (self.process.noise_in(x, p.to(wide), times) for p in predict(weight, torch.zeros_like(weight)))
            with_label, without = (self._squares(noise - found) for found in both)
            return without - with_label
        prediction = predict(weight)[0].to(wide)
        if self.payoff == "error":
            return -self._squares(noise - self.process.noise_in(x, prediction, times))
        if self.payoff == "norm":
            return self._squares(self.process.noise_in(x, prediction, times))
        clean = self.process.clean(x, prediction, times)
        if self.payoff == "x0":
            where = over_channels(self.region, clean.shape[1:]).expand(clean.shape[1:]).to(wide)
            return (clean * where).flatten(1).sum(1) / where.sum()
        assert callable(self.payoff)
        return one_a_row(self.payoff(clean.to(own)), len(x))

    def _squares(self, difference: Tensor) -> Tensor:
        where = over_channels(self.region, difference.shape[1:])
        return (difference.square() * where.to(difference.dtype)).flatten(1).sum(1)
