"""What absent features of a node, or an edge, are: zeros, the mean over all, draws from the others, or your values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import EdgeType, Fields, Structure
from explain.spelling import came
from explain.types import Unsupported

Baseline: TypeAlias = "str | Tensor | Sequence[float]"

BASELINES = ("zeros", "mean", "marginal")
_DRAWS = 16  # feature draws that a "marginal" value averages over


def checked_baseline(baseline: Any, graph: Structure) -> str | Tensor:
    """The baseline's name, or your own values, one a column of ``x``, ``[features]``.

    Raises:
        ValueError: an unknown name, or as many values as there are no columns.
        Unsupported: own values where nodes have types, each with columns of its own.
    """
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(
                f"baseline must be one of {', '.join(BASELINES)} or [features] values, {came(baseline, BASELINES)}"
            )
        return baseline
    try:
        values = torch.as_tensor(baseline)
    except (TypeError, ValueError, RuntimeError):
        known = ", ".join(BASELINES)
        raise ValueError(f"baseline must be one of {known} or [features] values, got {baseline!r:.60}") from None
    if len(graph.counts) > 1:
        raise Unsupported(f"own baseline values need one type of nodes: use one of {', '.join(BASELINES)}")
    x = feature_matrix(graph, next(iter(graph.counts)))
    if values.shape != x.shape[1:] or not values.isfinite().all():
        raise ValueError(f"baseline must be a finite value for each of {x.size(1)} features, got {list(values.shape)}")
    if values.is_floating_point() and not (x.is_floating_point() or torch.equal(values, values.round())):
        raise ValueError(
            f"x is {x.dtype}, whose values are whole: so must the baseline's be, got {values.tolist()!r:.60}"
        )
    return values.detach().clone()


def absent_features(graph: Structure, place: Place, baseline: str | Tensor) -> Fields:
    """What absent features are, by node type, ``[draws, nodes of the place, features]``.

    Raises:
        ValueError: the mean of features that are whole numbers.
    """
    found = {}
    for kind in graph.counts:
        x, here = feature_matrix(graph, kind), feature_matrix(place.graph, kind)
        if isinstance(baseline, Tensor):
            found[kind] = baseline.to(here).expand_as(here)[None]
        elif baseline == "mean":
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


def absent_edge_features(graph: Structure, place: Place, baseline: str | Tensor) -> dict[EdgeType, Tensor]:
    """What absent edge features are, by edge type, ``[draws, edges of the place, columns]``.

    Raises:
        Unsupported: own values, which are those of nodes.
    """
    if isinstance(baseline, Tensor):
        raise Unsupported(f"own baseline values are of node features: ask of edges with one of {', '.join(BASELINES)}")
    found = {}
    for kind in graph.edges:
        attributes, here = edge_matrix(graph, kind), edge_matrix(place.graph, kind)
        if baseline == "mean" and len(attributes):
            found[kind] = attributes.mean(0, keepdim=True).expand_as(here)[None]
        elif baseline == "marginal" and len(attributes):
            generator = torch.Generator().manual_seed(0)
            rows = torch.randint(len(attributes), (_DRAWS, len(here)), generator=generator).to(attributes.device)
            found[kind] = attributes[rows]
        else:
            found[kind] = torch.zeros_like(here)[None].expand(_DRAWS if baseline == "marginal" else 1, -1, -1)
    return found


def edge_matrix(graph: Structure, kind: EdgeType) -> Tensor:
    """Features of an edge type as ``[edges, columns]``: ``edge_attr``, else ``edge_weight``, else no columns."""
    fields = graph.edge_fields[kind]
    name = graph.edge_field(kind)
    if name is None:
        return torch.zeros(graph.edges[kind].size(1), 0, device=graph.flat_edges.device)
    return rows(fields[name])


def feature_matrix(graph: Structure, kind: str) -> Tensor:
    """Features of a node type as ``[nodes, features]``, whatever their shape; no columns where it has none."""
    x = graph.nodes[kind].get("x")
    if x is None:
        return torch.zeros(graph.counts[kind], 0, device=graph.flat_edges.device)
    return rows(x)


def rows(field: Tensor) -> Tensor:
    """A field as a matrix with one row a node or edge, also where there are none."""
    return field if field.dim() == 2 else field.reshape(len(field), field.shape[1:].numel())


def real_rows(place: Place, kind: str) -> Tensor:
    """Rows of a node type in a place that stand for real nodes."""
    start = place.graph.node_starts[kind]
    return (place.nodes[start : start + place.graph.counts[kind]] >= 0).nonzero().view(-1)
