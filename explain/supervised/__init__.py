"""Any torch classifier or regressor on tables and images; the template for a new family.

``border`` adapts the module once; ``model`` is what `explain.wrap` returns; ``targets`` is the question; ``players``
says who may deserve credit; ``baselines`` and ``conditional`` what absence means; ``games`` puts the three together;
``objective`` is the training.
"""

from explain.supervised.baselines import Background, Baseline, Reference
from explain.supervised.conditional import Conditional
from explain.supervised.model import SupervisedModel
from explain.supervised.targets import ExampleTarget

__all__ = ["Background", "Baseline", "Conditional", "ExampleTarget", "Reference", "SupervisedModel"]
