"""What outputs of a known kind say: the class, its number, how sure, and by which margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from explain.spelling import came

Kind: TypeAlias = Literal["logits", "probabilities", "log_probabilities", "values"]
KINDS: tuple[str, ...] = get_args(Kind)
PayoffName: TypeAlias = Literal["logit", "probability", "log_probability", "loss", "value"]


def check_kind(given: str | None) -> None:
    """Check that this is one of `KINDS`, or None.

    Raises:
        ValueError: it is not.
    """
    if given is not None and given not in KINDS:
        raise ValueError(f"outputs must be one of {', '.join(KINDS)} or None, {came(given, KINDS)}")


@dataclass(frozen=True)
class Meaning:
    """What the ``count`` outputs of a row are.

    Args:
        kind: see `KINDS`. One output of a classifier is that of class 1; "values" have no classes.
        count: outputs a row.
        exclusive: the classes exclude one another (softmax); otherwise each output is a yes or no of its own (sigmoid).
        assumed: how it was found; None where it was given, or follows from outputs and labels.

    >>> sigmoid = Meaning("probabilities", 1)
    >>> sigmoid.predicted(torch.tensor([0.3])), sigmoid.own(torch.tensor([[0.25]]), 0)
    (0, tensor([0.7500]))
    """

    kind: Kind
    count: int
    exclusive: bool = True
    assumed: str | None = None

    def told(self, payoff: Any, output: str | None = None) -> dict[str, str]:
        """What was assumed about the outputs that bears on a payoff, and about which part of the answer they are."""
        itself = self.kind == "logits" and self.count > 1 and payoff in ("logit", "value")  # whatever the others are
        return {
            name: said for name, said in (("outputs", None if itself else self.assumed), ("output", output)) if said
        }

    def turned(self, label: int | None, payoff: Any) -> str | None:
        """What the number of class 0 is to a classifier's one output, that of class 1; None of any other number.

        >>> Meaning("logits", 1).turned(0, "logit")
        "0, the predicted class: the number is minus the model's output, label=1 asks for the output itself"
        """
        if self.count > 1 or label != 0 or not self.classes or callable(payoff):
            return None
        own = {"logits": "minus the model's output", "probabilities": "1 - the model's output"}
        said = own.get(self.kind, "log(1 - exp(the model's output))")
        if payoff not in ("value", self.default_payoff):
            return f"0, the predicted class: the number is its {payoff}, the model's output is that of class 1"
        return f"0, the predicted class: the number is {said}, label=1 asks for the output itself"

    @property
    def classes(self) -> int:
        """How many classes there are; 0 for values."""
        return 0 if self.kind == "values" else max(self.count, 2)

    @property
    def binary(self) -> bool:
        """Whether an output is read by itself against its own complement."""
        return self.count == 1 or not self.exclusive

    @property
    def default_payoff(self) -> PayoffName:
        """The name of the model's own number."""
        names: dict[Kind, PayoffName] = {
            "logits": "logit",
            "probabilities": "probability",
            "log_probabilities": "log_probability",
            "values": "value",
        }
        return names[self.kind]

    def own(self, outputs: Tensor, label: int | None) -> Tensor:
        """The model's own number for a class, ``[rows, outputs] -> [rows]``; of values, the output ``label``."""
        if self.kind == "values" or self.count > 1:
            return outputs[:, label or 0]
        found = outputs[:, 0]
        if label:
            return found
        return {"logits": torch.neg, "probabilities": lambda p: 1 - p, "log_probabilities": log1mexp}[self.kind](found)

    def log_probability(self, outputs: Tensor, label: int, least: float = 0.0) -> Tensor:
        """``log p(label)`` of each row; probabilities below ``least`` count as that."""
        own = self.own(outputs, label)
        if self.kind == "logits":
            return F.logsigmoid(own) if self.binary else outputs.log_softmax(1)[:, label]
        return own.clamp_min(least).log() if self.kind == "probabilities" else own

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """``log p`` of every class, ``[rows, outputs] -> [rows, classes]``."""
        return torch.stack([self.log_probability(outputs, label) for label in range(self.classes)], 1)

    def divergence(self, row: Tensor, outputs: Tensor) -> Tensor:
        """``KL(p || q)`` of what ``row`` ``[1, outputs]`` says from what each of these says, 0 to infinity, ``[rows]``.

        Of several yes or no the sum over each: they are distributions of their own, which need not sum to 1.
        """
        log_p, log_q = self.log_probabilities(row), self.log_probabilities(outputs)
        found = _relative(log_p, log_q)
        return found if self.exclusive or self.count == 1 else found + _relative(log1mexp(log_p), log1mexp(log_q))

    def standard(self, outputs: Tensor, label: int | None) -> tuple[Tensor, int | None]:
        """For those that take a softmax of several columns or a sigmoid of one: such logits, and the label in them.

        Of values the one that is meant, ``[rows, 1]``, and no label.
        """
        if self.kind == "values" or label is None:
            return self.own(outputs, label)[:, None], None
        if self.binary:
            return self.log_odds(outputs, 1 if self.count == 1 else label)[:, None], label if self.count == 1 else 1
        return self.log_probabilities(outputs) if self.kind == "probabilities" else outputs, label

    def log_odds(self, outputs: Tensor, label: int) -> Tensor:
        """The logit: the model's own where it has them, else ``log p - log(1 - p)``."""
        own = self.own(outputs, label)
        if self.kind == "probabilities":
            return own.log() - (1 - own).log()
        return own - log1mexp(own) if self.kind == "log_probabilities" else own

    def predicted(self, row: Tensor) -> int:
        """The class of one row ``[outputs]``: the largest output, or on which side of even odds a single one is."""
        return int(row.argmax()) if self.count > 1 else int(row.reshape(()) > self._even)

    def decides(self, outputs: Tensor, label: int) -> Tensor:
        """Which rows are decided for a class, bool ``[rows]``; of several yes or no, where ``label`` gets a yes."""
        if not self.binary:
            return outputs.argmax(1) == label
        yes = outputs[:, label if self.count > 1 else 0] > self._even
        return yes if label or self.count > 1 else ~yes

    def margin(self, outputs: Tensor, label: int) -> Tensor:
        """Above zero in the rows that are decided for a class, ``[rows]``, in the outputs' own units."""
        if self.binary:
            found = outputs[:, label if self.count > 1 else 0] - self._even
            return found if label or self.count > 1 else -found
        rest = torch.cat([outputs[:, :label], outputs[:, label + 1 :]], 1)
        return outputs[:, label] - rest.max(1).values

    def decision(self, row: Tensor, label: int | None) -> tuple[int, Callable[[Tensor], Tensor]]:
        """What is decided in this row, and a function of outputs that stays above zero as long as that stands.

        Of exclusive classes which one it is; of several yes or no what the model says to ``label``.
        """
        chosen = self.predicted(row) if self.exclusive or label is None else label
        sign = 1.0 if self.exclusive or float(self.margin(row[None], chosen)) > 0 else -1.0
        return chosen, lambda outputs: sign * self.margin(outputs, chosen)

    @property
    def _even(self) -> float:
        return {"logits": 0.0, "probabilities": 0.5, "log_probabilities": math.log(0.5), "values": 0.0}[self.kind]


def _relative(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``sum p (log p - log q)``; what has no chance under p adds nothing."""
    return (log_p.exp() * (log_p - log_q)).where(log_p.exp() > 0, 0.0).sum(1)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``."""
    return torch.where(x > -math.log(2), (-x.expm1()).log(), (-x.exp()).log1p())
