"""Array kinds, named once.

=========  =======================  ==================================================
``Masks``  bool [coalitions, P]     True where the player is present
``Values``  float64 [coalitions]    the number for each coalition
``Scores``  float64 [P]             credit, in the number's own units
=========  =======================  ==================================================

``Parameters`` are a model's, by name.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Masks: TypeAlias = Tensor
Values: TypeAlias = Tensor
Scores: TypeAlias = Tensor
Parameters: TypeAlias = dict[str, Tensor]
