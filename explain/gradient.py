"""Gradient: credit by derivatives, with captum. Exact where the number is linear, local where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor

from explain.derivatives import Derivative, derivative
from explain.doubts import doubt
from explain.explainer import Answer, Explainer
from explain.progress import in_sight
from explain.spelling import came
from explain.types import Differentiable, NonFinite, Players, Target

Method: TypeAlias = Literal["saliency", "input_x_gradient", "integrated_gradients", "smooth_grad", "gradient_shap"]
_BUDGET = 2**24  # numbers in one batch of path points or noisy inputs: bounds memory, never changes a score
_INCOMPLETE = 0.05
_MESSAGES = ("edges", "relations", "motifs")  # players whose atoms are amounts of messages


@dataclass(frozen=True)
class Gradient(Explainer):
    """Derivatives of the number ``f`` along the atoms ``x`` that players own, summed over each player's atoms.

    | method                 | credit of atom ``i``                                 | source                   |
    |------------------------|------------------------------------------------------|--------------------------|
    | "saliency"             | ``abs(d f/d x_i)``                                   | Simonyan et al. 2013     |
    | "input_x_gradient"     | ``x_i d f/d x_i``                                    | Shrikumar et al. 2016    |
    | "integrated_gradients" | ``(x_i - b_i) int_0^1 d f/d x_i (b + a (x - b)) da`` | Sundararajan et al. 2017 |
    | "smooth_grad"          | ``abs(mean over noise of d f/d x_i (x + noise))``    | Smilkov et al. 2017      |
    | "gradient_shap"        | as integrated gradients, ``a`` drawn at random       | Lundberg and Lee 2017    |

    ``b`` is the target's baseline. Edges are differentiated by the amount of their messages, so this answers what a
    *message* is worth, not what deleting the edge would do. Where messages cannot be told apart (a dense adjacency,
    spectral and diffusion layers, edges that a network rearranges) they are differentiated by the weight of their
    entry, ``x``, if the network answers with weights of 0 as it does without the edges: then ``b`` is the graph that
    lacks them. Other players are replaced by the baseline.

    Not for: what the absence of a player does to a number that is saturated, or that hangs on hard choices (top-k,
    rounding).

    Args:
        players: a kind or `Players`.
        method: see above.
        steps: path points ("integrated_gradients"), noisy copies ("smooth_grad") or draws ("gradient_shap").
        noise: "smooth_grad" only: standard deviation of the noise, as a part of the range of the inputs.
        batch_size: points in one forward pass; by default as many as fit a memory budget.
        seed: of the noise and the draws.
        progress: a bar where it takes more than five seconds.

    Checks: ``completeness_gap``, ``|sum of all credit - (f(x) - f(b))| / |f(x) - f(b)|`` in float64 (captum's
    convergence delta made relative; absolute where ``f(x) = f(b)``), for the methods that should close it; ``unowned``,
    the credit on atoms that no player owns; ``derivative_gap``, how far torch's derivative at ``x`` lies outside the
    slopes of small steps of ``f`` either way along one direction, relative (1 where ``f`` jumps there): not 0 behind a
    detach, a straight-through gradient or equal eigenvalues, where credit is of torch's derivative, not of ``f``'s;
    ``value_gap``, ``|f(x) - number|``; ``removal``, the question. Of weights
    of edges ``entries``, where they stand, ``entries_gap``, how far answers with a weight of 0 are from those without
    the edge (relative, the most in a few coalitions), and ``entries_jump``, the part of all that the absence of edges
    changes by which the answers jump where weights leave zero.

    Raises:
        ValueError: the number cannot be differentiated by these players.
        NonFinite: it is NaN or infinite at the baseline, and the method goes there, or torch's derivative is.

    Warns:
        UserWarning: integrated gradients miss more than 5 % of ``f(x) - f(b)``, torch's derivative is not that of
            ``f``, or the number jumps where weights of edges leave zero.

    >>> Gradient("features", method="saliency").method
    'saliency'
    """

    players: str | Players
    method: Method = "integrated_gradients"
    steps: int = 64
    noise: float = 0.1
    batch_size: int | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, {came(self.method, _METHODS)}")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}")
        if self.noise <= 0:
            raise ValueError(f"noise must be above 0 (a part of the inputs' range), got {self.noise}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        players = target.players(self.players) if isinstance(self.players, str) else self.players
        value = target.value()
        checks: dict[str, Any] = {"removal": "message" if players.kind in _MESSAGES else "features"}
        if not len(players):
            return Answer(scores=torch.zeros(0), players=players, value=value, base=None, checks=checks, calls=1)
        question = target.differentiable(players)
        checks |= {"removal": question.removal, **question.checks}
        counted = _Counted(question.f)
        question = question._replace(f=counted, inputs=question.inputs.detach().clone())
        seed = int(torch.randint(2**31, (), generator=generator))
        torch.manual_seed(seed)  # captum draws from the global states, which are put back afterwards
        np.random.seed(seed)  # noqa: NPY002 - as above
        measured = _measured(question, self, torch.Generator().manual_seed(seed))
        with torch.enable_grad(), in_sight(desc="points", total=self.points, progress=self.progress) as counted.bar:
            credit = _METHODS[self.method](question, self).detach().double()[0]
        scores, unowned = _owned(credit, question.owner, len(players))
        with torch.no_grad():
            ends = torch.cat([question.inputs, question.baseline.to(question.inputs)])
            full, base = question.f(ends).double().tolist()
        checks |= {"value_gap": abs(full - value), "unowned": unowned, "derivative_gap": measured.gap}
        complete = self.method in _COMPLETE
        if complete and not math.isfinite(base):
            raise NonFinite(
                "the number is NaN or infinite at the baseline, where nothing is there (a division by nothing?): "
                'use method="saliency" or "input_x_gradient", which do not go there, or Shapley'
            )
        if complete:
            checks["completeness_gap"] = self._completeness(float(credit.sum()), full, base, question.doubt)
        elif question.doubt:
            doubt(question.doubt)
        if measured.doubt and scores.isfinite().all():
            doubt(measured.doubt)
        return Answer(
            scores=scores,
            players=players,
            value=value,
            base=base if complete else None,
            checks=checks,
            calls=counted.calls + 1,
        )

    def _completeness(self, total: float, full: float, base: float, jumps: str) -> float:
        change = full - base
        gap = abs(total - change) / (abs(change) or 1.0)
        if gap > _INCOMPLETE and abs(total - change) > 1e-6 * abs(full):
            why = jumps or f"use more steps than {self.steps} (where a model chooses, as top-k does, none are enough)"
            if jumps or self.method == "integrated_gradients":
                doubt(
                    f"{self.method.replace('_', ' ')} add up to {total:.4g}, the number changes by {change:.4g}: {why}"
                )
        return gap

    @property
    def points(self) -> int:
        """At how many inputs the number is differentiated."""
        return 1 if self.method in ("saliency", "input_x_gradient") else self.steps

    def batch(self, inputs: Tensor) -> int:
        """Points in one forward pass."""
        return self.batch_size or max(1, min(self.steps, _BUDGET // max(inputs.numel(), 1)))


def _saliency(question: Differentiable, settings: Gradient) -> Tensor:
    return Saliency(question.f).attribute(question.inputs, abs=True)


def _input_x_gradient(question: Differentiable, settings: Gradient) -> Tensor:
    return InputXGradient(question.f).attribute(question.inputs)


def _integrated_gradients(question: Differentiable, settings: Gradient) -> Tensor:
    return IntegratedGradients(question.f).attribute(
        question.inputs,
        question.baseline.to(question.inputs),
        n_steps=settings.steps,
        internal_batch_size=settings.batch(question.inputs),
    )


def _smooth_grad(question: Differentiable, settings: Gradient) -> Tensor:
    low, high = question.inputs.aminmax()
    spread = settings.noise * float((high - low).detach()) or settings.noise  # constant inputs have no range
    return (
        NoiseTunnel(Saliency(question.f))
        .attribute(
            question.inputs,
            nt_type="smoothgrad",
            nt_samples=settings.steps,
            nt_samples_batch_size=settings.batch(question.inputs),
            stdevs=spread,
            abs=False,
        )
        .abs()
    )


def _gradient_shap(question: Differentiable, settings: Gradient) -> Tensor:
    baseline = question.baseline.to(question.inputs)
    size = settings.batch(question.inputs)
    credit = torch.zeros_like(question.inputs)
    for done in range(0, settings.steps, size):
        draws = min(size, settings.steps - done)
        part = GradientShap(question.f).attribute(question.inputs, baseline, n_samples=draws, stdevs=0.0)
        credit += part.detach() * (draws / settings.steps)
    return credit


_METHODS: dict[str, Callable[[Differentiable, Gradient], Tensor]] = {
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
    "integrated_gradients": _integrated_gradients,
    "smooth_grad": _smooth_grad,
    "gradient_shap": _gradient_shap,
}
_COMPLETE = ("integrated_gradients", "gradient_shap")


def _measured(question: Differentiable, settings: Gradient, generator: torch.Generator) -> Derivative:
    """How torch's derivative stands to the number's small steps, once it is known to hang on the inputs by one.

    Raises:
        ValueError: it does not, or is not one number a row.
    """
    with torch.enable_grad():
        probe = question.f(question.inputs.requires_grad_())
        if probe.shape != (1,):
            raise ValueError(f"f must give one number a row, [1], got {list(probe.shape)}")
        gradient = (
            torch.autograd.grad(probe.sum(), question.inputs, allow_unused=True) if probe.requires_grad else (None,)
        )
    if gradient[0] is None:
        raise ValueError(
            "the number cannot be differentiated by these players: no gradient reaches them (a detach, a rounding "
            "or a no_grad inside the model?); use Shapley or Lime"
        )
    owned = (question.owner.to(gradient[0].device) >= 0).expand_as(question.inputs)
    asked = question.inputs, float(probe.detach()), gradient[0], owned, generator
    return derivative(question.f, *asked, batch=settings.batch(question.inputs))


def _owned(credit: Tensor, owner: Tensor, players: int) -> tuple[Tensor, float]:
    """Credit of the atoms summed per player, ``[P]``, and the sum on atoms without one."""
    sums = credit.new_zeros(players + 1).index_add_(0, owner.reshape(-1).to(credit.device) + 1, credit.reshape(-1))
    return sums[1:], float(sums[0])


class _Counted:
    """``f`` with a count of its evaluations, seen on ``bar``."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f, self.calls, self.bar = f, 0, in_sight(progress=False)

    def __call__(self, inputs: Tensor) -> Tensor:
        self.calls += len(inputs)
        found = self.f(inputs)
        self.bar.update(len(inputs))
        return found
