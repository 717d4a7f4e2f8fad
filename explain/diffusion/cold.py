"""Cold diffusion: a degradation without noise that comes and goes step by step (Bansal et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.diffusion.process import Prediction

Sampling: TypeAlias = Literal["improved", "naive"]


class _Stepped(NamedTuple):
    """As diffusers' schedulers answer."""

    prev_sample: Tensor


class Cold:
    """``x_t = D(x_0, t)`` in place of noise, and the run that a restorer ``R(x_t, t) -> x_0`` undoes it by.

    ============  ==================================================  ==================================
    sampling      a step from ``t`` to ``s < t``                      source, Bansal et al. 2022
    ============  ==================================================  ==================================
    "improved"    ``x_t - D(R(x_t, t), t) + D(R(x_t, t), s)``         algorithm 2: small errors of ``R`` cancel
    "naive"       ``D(R(x_t, t), s)``                                 algorithm 1
    ============  ==================================================  ==================================

    It stands in the place of a scheduler, ``explain.wrap(restorer, scheduler=Cold(...), time="step")``. A prediction
    is the clean image, and so errors are those of the image, ``-|x_0 - R(x_t, t)|^2``. A run starts from a degraded
    picture: ``trajectory(latents=cold.noised(pictures, None, T), ...)``.

    Args:
        degrade: ``D (images [n, *shape], t [n]) -> [n, *shape]``, each row by itself; ``D(x, 0) = x``.
        steps: ``T``; ``t`` runs from 1 to ``T``.
        sampling: see the table.

    Raises:
        ValueError: no steps, or another sampling.
        TypeError: ``degrade`` is no function.

    >>> fade = Cold(lambda x, t: x * (1 - t / 4).view(-1, 1, 1, 1), steps=4)
    >>> fade.set_timesteps(2)
    >>> fade.timesteps.tolist(), float(fade.step(torch.ones(1, 1, 1, 1), 4, torch.zeros(1, 1, 1, 1)).prev_sample)
    ([4, 2], 0.5)
    """

    prediction: ClassVar[Prediction] = "sample"
    first: ClassVar[int] = 1

    def __init__(
        self, degrade: Callable[[Tensor, Tensor], Tensor], steps: int, sampling: Sampling = "improved"
    ) -> None:
        if not callable(degrade):
            raise TypeError(f"degrade must be a function (images, t [n]) -> images, got {type(degrade).__name__}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a whole number from 1 on, got {steps!r}")
        if sampling not in ("improved", "naive"):
            raise ValueError(f"sampling must be 'improved' or 'naive', got {sampling!r}")
        self.degrade, self.steps, self.sampling = degrade, steps, sampling
        self.config = {"num_train_timesteps": steps}
        self.set_timesteps(steps)

    # --- the process ---

    def noised(self, x0: Tensor, noise: Tensor | None, t: Tensor | int) -> Tensor:
        """``D(x_0, t)``; there is no noise.

        Raises:
            ValueError: ``degrade`` gives no images of the same shape.
        """
        found = self.degrade(x0.clone(), torch.as_tensor(t, device=x0.device).expand(len(x0)).clone())
        if not isinstance(found, Tensor) or found.shape != x0.shape:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"degrade must give images of the same shape, {list(x0.shape)}, got {got}")
        return found.to(x0)

    def absent(self, fill: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The fill, degraded as far."""
        return self.noised(fill, noise, t)

    def unknown(self, x0: Tensor, noise: Tensor) -> Tensor:
        """What a prediction's error is measured against: the clean image."""
        return x0

    def implied(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The `unknown` that a prediction implies: itself."""
        return prediction

    def wanted(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The clean image."""
        return x0

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The prediction."""
        return prediction

    def saying(self, clean: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction that implies this clean image: itself."""
        return clean

    def spread(self, count: int) -> Tensor:
        """Steps from 1 to ``T``, evenly, ``[count]``."""
        return ((torch.arange(count, dtype=torch.float64) + 0.5) / count * self.steps).long() + self.first

    def checked_step(self, t: float) -> int:
        """``t`` where it is a step.

        Raises:
            ValueError: it is none; at 0 nothing is degraded.
        """
        if isinstance(t, bool) or not isinstance(t, (int, float)) or not 1 <= t <= self.steps or t != int(t):
            raise ValueError(f"t must be a step of the degradation, from 1 to {self.steps}, got {t}")
        return int(t)

    def check(self, x0: Tensor) -> None:
        """Try the degradation on this picture ``[*shape]``.

        Raises:
            ValueError: another shape, other answers for a row of a batch than alone or at a second call, or ``D(x, 0)``
                that is not ``x``.
        """
        rows, t = torch.stack([x0, x0.flip(-1) / 2]), torch.tensor([self.steps, 1], device=x0.device)
        both, again = self.noised(rows, rows, t), self.noised(rows, rows, t)
        alone = torch.cat([self.noised(rows[i : i + 1], rows, t[i : i + 1]) for i in (0, 1)])
        size = max(float(both.abs().max()), 1e-12)
        if not torch.allclose(both, again, atol=1e-5 * size):
            raise ValueError(
                "degrade answers otherwise at a second call: draw what is random in it once, before, so that every "
                "coalition meets the same degradation"
            )
        if not torch.allclose(both, alone, atol=1e-4 * size):
            raise ValueError("degrade must read x[i] and t[i] for row i: a row of a batch was degraded unlike alone")
        start = self.noised(rows, rows, torch.zeros_like(t))
        if not torch.allclose(start, rows, atol=1e-4 * max(float(rows.abs().max()), 1e-12)):
            raise ValueError("degrade(x, 0) must be x itself: t counts the steps of degradation, from 1 to T")

    # --- the run ---

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        """Spread a run of so many steps from ``T`` to the clean image."""
        times = torch.linspace(self.steps, 0, steps + 1, dtype=torch.float64).round().long()
        self.timesteps, self._after = times[:-1], dict(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))

    def step(self, prediction: Tensor, t: Tensor | int, x: Tensor, return_dict: bool = True) -> _Stepped:
        """The image after the step at ``t``, by the table."""
        here = torch.full((len(x),), int(t), device=x.device)
        there = torch.full_like(here, self._after[int(t)])
        before = self.noised(prediction, prediction, there) if int(there[0]) else prediction
        if self.sampling == "naive":
            return _Stepped(before)
        return _Stepped(x - self.noised(prediction, prediction, here) + before)
