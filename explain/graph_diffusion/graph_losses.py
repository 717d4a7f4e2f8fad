"""What a denoiser of graphs was trained with: the loss of a noised graph, and what it was averaged over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from explain.diffusion.settings import checked_count
from explain.graph_diffusion.graph_states import GraphNoise, State
from explain.losses import check_weight_decay
from explain.types import Unsupported

OwnLoss: TypeAlias = Callable[[State, State, Tensor], Tensor]
LOSSES = ("entries", "graphs")
_WHICH = (
    "loss='entries' (cross-entropy, a mean over the entries of all graphs, as DiGress takes it in a batch), "
    "'graphs' (a mean in each graph, then over graphs), or your own function (logits, clean, t) -> [rows], with "
    "logits.nodes [rows, n, a], logits.pairs [rows, n, n, b] and so the clean ones"
)


@dataclass(frozen=True)
class GraphLoss:
    """The loss that a denoiser of graphs was trained with, as it was told.

    Args:
        name: one of `LOSSES`, the user's own function, or None where nobody said.
        pairs_weight: what the cross-entropy of pairs is multiplied by, that of nodes by 1.
        weight_decay: as in ``torch.optim.SGD``.
        draws: of step and noise that stand for all that training drew.

    Raises:
        ValueError: one of them is none.
    """

    name: str | OwnLoss | None = None
    pairs_weight: float | None = None
    weight_decay: float = 0.0
    draws: int = 16

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in LOSSES and not callable(self.name):
            raise ValueError(f"the loss must be given as {_WHICH}; got {self.name!r}")
        weight = self.pairs_weight
        if weight is not None and (isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0):
            raise ValueError(f"pairs_weight must be a number above 0, got {weight!r}")
        if weight is not None and callable(self.name):
            raise ValueError("pairs_weight= is of the named losses: weigh the pairs in your own")
        check_weight_decay(self.weight_decay)
        checked_count(self.draws, "draws")

    def weight_of(self, process: GraphNoise) -> float:
        """What pairs weigh where nodes weigh 1.

        Raises:
            Unsupported: nobody said which loss was trained, or what pairs weigh beside types of nodes.
        """
        if self.name is None:
            raise Unsupported(
                f"how was this denoiser trained? Which graphs are behind a number hangs on it: wrap(..., {_WHICH})"
            )
        if self.pairs_weight is None and process.nodes is not None and not callable(self.name):
            raise Unsupported(
                "how much did pairs weigh in the trained loss beside the types of nodes? Say "
                "explain.wrap(..., pairs_weight=5.0), as DiGress has it, or 1.0 where both are alike"
            )
        return self.pairs_weight or 1.0

    def told(self) -> dict[str, Any]:
        """What is to be said of it in an answer."""
        name = self.name if isinstance(self.name, str) else getattr(self.name, "__name__", "callable")
        drawn = f"{self.draws} draws of step and noise, the same for every graph, in place of all that training drew"
        return {"loss": name, "assumed": {"noise": drawn}}
