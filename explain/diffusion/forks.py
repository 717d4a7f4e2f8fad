"""Forks: the same run up to a step, other noise from there on. What they still share was decided before."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from explain.diffusion.sampling import Fork
from explain.diffusion.settings import checked_count
from explain.payoffs import one_a_row, whole_number
from explain.types import Unsupported

_FORKS = 0x9E3779B97F4A7C
_BUDGET = 2**22  # image numbers in one forward pass


class Forking(Protocol):
    """A run of ``steps`` steps whose noise can be another one's from a step on."""

    @property
    def seed(self) -> int:
        """Of the first draw."""

    @property
    def batch_size(self) -> int | None:
        """Rows of one pass, None for a memory budget."""

    @property
    def payoff(self) -> Callable[[Tensor], Tensor] | None:
        """``samples [n, ...] -> [n]``."""

    @property
    def steps(self) -> int:
        """How many steps it takes."""

    @property
    def like(self) -> Tensor:
        """A sample of its size, ``[*shape]``."""

    @property
    def scheduler_name(self) -> str:
        """The name of what makes its steps."""

    @property
    def timesteps(self) -> list[float]:
        """The timestep of each step."""

    def forked(self, fork: Fork) -> Tensor:
        """What forks of the first draw's run end in, ``[n, ...]``, as payoffs see it."""


class Decided(NamedTuple):
    """At which step the number of a run is decided.

    Args:
        t: the timestep of each step, ``[steps]``.
        variance: ``Var(f | x_t)`` at each step, float64 ``[steps]``: of the numbers of forks there.
        explained: how much the noise of each step explains, ``Var(f | x_t) - Var(f | x_(t-1))``, float64 ``[steps]``:
            together the first variance. Estimated from few forks it may fall below zero.
    """

    t: Tensor
    variance: Tensor
    explained: Tensor


@torch.no_grad()
def forks(number: Forking, at: int, draws: int) -> Tensor:
    """Samples that share the first draw's ``x_t`` at step ``at`` and meet noise of their own from there on.

    Raises:
        ValueError: no such step.
        Unsupported: a run without noise in its steps has no forks.
    """
    step = whole_number(at)
    if step is None or not 0 <= step < number.steps:
        raise ValueError(f"at must be a step of the run, from 0 to {number.steps - 1}, got {at!r:.60}")
    check_noise(number)
    return _samples(number, torch.full((checked_count(draws, "draws"),), step))


@torch.no_grad()
def decided(number: Forking, draws: int) -> Decided:
    """How much of the number's variance each step's noise explains, from ``draws`` forks at every step.

    By the law of total variance ``Var(f | x_T) = sum_k E[Var(f | x_k) - Var(f | x_(k+1))]``; the outer mean is over the
    run's own noise alone: other seeds are other runs.

    Raises:
        ValueError: fewer than two forks have no variance, or there is no payoff.
        Unsupported: a run without noise in its steps has no forks.
    """
    draws = checked_count(draws, "draws")
    if draws < 2:
        raise ValueError(f"draws must be at least 2, as one fork has no variance, got {draws}")
    check_noise(number)
    if number.payoff is None:
        raise ValueError("which number of the samples? Ask with a payoff")
    samples = _samples(number, torch.arange(number.steps).repeat_interleave(draws))
    values = one_a_row(number.payoff(samples), len(samples), "sample").double().view(number.steps, draws)
    variance = values.var(1).cpu()
    after = torch.cat([variance[1:], variance.new_zeros(1)])
    return Decided(torch.tensor(number.timesteps), variance, variance - after)


def check_noise(number: Forking) -> None:
    """Raise where the steps add no noise: two forks at the first step end in the same sample.

    Raises:
        Unsupported: with the remedy.
    """
    one, other = _samples(number, torch.zeros(2, dtype=torch.long))
    if torch.equal(one, other):
        name = number.scheduler_name
        raise Unsupported(
            f"the steps of {name} add no noise here, so that everything is decided with x_T and there are no forks: "
            "take trajectory(..., eta=1) where its steps take eta (DDIMScheduler), DDPMScheduler, or an ancestral "
            "scheduler"
        )


def _samples(number: Forking, at: Tensor) -> Tensor:
    """The ends of forks at these steps ``[n]``, numbered anew at every step, ``[n, *shape]``."""
    counts = {int(step): 0 for step in at}
    stream = []
    for step in at.tolist():
        stream.append(counts[step])
        counts[step] += 1
    generator = torch.Generator().manual_seed(number.seed ^ _FORKS)
    seeds = torch.randint(2**62, (max(stream) + 1,), generator=generator).tolist()
    size = number.batch_size or max(1, _BUDGET // number.like.numel())
    found = []
    for first in range(0, len(at), size):
        part = slice(first, first + size)
        fork = Fork(at[part], [seeds[one] for one in stream[part]], torch.tensor(stream[part]))
        found.append(number.forked(fork))
    return torch.cat(found)
