"""Categorical noise: classes of tokens, nodes or edges that are kept, or drawn anew from a limit distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from explain.spelling import came

_UNIFORM = 1e-30  # below this a uniform draw has no logarithm


@dataclass(frozen=True, eq=False)
class Categorical:
    """``x_t`` is ``x_{t-1}`` with probability ``1 - b_t``, else drawn from the limit ``m``; one entry by itself.

    With ``a_t = prod_{s <= t} (1 - b_s)``, ``a_0 = 1``, one-hot rows and ``r = a_t / a_s``,

    - ``Q_t = (1 - b_t) I + b_t 1 m^T`` and ``q(x_t | x_0) = x_0 (a_t I + (1 - a_t) 1 m^T)``,
    - ``q(x_s | x_t, x_0) ~ (r x_t + (1 - r) <x_t, m>) (a_s x_0 + (1 - a_s) m)``, entry by entry.

    The limit says which process it is: `uniform` and `absorbing` (one class, the mask, holds all of ``m``; D3PM, Austin
    et al. 2021) or `marginal` (the classes' frequencies; DiGress, Vignac et al. 2023). States are distributions
    ``[batch, ..., K]``, one-hot where they are certain; ``t`` runs from 1 to ``T``, a number or ``[batch]``.

    Args:
        kept: ``a_t``, float64 ``[T]``, falling.
        limit: ``m``, float64 ``[K]``.

    Raises:
        ValueError: ``kept`` that rises or leaves [0, 1], a limit that is no distribution.

    >>> process = Categorical.absorbing(torch.full((4,), 0.5), classes=3)
    >>> process.at(torch.eye(3)[:1], 1)
    tensor([[0.5000, 0.0000, 0.5000]])
    >>> process.posterior(torch.eye(3)[2:], torch.eye(3)[:1], 2)  # a mask may have been there for one step or two
    tensor([[0.3333, 0.0000, 0.6667]])
    """

    kept: Tensor
    limit: Tensor

    def __post_init__(self) -> None:
        kept, limit = (torch.as_tensor(part, dtype=torch.float64) for part in (self.kept, self.limit))
        falls = kept.dim() == 1 and len(kept) and bool((kept.diff() <= 0).all()) and 0 <= kept[-1] <= kept[0] <= 1
        if not falls:
            raise ValueError(f"kept must fall from at most 1 to at least 0, [T], got {_few(kept)}")
        if limit.dim() != 1 or bool((limit < 0).any()) or abs(float(limit.sum()) - 1) > 1e-6:
            raise ValueError(f"the limit must be a distribution over the classes, [K], got {_few(limit)}")
        object.__setattr__(self, "kept", kept)
        object.__setattr__(self, "limit", limit / limit.sum())

    @classmethod
    def uniform(cls, betas: Tensor, classes: int) -> Self:
        """All classes alike in the limit; ``betas [T]`` are ``b_t``."""
        return cls.marginal(betas, torch.ones(classes))

    @classmethod
    def absorbing(cls, betas: Tensor, classes: int, mask: int = -1) -> Self:
        """Every entry ends as the class ``mask``, which is one of the ``classes``."""
        return cls.marginal(betas, torch.zeros(classes).index_fill(0, torch.tensor(mask % classes), 1.0))

    @classmethod
    def marginal(cls, betas: Tensor, frequencies: Tensor) -> Self:
        """The limit is how often each class occurs, in counts or shares ``[K]``.

        Raises:
            ValueError: frequencies that are no counts, none at all, or ``betas`` outside [0, 1].
        """
        counts, betas = torch.as_tensor(frequencies).double(), torch.as_tensor(betas).double()
        if counts.dim() != 1 or bool((counts < 0).any()) or not float(counts.sum()) > 0:
            raise ValueError(f"frequencies must be counts or shares of the classes, [K], got {_few(counts)}")
        if betas.dim() != 1 or not bool(((betas >= 0) & (betas <= 1)).all()):
            raise ValueError(f"betas must be from 0 to 1, [T], got {_few(betas)}")
        return cls((1 - betas).cumprod(0), counts / counts.sum())

    @property
    def steps(self) -> int:
        """``T``."""
        return len(self.kept)

    @property
    def classes(self) -> int:
        """``K``."""
        return len(self.limit)

    def checked_step(self, t: Any) -> int:
        """``t`` where it is a step of the schedule.

        Raises:
            ValueError: it is none.
        """
        if isinstance(t, bool) or not isinstance(t, (int, float)) or t != int(t) or not 1 <= t <= self.steps:
            raise ValueError(f"t must be a step of the schedule, whole, from 1 to {self.steps}, got {t!r:.60}")
        return int(t)

    def _kept(self, t: int | Tensor, like: Tensor) -> Tensor:
        """``a_t``, shaped to multiply ``like [batch, ..., K]``."""
        step = torch.as_tensor(t, device=self.kept.device)
        found = torch.cat([self.kept.new_ones(1), self.kept])[step].to(like)
        return found.reshape(-1, *[1] * (like.dim() - 1)) if step.dim() else found

    def transition(self, t: int, s: int | None = None) -> Tensor:
        """The matrix ``q(x_t | x_s)``, float64 ``[K, K]``, row by row; of the one step to ``t`` where ``s`` is None."""
        ratio = self._kept(t, self.kept) / self._kept(t - 1 if s is None else s, self.kept)
        return ratio * torch.eye(self.classes, dtype=torch.float64) + (1 - ratio) * self.limit

    def at(self, x0: Tensor, t: int | Tensor) -> Tensor:
        """``q(x_t | x_0)``, ``[batch, ..., K]``."""
        kept = self._kept(t, x0)
        return kept * x0 + (1 - kept) * self.limit.to(x0)

    def noised(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """A draw of ``q(x_t | x_0)``, one-hot; see `drawn`."""
        return drawn(self.at(x0, t), noise)

    def absent(self, noise: Tensor) -> Tensor:
        """A draw of the limit, one-hot: what stands where an entry is taken away, at every step."""
        return drawn(self.limit.to(noise).expand_as(noise), noise)

    def posterior(self, x_t: Tensor, x0: Tensor, t: int | Tensor, s: int | Tensor | None = None) -> Tensor:
        """``q(x_s | x_t, x_0)``, ``s = t - 1`` where it is None.

        With a network's ``p(x_0 | x_t)`` in place of ``x_0`` this is the reverse step of D3PM,
        ``p(x_s | x_t) ~ sum_{x_0} p(x_0) q(x_s, x_t | x_0)``. Where ``x_t`` cannot come of ``x_0`` it is all zeros.
        """
        joint = self._likelihood(x_t, t, s) * self.at(x0, t - 1 if s is None else s)
        return joint / joint.sum(-1, keepdim=True).clamp_min(torch.finfo(joint.dtype).tiny)

    def reverse(self, x_t: Tensor, p: Tensor, t: int | Tensor, s: int | Tensor | None = None) -> Tensor:
        """The reverse step of DiGress, ``p(x_s | x_t) = sum_{x_0} p(x_0) q(x_s | x_t, x_0)``, ``p [batch, ..., K]``.

        Classes of ``x_0`` that cannot have led to ``x_t`` are left out, and the others made to sum to 1.
        """
        before = t - 1 if s is None else s
        kept, limit = self._kept(before, x_t), self.limit.to(x_t)
        whole = self._kept(t, x_t)
        total = whole * x_t + (1 - whole) * (x_t * limit).sum(-1, keepdim=True)  # q(x_t | x_0) of each class x_0
        share = torch.where(total > 0, p / total.clamp_min(torch.finfo(p.dtype).tiny), 0.0)
        mixed = self._likelihood(x_t, t, s) * (kept * share + (1 - kept) * limit * share.sum(-1, keepdim=True))
        return mixed / mixed.sum(-1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)

    def _likelihood(self, x_t: Tensor, t: int | Tensor, s: int | Tensor | None) -> Tensor:
        """``q(x_t | x_s)`` of each class ``x_s``, ``[batch, ..., K]``."""
        ratio = self._kept(t, x_t) / self._kept(t - 1 if s is None else s, x_t)
        return ratio * x_t + (1 - ratio) * (x_t * self.limit.to(x_t)).sum(-1, keepdim=True)

    def divergence(self, x_t: Tensor, x0: Tensor, p: Tensor, t: int | Tensor, rule: str = "mixture") -> Tensor:
        """``L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))`` of each entry in nats, ``[batch, ...]``.

        At ``t = 1`` this is ``-log p(x_0 | x_1)``.

        Args:
            x_t: the noised state, one-hot.
            x0: the clean state, one-hot.
            p: what a network says of the clean state.
            t: the step.
            rule: how ``p`` makes a step: "mixture", as `reverse`, or "joint", as `posterior`.

        Raises:
            ValueError: another rule.
        """
        rules = {"mixture": self.reverse, "joint": self.posterior}
        if rule not in rules:
            raise ValueError(f"rule must be one of {', '.join(rules)}, {came(rule, rules)}")
        return _kl(self.posterior(x_t, x0, t), rules[rule](x_t, p, t))

    def prior_divergence(self, x0: Tensor) -> Tensor:
        """``L_T = KL(q(x_T | x_0) || m)`` of each entry in nats, ``[batch, ...]``."""
        return _kl(self.at(x0, self.steps), self.limit.to(x0).expand_as(x0))


def drawn(p: Tensor, noise: Tensor) -> Tensor:
    """A class of each distribution ``p [..., K]``, one-hot: ``argmax (log p - log(-log noise))``, the Gumbel trick.

    ``noise [..., K]`` is uniform in [0, 1): an entry that keeps its noise keeps its class as long as ``p`` changes
    little, whatever happens to the others.
    """
    gumbel = -(-noise.clamp_min(_UNIFORM).log()).clamp_min(_UNIFORM).log()
    return torch.nn.functional.one_hot((p.log() + gumbel).argmax(-1), p.size(-1)).to(p)


def _kl(q: Tensor, p: Tensor) -> Tensor:
    return (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1)


def _few(values: Tensor) -> str:
    return f"{list(values.shape)}: {', '.join(f'{value:.3g}' for value in values.reshape(-1)[:5].tolist())}"
