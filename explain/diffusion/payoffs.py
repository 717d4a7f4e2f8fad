"""What a denoising step's prediction says about the image, one number a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.diffusion.bound import StepWeights, bound_terms, error_weights
from explain.diffusion.process import Process, gaussian
from explain.diffusion.sites import over_channels
from explain.payoffs import one_a_row, probed

STEP_PAYOFFS = ("error", "evidence", "norm", "x0", "elbo")


@dataclass(frozen=True, eq=False)
class StepPayoff:
    """The number that is read off a prediction, summed or averaged over a region.

    "error" is ``-|e - e_hat|^2``, "norm" ``|e_hat|^2``, "x0" the mean of ``x0_hat``. "evidence" is what the condition
    adds to the fit of the noise, ``|e - D(null)|^2 - |e - D(label)|^2`` (Kong et al. 2024); without the label it is 0.
    "elbo" is the step's term of the bound on ``log p(x0)``, see `bound_terms`.

    Args:
        payoff: one of these, or a function ``x0_hat [n, *shape] -> [n]``.
        process: what a prediction says about the image and its noise.
        region: bool, over the sites of a sample: ``[H, W]`` of an image.
        weights: of the squared errors at each step, see `error_weights`.
    """

    payoff: str | Callable[[Tensor], Tensor]
    process: Process
    region: Tensor
    weights: StepWeights | None = None

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
            both = (self.process.implied(x, p.to(wide), times) for p in predict(weight, torch.zeros_like(weight)))
            with_label, without = (self._squares(noise - found) for found in both)
            return self._weighted(without - with_label, times)
        prediction = predict(weight)[0].to(wide)
        if self.payoff == "error":
            return -self._weighted(self._squares(noise - self.process.implied(x, prediction, times)), times)
        if self.payoff == "elbo":
            process = gaussian(self.process, "the bound")
            errors = self._squares(noise - process.noise_in(x, prediction, times))
            scaled = self._squares(x - process.levels(times, x)[1] * noise)  # a^2 |x0|^2
            return bound_terms(process, errors.double(), scaled.double(), int(self._where(x).sum()), times)
        if self.payoff == "norm":
            return self._squares(self.process.implied(x, prediction, times))
        clean = self.process.clean(x, prediction, times)
        if self.payoff == "x0":
            where = self._where(clean).to(wide)
            return (clean * where).flatten(1).sum(1) / where.sum()
        assert callable(self.payoff)
        return one_a_row(self.payoff(clean.to(own)), len(x))

    def _squares(self, difference: Tensor) -> Tensor:
        return (difference.square() * self._where(difference).to(difference.dtype)).flatten(1).sum(1)

    def _where(self, x: Tensor) -> Tensor:
        """Which numbers of each row ``x [n, *shape]`` count, bool ``[*shape]``."""
        return over_channels(self.region, x.shape[1:]).expand(x.shape[1:])

    def _weighted(self, squares: Tensor, times: Tensor) -> Tensor:
        if self.weights is None:
            return squares
        process = gaussian(self.process, "a weight by signal and noise")
        return squares * error_weights(self.weights, process, times).to(squares)


SAMPLES, PICTURES, LATENTS = "samples as the network has them", "pictures in [0, 1]", "latents"
_REMEDY = ". Of pictures [n, 3, H, W] in [0, 1] ask with space='pixels'"


def check_payoff(payoff: Callable[[Tensor], Tensor], rows: Tensor, what: str = SAMPLES) -> None:
    """Raise where a payoff cannot be called with such rows, is random, or looks across them; see `probed`.

    Args:
        payoff: ``[n, ...] -> [n]``.
        rows: what it may be given.
        what: they are, in words.

    Raises:
        ValueError: it does not answer, or not row by row.
        OutOfMemoryError: as torch raises it.
    """
    try:
        probed(payoff, rows)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        latent = what == LATENTS or (rows.dim() == 4 and rows.size(1) not in (1, 3))
        remedy = _REMEDY if latent else ""
        raise ValueError(f"the payoff cannot be called with {what} {list(rows.shape)}: {error}{remedy}") from error


class Nearness:
    """``-mean (sample - x0)^2`` of each sample ``[n, *shape]``."""

    __name__ = __qualname__ = "nearness to x0"

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, samples: Tensor) -> Tensor:
        """The number of each sample."""
        return -(samples - self.image).square().flatten(1).mean(1)
