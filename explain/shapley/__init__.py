"""Shapley and Banzhaf values of a game, and its interactions: one estimator a file, each knows only the game."""

from explain.shapley.banzhaf import Banzhaf
from explain.shapley.explainer import Shapley
from explain.shapley.interactions import Interactions

__all__ = ["Banzhaf", "Interactions", "Shapley"]
