"""Readings that are not credit: what a network does, beside who is behind one number of it.

One subject a file; each says how it was proved, and nothing here hands out credit to players.
"""

from explain.analysis.activation import MostActivating, most_activating, most_activating_nodes, unit
from explain.analysis.bound import Bound, kl_full, kl_gaussians, vae_bound
from explain.analysis.diffusivity import Diffusivity, diffusivity
from explain.analysis.energy import Energy, best_diffusivity, energy
from explain.analysis.pruning import PruningCurve, by_magnitude, by_saliency, pruning_curve, weights_kept
from explain.analysis.relations import Relations, relations
from explain.analysis.similar import Because, because, similar

__all__ = [
    "Because",
    "Bound",
    "Diffusivity",
    "Energy",
    "MostActivating",
    "PruningCurve",
    "Relations",
    "because",
    "best_diffusivity",
    "by_magnitude",
    "by_saliency",
    "diffusivity",
    "energy",
    "kl_full",
    "kl_gaussians",
    "most_activating",
    "most_activating_nodes",
    "pruning_curve",
    "relations",
    "similar",
    "unit",
    "vae_bound",
    "weights_kept",
]
