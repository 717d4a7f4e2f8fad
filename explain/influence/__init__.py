"""Influence functions: which training examples are behind a number (Koh and Liang 2017)."""

from explain.influence.cg import ConjugateGradient
from explain.influence.curvature import GaussNewton, Hessian
from explain.influence.exact import Exact
from explain.influence.explainer import Influence
from explain.influence.lissa import Diverged, Lissa
from explain.influence.scores import parameter_change
from explain.influence.spectrum import Indefinite

__all__ = [
    "ConjugateGradient",
    "Diverged",
    "Exact",
    "GaussNewton",
    "Hessian",
    "Indefinite",
    "Influence",
    "Lissa",
    "parameter_change",
]
