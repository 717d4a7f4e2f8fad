"""The four ideas that everything else shares: players, games, targets, objectives.

A *target* is one number that a trained model says. *Players* are whatever may deserve credit for it. A *game* says
what the number would be with only some of the players; an *objective* says how the number hangs on the training data.
Explainers know nothing but this folder; families (graph, supervised, ...) know nothing but this folder either.
"""

from explain.types.arrays import Masks, Parameters, Scores, Values
from explain.types.errors import NonFinite, Unsupported, check_text
from explain.types.game import Game, present_atoms
from explain.types.objective import (
    EditableObjective,
    Edits,
    LabelledObjective,
    LossChange,
    Objective,
    Questions,
    Suspect,
)
from explain.types.players import Players
from explain.types.readings import Call, Differentiable, Neighbourhood, TypedEdges
from explain.types.target import EXPLAINERS, Target, expect_graph, explained_by, offers, refusal

__all__ = [
    "EXPLAINERS",
    "Call",
    "Differentiable",
    "EditableObjective",
    "Edits",
    "Game",
    "LabelledObjective",
    "LossChange",
    "Masks",
    "Neighbourhood",
    "NonFinite",
    "Objective",
    "Parameters",
    "Players",
    "Questions",
    "Scores",
    "Suspect",
    "Target",
    "TypedEdges",
    "Unsupported",
    "Values",
    "check_text",
    "expect_graph",
    "explained_by",
    "offers",
    "present_atoms",
    "refusal",
]
