"""Influence functions: which training examples are behind a number (Koh and Liang 2017).

``curvature`` is the matrix, ``solvers`` solve with it, ``scores`` and ``shards`` go through the examples, ``questions``
are what else can be asked. No family may enter: all that is known of a training is its `Objective`.
"""

from explain.influence.curvature import GaussNewton, Hessian
from explain.influence.dtrak import DTrak
from explain.influence.explainer import Influence
from explain.influence.questions.groups import GroupInfluence, group_influence, group_influences
from explain.influence.questions.helpful import harmful, helpful
from explain.influence.questions.minimum import refit
from explain.influence.questions.mislabels import MislabelSearch, accuracy_after_fixing, mislabels
from explain.influence.questions.perturbation import Perturbation, Relabelling
from explain.influence.questions.poisoning import Attack, Box, Poisoned, attackability, poison
from explain.influence.questions.self_influence import SelfInfluence
from explain.influence.questions.terms import Components, components
from explain.influence.scores import parameter_change
from explain.influence.shards import Shards
from explain.influence.solvers.arnoldi import Arnoldi
from explain.influence.solvers.cg import ConjugateGradient
from explain.influence.solvers.dot import GradientDot
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.kfac import Ekfac, Kfac
from explain.influence.solvers.lissa import Diverged, Lissa
from explain.influence.solvers.nystrom import NystromCG
from explain.influence.spectrum import Indefinite
from explain.influence.store import GradientStore
from explain.influence.through import Recording, Training, recorded
from explain.influence.tracin import TracIn
from explain.influence.trak import Trak

__all__ = [
    "Arnoldi",
    "Attack",
    "Box",
    "Components",
    "ConjugateGradient",
    "DTrak",
    "Diverged",
    "Ekfac",
    "Exact",
    "GaussNewton",
    "GradientDot",
    "GradientStore",
    "GroupInfluence",
    "Hessian",
    "Indefinite",
    "Influence",
    "Kfac",
    "Lissa",
    "MislabelSearch",
    "NystromCG",
    "Perturbation",
    "Poisoned",
    "Recording",
    "Relabelling",
    "SelfInfluence",
    "Shards",
    "TracIn",
    "Training",
    "Trak",
    "accuracy_after_fixing",
    "attackability",
    "components",
    "group_influence",
    "group_influences",
    "harmful",
    "helpful",
    "mislabels",
    "parameter_change",
    "poison",
    "recorded",
    "refit",
]
