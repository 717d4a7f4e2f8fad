"""Several explanations of one target, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.fidelity import fidelity, unfaithfulness
from explain.metrics.ground_truth import ground_truth
from explain.metrics.infidelity import infidelity
from explain.metrics.selection import expect
from explain.types import Target


def table(
    explanations: Mapping[str, Explanation],
    target: Target,
    *,
    truth: Tensor | None = None,
    size: float = 0.2,
    absolute: bool = False,
) -> pd.DataFrame:
    """One row an explanation: fidelity by probability and by label, unfaithfulness, infidelity, seconds.

    A target without classes has the fidelity of its own number, and nothing that needs classes. With ``truth``, bool
    ``[P]``, also `ground_truth`, whose "random" and "distance" rows have no other columns.
    """
    expect((explanations, Mapping), (target, Target))
    measured = _of_classes if target.has_classes else _of_number
    rows = {
        name: {
            **measured(why, target, size, absolute),
            "infidelity": infidelity(why, target),
            "seconds": why.seconds,
        }
        for name, why in explanations.items()
    }
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found if truth is None else ground_truth(explanations, truth, absolute).join(found)


def _of_classes(why: Explanation, target: Target, size: float, absolute: bool) -> dict[str, float]:
    by_probability = fidelity(why, target, size, "probability", absolute)
    by_label = fidelity(why, target, size, "label", absolute)
    return {
        "fidelity+": by_probability.plus,
        "fidelity-": by_probability.minus,
        "characterisation": by_probability.characterisation,
        "label fidelity+": by_label.plus,
        "label fidelity-": by_label.minus,
        "unfaithfulness": unfaithfulness(why, target, size, absolute),
    }


def _of_number(why: Explanation, target: Target, size: float, absolute: bool) -> dict[str, float]:
    found = fidelity(why, target, size, "logit", absolute)
    return {"fidelity+": found.plus, "fidelity-": found.minus}
