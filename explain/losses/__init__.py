"""The loss that a model was trained with: by name, or the one that outputs and labels leave no doubt about.

``trained`` is which; ``prepared_labels`` are what it takes; ``functions`` has the formulas.
No model may enter: a loss knows outputs and labels.
"""

from explain.losses.functions import Link, binary_cross_entropy, cross_entropy, focal, itself, of_values
from explain.losses.names import NAMES, OF_VALUES
from explain.losses.trained import Loss, Trained, alternatives, check_loss, check_weight_decay, trained_loss

__all__ = [
    "NAMES",
    "OF_VALUES",
    "Link",
    "Loss",
    "Trained",
    "alternatives",
    "binary_cross_entropy",
    "check_loss",
    "check_weight_decay",
    "cross_entropy",
    "focal",
    "itself",
    "of_values",
    "trained_loss",
]
