"""What a denoiser of graphs is conditioned on, and how it is guided without a classifier."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from explain.diffusion.settings import checked_guidance

CONDITIONS = ("condition", "cond", "context", "y", "c", "label", "labels", "class_labels", "guidance", "properties")
_NULL = "what stands for no condition, as it was trained: explain.wrap(..., null=)"


class Given(NamedTuple):
    """The condition of each row and what stands for none, ``[rows, ...]``, and the weight of guidance ``[rows]``."""

    condition: Tensor
    null: Tensor | None = None
    weights: Tensor | None = None

    @property
    def guided(self) -> bool:
        """Whether the network is asked without the condition too."""
        return self.weights is not None and bool((self.weights != 1).any())


class Conditioning:
    """The condition of a question, ``c``, what stands for none, ``u``, and the weight of guidance ``w``.

    Args:
        condition: of one graph: a class, a number, or a tensor ``[*shape]``; None where it is asked without.
        null: what stands for no condition, as ``condition``; None where nobody said.
        guidance: ``w`` in ``u + w (c - u)``, of logits.
        like: of which dtype and device numbers are.

    Raises:
        ValueError: guidance that is no number, or without a condition or a null; a null of another shape.
        TypeError: a condition that is none of these.
    """

    def __init__(self, condition: Any, null: Any, guidance: float, like: Tensor) -> None:
        self.guidance, self.like = checked_guidance(guidance), like
        self.condition = None if condition is None else read(condition, like)
        self.null = None if null is None else read(null, like)
        if self.condition is None and self.guidance != 1:
            raise ValueError(f"guidance={self.guidance:g} is towards a condition: give condition=")
        if self.null is None and self.guidance != 1:
            raise ValueError(f"guidance={self.guidance:g} goes from no condition to this one: say {_NULL}")
        if self.condition is not None and self.null is not None:
            own, none = ((part.dtype, list(part.shape)) for part in (self.condition, self.null))
            if own != none:
                raise ValueError(f"condition and null must be alike, got {own[0]} {own[1]} and {none[0]} {none[1]}")

    @property
    def entries(self) -> int:
        """How many numbers the condition has."""
        return 0 if self.condition is None else self.condition.numel()

    def at(self, guidance: float) -> Conditioning:
        """The same with another weight."""
        return Conditioning(self.condition, self.null, guidance, self.like)

    def given(self, present: Tensor, guided: Tensor) -> Given | None:
        """What each row is asked with: entries that are not present are those of the null.

        Args:
            present: bool ``[rows, entries]``.
            guided: bool ``[rows]``, where the weight is ``w``; 1 elsewhere.
        """
        rows = len(present)
        if self.condition is None:
            return None if self.null is None else Given(self.null.expand(rows, *self.null.shape))
        condition = self.condition.expand(rows, *self.condition.shape)
        if self.null is None:
            return Given(condition)
        null = self.null.expand_as(condition)
        kept = torch.where(present.view(condition.shape), condition, null)
        return Given(kept, null, torch.where(guided, self.guidance, 1.0))

    def described(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        if self.condition is None:
            return {} if self.null is None else {"condition": "none, so that it is asked with null"}
        return {"condition": self.condition.tolist(), "guidance": self.guidance}


def read(value: Any, like: Tensor) -> Tensor:
    """A condition of one graph: whole numbers as they are, others of the network's dtype.

    Raises:
        TypeError: no number and no tensor.
    """
    try:
        found = torch.as_tensor(value, device=like.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"a condition is a class, a number or a tensor, got {type(value).__name__}") from error
    return found.to(like.dtype) if found.is_floating_point() else found
