"""Shapley values: one estimator a file; each knows nothing but a game."""
