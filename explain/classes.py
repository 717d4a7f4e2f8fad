"""What targets say of classes, wherever these are: read off what the model's outputs mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from explain.names import checked_names
from explain.outputs import Meaning
from explain.types import Target


def names_of_classes(given: Any, meaning: Meaning) -> tuple[str, ...]:
    """``class_names`` as they were given, one a class, or one an output of a regressor.

    Raises:
        TypeError: no list of texts.
        ValueError: another number of them.

    >>> names_of_classes(["no", "yes"], Meaning("logits", 1))
    ('no', 'yes')
    """
    return checked_names(
        "class_names", given, meaning.classes or meaning.count, "class" if meaning.classes else "output"
    )


class OfOutputs(Target):
    """A target whose number is read from outputs ``[rows, outputs]`` that mean something; see `Meaning`.

    A family says what they mean, which label is asked about, if any, and what `run` answers.
    """

    meaning: Meaning
    label: int | None

    class_names: tuple[str, ...] = ()

    @property
    def called(self) -> dict[str, str]:
        """The name of the class that is asked about, for `describe`; empty where it has none."""
        return {"class_name": self.class_names[self.label]} if self.class_names and self.label is not None else {}

    @property
    def has_classes(self) -> bool:
        """Whether the outputs are of classes."""
        return self.meaning.classes > 0 and self.label is not None

    def predicted(self) -> int:
        """The class that the model predicts."""
        self._expect_classes()
        return self.meaning.predicted(self.run()[0])

    def decision(self) -> tuple[int, Callable[[Tensor], Tensor]]:
        """The class that is decided on, and its margin; see `Meaning.decision`."""
        self._expect_classes()
        return self.meaning.decision(self.run()[0], self.label)

    def decides(self, outputs: Tensor) -> Tensor:
        """Which rows of outputs are decided for the target's class."""
        self._expect_classes()
        assert self.label is not None  # of a classifier's
        return self.meaning.decides(outputs, self.label)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """``log p`` of every class."""
        self._expect_classes()
        return self.meaning.log_probabilities(outputs)

    def divergence(self, outputs: Tensor) -> Tensor:
        """``KL(p || q)`` of what the model says from each of these outputs; see `Meaning.divergence`."""
        self._expect_classes()
        return self.meaning.divergence(self.run()[:1].double(), outputs)
