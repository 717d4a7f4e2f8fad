"""Several explanations of one target, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.fidelity import fidelity, unfaithfulness
from explain.metrics.ground_truth import ground_truth
from explain.metrics.infidelity import infidelity
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

    With ``truth``, bool ``[P]``, also `ground_truth`, whose "random" and "distance" rows have no other columns.
    """
    rows = {}
    for name, why in explanations.items():
        by_probability = fidelity(why, target, size, "probability", absolute)
        by_label = fidelity(why, target, size, "label", absolute)
        rows[name] = {
            "fidelity+": by_probability.plus,
            "fidelity-": by_probability.minus,
            "characterisation": by_probability.characterisation,
            "label fidelity+": by_label.plus,
            "label fidelity-": by_label.minus,
            "unfaithfulness": unfaithfulness(why, target, size, absolute),
            "infidelity": infidelity(why, target),
            "seconds": why.seconds,
        }
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found if truth is None else ground_truth(explanations, truth, absolute).join(found)
