"""Which question an answer is about, of those that are at hand: what they say they ask is what the answer was asked."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable

from explain.explanation import Explanation
from explain.report.questions import ASIDE


@runtime_checkable
class Asked(Protocol):
    """What a report needs of a target to find the answers about it: what it says that it asks."""

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""


def about(asked: Asked, one: Explanation, aside: tuple[str, ...] = ASIDE) -> bool:
    """Whether this answer is about it: answers add to what was asked what they found out, and take nothing away."""
    said = json.loads(json.dumps(asked.describe(), default=str))
    return all(one.target.get(name) == value for name, value in said.items() if name not in aside)
