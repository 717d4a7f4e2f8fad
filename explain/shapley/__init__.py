"""Shapley values of a game: one estimator a file, each knows only the game."""

from explain.shapley.explainer import Shapley

__all__ = ["Shapley"]
