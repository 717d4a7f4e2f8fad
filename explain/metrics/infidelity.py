"""Whether the credit adds up as the number does, when random players are taken away."""

from __future__ import annotations

import torch
from captum.metrics import infidelity as captum_infidelity
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.selection import expect
from explain.types import Target


def infidelity(
    why: Explanation,
    target: Target,
    *,
    share: float = 0.2,
    samples: int = 128,
    normalise: bool = True,
    seed: int = 0,
) -> float:
    """``E_I (I . phi - (v(N) - v(N - I)))^2``, ``I`` random players taken away (Yeh et al. 2019), by captum.

    Args:
        why: the explanation, scores ``phi [P]``.
        target: the number ``v``, asked again.
        share: the chance of each player to be taken.
        samples: draws of ``I``.
        normalise: scores may first be scaled by the one factor that fits best, for methods whose scores have no units.
        seed: of the draws.

    Raises:
        ValueError: no samples, or a share outside 0 to 1.

    >>> import explain
    >>> net = torch.nn.Linear(4, 1)
    >>> target = explain.wrap(net, task="regression").example(torch.ones(4))
    >>> infidelity(explain.Shapley("features").explain(target), target) < 1e-10
    True
    """
    expect((why, Explanation), (target, Target))
    if not 0 < share <= 1 or samples < 2:
        raise ValueError(f"share must be above 0 and at most 1, samples at least 2, got {share} and {samples}")
    generator = torch.Generator().manual_seed(seed)
    game = target.game(why.players)

    def take(present: Tensor) -> tuple[Tensor, Tensor]:
        taken = (torch.rand(present.shape, generator=generator) < share).to(present)
        return taken, present - taken

    everyone = torch.ones(1, len(why.players), dtype=torch.float64)
    found = captum_infidelity(
        lambda present: game(present > 0.5),
        take,
        everyone,
        why.scores[None],
        n_perturb_samples=samples,
        normalize=normalise,
    )
    return float(found)
