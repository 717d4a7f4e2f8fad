"""Games: what the number would be with only some of the players."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from explain.progress import in_sight
from explain.types.arrays import Masks, Values
from explain.types.errors import NonFinite
from explain.types.players import Players


class Game:
    """A cooperative game ``v``: masks ``bool [coalitions, P]`` to values ``float64 [coalitions]``.

    It is also a value function for ``shapiq`` and, over an all-zeros background, for ``shap``: NumPy in, NumPy out.

    Args:
        players: who plays.
        evaluate: the number for each row of a batch of masks.
        batch_size: coalitions in one call of ``evaluate``; never changes a value beyond rounding.
        checks: what was measured about this game while it was built (the error of the cut, batched or one by one, ...).

    ``neighbourhoods``, where a family sets it, yields for 0, 1, 2, ... hops the players (int64) near each place of a
    graph: the number may be a sum of parts that hang on one such group each. Estimators that build on it check it.
    ``table``, where a family sets it, gives the number for all ``2^P`` coalitions faster than one by one; bit ``i`` of
    a position is player ``i``.

    Raises:
        ValueError: the masks do not have one column a player.
        NonFinite: the model answered with NaN or infinity.

    >>> game = Game(Players("features", torch.arange(2)), lambda masks: masks.double().sum(1))
    >>> game(torch.tensor([[True, True], [False, True]]))
    tensor([2., 1.], dtype=torch.float64)
    """

    neighbourhoods: Callable[[], Iterator[list[Tensor]]] | None = None
    table: Callable[[], Values] | None = None

    def __init__(
        self,
        players: Players,
        evaluate: Callable[[Masks], Values],
        *,
        batch_size: int = 1024,
        checks: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.players = players
        self.evaluate = evaluate
        self.batch_size = batch_size
        self.checks: dict[str, Any] = dict(checks or {})
        self.calls = 0

    @overload
    def __call__(self, masks: Tensor, progress: bool = False) -> Tensor: ...
    @overload
    def __call__(self, masks: np.ndarray, progress: bool = False) -> np.ndarray: ...
    def __call__(self, masks: Tensor | np.ndarray, progress: bool = False) -> Tensor | np.ndarray:
        """Values of these coalitions, as a tensor for a tensor and as an array for an array.

        Raises:
            ValueError: masks of another shape.
            NonFinite: the number is NaN or infinite for some of them.
        """
        if not isinstance(masks, Tensor):
            return self(torch.as_tensor(np.asarray(masks)).bool(), progress).numpy()
        if masks.dim() != 2 or masks.size(1) != len(self.players):
            raise ValueError(
                f"masks must be [coalitions, {len(self.players)}] (one column a player), got {list(masks.shape)}"
            )
        chunks = masks.bool().split(self.batch_size)
        bar = in_sight(chunks, desc="coalitions", progress=progress)
        values = [self.evaluate(chunk).detach().to("cpu", torch.float64) for chunk in bar if len(chunk)]
        self.calls += len(masks)
        result = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
        if not result.isfinite().all():
            bad = int((~result.isfinite()).sum())
            raise NonFinite(
                f"the model answered NaN or infinity for {bad} of {len(result)} coalitions: check its inputs and the "
                "payoff (a log of zero?), or choose another baseline"
            )
        return result

    def ends(self) -> tuple[float, float]:
        """The number with no player and with every player, ``(v(empty), v(all))``."""
        masks = torch.stack([torch.zeros(len(self.players)), torch.ones(len(self.players))]).bool()
        empty, full = self(masks).tolist()
        return empty, full


def present_atoms(masks: Masks, owner: Tensor) -> Tensor:
    """Which atoms each coalition keeps: masks ``[coalitions, P]``, owner ``[*atoms]`` -> bool ``[coalitions, *atoms]``.

    Atoms that nobody owns, -1 or ``P``, are always there.

    >>> present_atoms(torch.tensor([[True, False]]), torch.tensor([0, 1, 1, -1, 2]))
    tensor([[ True, False, False,  True,  True]])
    """
    return torch.cat([masks, masks.new_ones(len(masks), 1)], 1).to(owner.device)[:, owner]
