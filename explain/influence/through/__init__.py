"""Influence through the training itself: the derivative of the whole run, step by step backwards (MAGIC).

``optimizers`` are the steps written out, ``course`` a training as a sequence of them, ``recipe`` and ``recording`` two
ways to have one, ``backwards`` its derivative, ``smoothness`` whether that may be believed.
"""

from explain.influence.through.recipe import Training
from explain.influence.through.recording import Recording, recorded

__all__ = ["Recording", "Training", "recorded"]
