"""Any torch classifier or regressor on tables and images; the template for a new family.

From the bottom up: ``border`` adapts the module and checks what it is given; ``trained`` is the network and what its
outputs mean; ``number`` what it says about an example and edited copies of it. On the number stand ``games``, played by
``players`` with the absence of ``baselines`` and ``conditional``, and the training, ``training_set`` and ``objective``.
``targets`` hands the number to them, a verb a line; ``model`` is what `explain.wrap` returns.

No explainer may enter, nor may a file use what stands above it.
"""

from explain.supervised.baselines import Background, Baseline, Reference
from explain.supervised.conditional import Conditional
from explain.supervised.model import SupervisedModel
from explain.supervised.targets import ExampleTarget

__all__ = ["Background", "Baseline", "Conditional", "ExampleTarget", "Reference", "SupervisedModel"]
