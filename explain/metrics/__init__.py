"""What an explanation is worth: one family of measures a file, each a function of explanations and targets.

No method may enter: all are measured by the same yardstick.
"""

from explain.metrics.curves import Curve, deletion, deletion_and_insertion, fidelity_curve, insertion
from explain.metrics.fidelity import Fidelity, characterisation, fidelity, unfaithfulness
from explain.metrics.ground_truth import auroc, distance, gea, ground_truth, truth_of
from explain.metrics.infidelity import infidelity
from explain.metrics.lds import Lds, lds
from explain.metrics.retraining import Retrainings, one_out, subsets
from explain.metrics.stability import Stability, randomisation, reproducibility, stability
from explain.metrics.table import table
from explain.metrics.training_data import mislabel_detection, mixed_data, same_class

__all__ = [
    "Curve",
    "Fidelity",
    "Lds",
    "Retrainings",
    "Stability",
    "auroc",
    "characterisation",
    "deletion",
    "deletion_and_insertion",
    "distance",
    "fidelity",
    "fidelity_curve",
    "gea",
    "ground_truth",
    "infidelity",
    "insertion",
    "lds",
    "mislabel_detection",
    "mixed_data",
    "one_out",
    "randomisation",
    "reproducibility",
    "same_class",
    "stability",
    "subsets",
    "table",
    "truth_of",
    "unfaithfulness",
]
