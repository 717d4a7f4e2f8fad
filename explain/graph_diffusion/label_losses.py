"""What a denoiser of labels was trained with: the loss of each node, and what nodes weigh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.diffusion.settings import checked_count
from explain.losses import check_weight_decay
from explain.types import Unsupported

OwnLabelLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
LOSSES = ("nodes", "known_and_others")
WHICH = (
    "loss='nodes' (squared error of Gaussian noise, cross-entropy of classes, a mean over all nodes), "
    "'known_and_others' (a mean over the known ones and one over the others, as DPM-SNC), or your own function "
    "(prediction, wanted, noised [rows, n, C], t [rows]) -> [rows, n]"
)


@dataclass(frozen=True)
class LabelLoss:
    """The loss that a denoiser of labels was trained with, as it was told.

    Args:
        name: one of `LOSSES`, the user's own function, or None where nobody said.
        weight_decay: as in ``torch.optim.SGD``.
        draws: of step and noise that stand for all that training drew.

    Raises:
        ValueError: one of them is none.
    """

    name: str | OwnLabelLoss | None = None
    weight_decay: float = 0.0
    draws: int = 16

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in LOSSES and not callable(self.name):
            raise ValueError(f"the loss must be given as {WHICH}; got {self.name!r}")
        check_weight_decay(self.weight_decay)
        checked_count(self.draws, "draws")

    def shares(self, known: Tensor) -> Tensor:
        """What each node weighs in the loss of a graph, float64 ``[n]``.

        Raises:
            Unsupported: nobody said which loss was trained.
        """
        if self.name is None:
            raise Unsupported(
                "how was this denoiser trained? Which labels and which tokens are behind a number hangs on it: "
                f"explain.wrap(..., {WHICH})"
            )
        if self.name == "known_and_others":
            shares = [mask.double() / mask.sum().clamp_min(1) for mask in (known, ~known)]
            return shares[0] + shares[1]
        return torch.full(known.shape, 1 / len(known), dtype=torch.float64, device=known.device)

    def told(self) -> dict[str, Any]:
        """What is to be said of it in an answer."""
        name = self.name if isinstance(self.name, str) else getattr(self.name, "__name__", "callable")
        drawn = f"{self.draws} draws of step and noise, the same for all labels, in place of all that training drew"
        return {"loss": name, "assumed": {"noise": drawn}}
