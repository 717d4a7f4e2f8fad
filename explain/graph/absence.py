"""What an absent node's features are: zeros, the mean over the nodes, or draws from the other nodes."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.graph.computation import Place
from explain.graph.structure import Fields, Structure

BASELINES = ("zeros", "mean", "marginal")
_DRAWS = 16  # feature draws that a "marginal" value averages over


def absent_features(graph: Structure, place: Place, baseline: str) -> Fields:
    """What absent features are, by node type, ``[draws, nodes of the place, features]``."""
    found = {}
    for kind in graph.counts:
        x, here = feature_matrix(graph, kind), feature_matrix(place.graph, kind)
        if baseline == "mean":
            if not x.is_floating_point():
                raise ValueError(f'baseline="mean" needs floating-point features, x is {x.dtype}: use "zeros"')
            found[kind] = x.mean(0, keepdim=True).expand_as(here)[None]
        elif baseline == "marginal":
            generator = torch.Generator().manual_seed(0)  # common draws: every coalition meets the same strangers
            rows = torch.randint(len(x), (_DRAWS, len(here)), generator=generator).to(x.device)
            found[kind] = x[rows]
        else:
            found[kind] = torch.zeros_like(here)[None]
    return found


def feature_matrix(graph: Structure, kind: str) -> Tensor:
    """Features of a node type as ``[nodes, features]``, whatever their shape; no columns where it has none."""
    x = graph.nodes[kind].get("x")
    if x is None:
        return torch.zeros(graph.counts[kind], 0, device=graph.flat_edges.device)
    return x if x.dim() == 2 else x.reshape(len(x), -1)


def real_rows(place: Place, kind: str) -> Tensor:
    """Rows of a node type in a place that stand for real nodes."""
    start = place.graph.node_starts[kind]
    return (place.nodes[start : start + place.graph.counts[kind]] >= 0).nonzero().view(-1)
