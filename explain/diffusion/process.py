"""How noise comes and goes: what a step does to an image, and what a prediction says about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from explain.spelling import came
from explain.types import Unsupported

Prediction: TypeAlias = Literal["epsilon", "sample", "v_prediction", "flow_prediction", "edm"]
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction", "edm")


class Process(Protocol):
    """What a family of denoisers must say about its noise, or what else it undoes.

    Images ``[batch, ...]``; ``t`` a number or ``[batch]``, from ``first`` on. ``noise`` is the draw that a step is made
    with.
    """

    @property
    def steps(self) -> int:
        """``T``."""

    @property
    def first(self) -> int:
        """The first ``t``."""

    @property
    def prediction(self) -> Prediction:
        """What a prediction is, as the process writes it."""

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t`` of a clean image."""

    def absent(self, fill: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What stands at ``t`` where ``x_t`` is taken away: the fill, with the same draw."""

    def wanted(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should have predicted: the target of its training loss."""

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The clean image that a prediction implies."""

    def saying(self, clean: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction that implies this clean image."""

    def unknown(self, x0: Tensor, noise: Tensor) -> Tensor:
        """What the error of a prediction is measured against: the noise, where there is any."""

    def implied(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The `unknown` that a prediction implies."""

    def spread(self, count: int) -> Tensor:
        """Steps spread evenly over the schedule, ``[count]``."""

    def checked_step(self, t: float) -> float:
        """``t`` where it is a step of the schedule."""

    def check(self, x0: Tensor) -> None:
        """Raise where a picture ``[*shape]`` cannot be brought to a step."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``x_t = a_t x_0 + s_t e``, in whatever parameterisation the model predicts.

    With ``d`` the deviation of the data that ``x_t`` is scaled by, ``d^2 a^2 + s^2 = 1``; ``d = 1`` but for EDM:

    ===================  ====================  ======================  ======================
    prediction           the model predicts    ``x_0``                 ``e``
    ===================  ====================  ======================  ======================
    "epsilon"            ``e``                 ``(x - s p) / a``       ``p``
    "sample"             ``x_0``               ``p``                   ``(x - a p) / s``
    "v_prediction"       ``d a e - s x_0 / d`` ``d^2 a x - d s p``     ``s x + d a p``
    "edm"                ``s x_0 / d - d a e`` ``d^2 a x + d s p``     ``s x - d a p``
    "flow_prediction"    ``e - x_0``           ``x - s p``             ``x + a p``
    ===================  ====================  ======================  ======================

    The last line holds where ``a + s = 1`` (flow matching). "edm" is what a network inside the preconditioning of
    Karras et al. answers: ``x = c_in (x_0 + sigma e)``, ``x_0 = c_skip (x_0 + sigma e) + c_out p``.

    Args:
        signal: ``a_t``, float64 ``[T]`` for diffusion; None for flow matching, ``a_t = 1 - t/T``.
        steps: ``T``; ``t`` runs from 0 to ``T - 1``, to ``T`` for flow matching.
        prediction: see the table.
        deviation: ``d``.

    Between two steps ``log(s/a)`` is a straight line, as samplers that stop there take it.

    Sources: Ho et al. 2020; Salimans and Ho 2022 (v); Karras et al. 2022 (EDM); Lipman et al. 2023 (flow).

    >>> process = Gaussian(torch.tensor([0.9, 0.1]).sqrt().double(), 2, "epsilon")
    >>> x0, e, t = torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([1])
    >>> x = process.noised(x0, e, t)
    >>> torch.allclose(process.clean(x, e, t), x0)
    True
    """

    signal: Tensor | None
    steps: int
    prediction: Prediction
    deviation: float = 1.0
    first: int = field(default=0, init=False)

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``a_t`` and ``s_t``, shaped to multiply ``like [batch, ...]``."""
        a, s = self._levels(torch.as_tensor(t))
        shape = (-1, *[1] * (like.dim() - 1))
        return a.to(like.device, like.dtype).reshape(shape), s.to(like.device, like.dtype).reshape(shape)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.signal is None:
            s = t.double() / self.steps
            return 1 - s, s
        if not t.is_floating_point():
            return self._at(t.to(self.signal.device))
        t = t.to(self.signal.device, torch.float64).clamp(0, self.steps - 1)
        below, above = self._at(t.floor().long()), self._at(t.ceil().long())
        share = t - t.floor()
        ratio = torch.exp(torch.lerp((below[1] / below[0]).log(), (above[1] / above[0]).log(), share))
        a = (ratio**2 + self.deviation**2).rsqrt()
        return torch.where(share == 0, below[0], a), torch.where(share == 0, below[1], ratio * a)

    def _at(self, step: Tensor) -> tuple[Tensor, Tensor]:
        assert self.signal is not None
        a = self.signal[step]
        return a, (1 - (self.deviation * a) ** 2).clamp_min(0).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """``s_t / a_t``, the noise beside an image of full size, float64 ``[batch]``."""
        a, s = self._levels(torch.as_tensor(t))
        return s / a

    def at_sigma(self, sigma: Tensor) -> Tensor:
        """The ``t``, between two steps where it has to be, at which ``s_t / a_t`` is this."""
        assert self.signal is not None
        table = self.sigma(torch.arange(self.steps, device=self.signal.device)).log()
        wanted = sigma.to(table).log().clamp(table[0], table[-1])
        above = torch.searchsorted(table, wanted).clamp(1, self.steps - 1)
        return above - 1 + (wanted - table[above - 1]) / (table[above] - table[above - 1])

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``a_t x_0 + s_t e``."""
        a, s = self.levels(t, x0)
        return a * x0 + s * noise

    def absent(self, fill: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The fill at the same step with the same draw, so that absence does not change the noise level."""
        return self.noised(fill, noise, t)

    def wanted(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the table says."""
        a, s = self.levels(t, x0)
        d = self.deviation
        return {
            "epsilon": lambda: noise,
            "sample": lambda: x0,
            "v_prediction": lambda: d * a * noise - s / d * x0,
            "edm": lambda: s / d * x0 - d * a * noise,
            "flow_prediction": lambda: noise - x0,
        }[self.prediction]()

    def clean(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """``x_0`` by the table."""
        a, s = self.levels(t, x_t)
        d = self.deviation
        return {
            "epsilon": lambda: (x_t - s * prediction) / a,
            "sample": lambda: prediction,
            "v_prediction": lambda: d**2 * a * x_t - d * s * prediction,
            "edm": lambda: d**2 * a * x_t + d * s * prediction,
            "flow_prediction": lambda: x_t - s * prediction,
        }[self.prediction]()

    def saying(self, clean: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction at which ``x_0`` of the table is this."""
        a, s = self.levels(t, x_t)
        return self.wanted(clean, (x_t - a * clean) / s, t)

    def score(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The score that a prediction implies, ``grad log q(x_t) = -e / s_t`` (Song et al. 2021)."""
        return -self.noise_in(x_t, prediction, t) / self.levels(t, x_t)[1]

    def saying_score(self, score: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The prediction that implies this score: `score` backwards, by ``e = -s_t score``.

        >>> process = Gaussian(torch.tensor([0.9, 0.1]).sqrt().double(), 2, "v_prediction")
        >>> x, t = torch.ones(1, 1), torch.tensor([1])
        >>> v = process.saying_score(-x, x, t)
        >>> torch.allclose(process.score(x, v, t), -x)
        True
        """
        a, s = self.levels(t, x_t)
        noise = -s * score
        return self.wanted((x_t - s * noise) / a, noise, t)

    def converted(self, x_t: Tensor, prediction: Tensor, t: Tensor, to: Prediction) -> Tensor:
        """What a model of another parameterisation would say: ``x_0`` and ``e`` by the table, then its first column.

        Raises:
            ValueError: ``to`` is unknown, or its line of the table does not hold for this noise.

        >>> process = Gaussian(torch.tensor([0.9, 0.1]).sqrt().double(), 2, "epsilon")
        >>> x, t = torch.ones(1, 1), torch.tensor([1])
        >>> v = process.converted(x, x / 2, t, "v_prediction")
        >>> torch.allclose(replace(process, prediction="v_prediction").noise_in(x, v, t), x / 2)
        True
        """
        lost = ("v_prediction", "edm") if self.signal is None else ("flow_prediction",)
        kinds = tuple(kind for kind in PREDICTIONS if kind not in lost)
        if to not in kinds:
            raise ValueError(f"to must be one of {', '.join(kinds)} for this noise, {came(to, kinds)}")
        clean, noise = self.clean(x_t, prediction, t), self.noise_in(x_t, prediction, t)
        return replace(self, prediction=to).wanted(clean, noise, t)

    def flow(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """``dx / dl`` of the probability flow, with ``l = log(s_t / a_t)`` as the time.

        The differential equation ``dx / dl = f x - (g^2 / 2) score`` whose solutions are spread as ``x_t`` is at every
        ``t``; here ``g^2 = 2 s^2`` and ``f = -s^2``, for flow matching ``-s``. It is ``a s v`` where ``d = 1``, and
        ``a s (e - x_0)`` for flow matching. A table of steps is a line in ``l`` between two of them, so per step it is
        this times ``l``'s difference.

        Sources: Song et al. 2021 (score-based generative modeling through SDEs), eq. 13; Karras et al. 2022, eq. 4.

        >>> process = Gaussian(torch.tensor([0.9, 0.1]).sqrt().double(), 2, "epsilon")
        >>> x, t = torch.ones(1, 1), torch.tensor([1])
        >>> bool(process.flow(x, process.saying_score(-x, x, t), t).abs() < 1e-7)  # of N(0, 1) data nothing moves
        True
        """
        s = self.levels(t, x_t)[1]
        shrinking = s if self.signal is None else s**2
        return s * self.noise_in(x_t, prediction, t) - shrinking * x_t

    def unknown(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The noise."""
        return noise

    def implied(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The noise that a prediction implies."""
        return self.noise_in(x_t, prediction, t)

    def spread(self, count: int) -> Tensor:
        """Steps from 0 to ``T``, evenly, ``[count]``."""
        times = (torch.arange(count, dtype=torch.float64) + 0.5) / count * self.steps
        return times if self.signal is None else times.long()

    def check(self, x0: Tensor) -> None:
        """Every picture of numbers can be noised."""

    def noise_in(self, x_t: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """``e`` by the table."""
        a, s = self.levels(t, x_t)
        d = self.deviation
        return {
            "epsilon": lambda: prediction,
            "sample": lambda: (x_t - a * prediction) / s,
            "v_prediction": lambda: s * x_t + d * a * prediction,
            "edm": lambda: s * x_t - d * a * prediction,
            "flow_prediction": lambda: x_t + a * prediction,
        }[self.prediction]()

    def checked_step(self, t: float) -> float:
        """``t`` where it is a step of the schedule.

        Raises:
            ValueError: outside the schedule.
        """
        last = self.steps if self.signal is None else self.steps - 1
        if (
            isinstance(t, bool)
            or not isinstance(t, (int, float))
            or not 0 <= t <= last
            or (self.signal is not None and t != int(t))
        ):
            raise ValueError(f"t must be a step of the schedule, from 0 to {last}, got {t}")
        if self.prediction == "sample" and t == 0 and self.signal is None:
            raise ValueError("at t=0 nothing is noise: ask for a later step")
        return t if self.signal is None else int(t)


def gaussian(process: Process, what: str) -> Gaussian:
    """The process, where it adds Gaussian noise.

    Raises:
        Unsupported: it has none, and `what` needs it.
    """
    if not isinstance(process, Gaussian):
        raise Unsupported(f"{what} is of Gaussian noise; {type(process).__name__} diffusion has none")
    return process
