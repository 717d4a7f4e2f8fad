"""Readings that are not credit: what a network does, beside who is behind one number of it.

One subject a file; each says how it was proved, and nothing here hands out credit to players.
"""

from explain.analysis.activation import MostActivating, most_activating, most_activating_nodes, unit
from explain.analysis.bound import Bound, kl_full, kl_gaussians, vae_bound
from explain.analysis.clusters import Clusters, clusters
from explain.analysis.contrastive import (
    ContentShare,
    Recovered,
    alignment,
    content_share,
    invariance,
    recoverability,
    separability,
    turned_by_edges,
)
from explain.analysis.diffusivity import Diffusivity, diffusivity
from explain.analysis.energy import Energy, best_diffusivity, energy
from explain.analysis.formula import Formula, Messages, formula, messages
from explain.analysis.pruning import PruningCurve, by_magnitude, by_saliency, pruning_curve, weights_kept
from explain.analysis.relations import Relations, relations
from explain.analysis.similar import Because, because, similar

__all__ = [
    "Because",
    "Bound",
    "Clusters",
    "ContentShare",
    "Diffusivity",
    "Energy",
    "Formula",
    "Messages",
    "MostActivating",
    "PruningCurve",
    "Recovered",
    "Relations",
    "alignment",
    "because",
    "best_diffusivity",
    "by_magnitude",
    "by_saliency",
    "clusters",
    "content_share",
    "diffusivity",
    "energy",
    "formula",
    "invariance",
    "kl_full",
    "kl_gaussians",
    "messages",
    "most_activating",
    "most_activating_nodes",
    "pruning_curve",
    "recoverability",
    "relations",
    "separability",
    "similar",
    "turned_by_edges",
    "unit",
    "vae_bound",
    "weights_kept",
]
