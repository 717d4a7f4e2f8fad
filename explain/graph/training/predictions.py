"""Outputs of training nodes and pairs: read from the one graph, or from the part of it that the nodes see."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from explain.graph.network import GraphNetwork
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import Direction, Place, cut
from explain.graph.tensors.structure import Structure, copies
from explain.graph.training.many_graphs import Predict
from explain.guard import evaluating
from explain.training import trainable
from explain.types import Parameters

WORTH = 10_000  # nodes and edges of a graph from which on a part of it is looked for
_FARTHEST = 6  # hops


def reading_nodes(model: GraphNetwork, graph: Structure, kind: str, nodes: Tensor) -> Predict:
    """``(params, positions) -> [positions, outputs]`` of training nodes of this type.

    Of a large graph the nodes' surroundings alone are evaluated, if they are half of it or less and answer as the whole
    does, at the trained parameters and at others: what a solution costs grows with what its loss is read from.
    """
    found = _surroundings(model, graph, kind, nodes) if graph.num_nodes + graph.num_edges >= WORTH else None
    if found is None:
        return _reading(model, graph, kind, nodes)
    here = torch.tensor([number for _, number in found.focus], device=nodes.device)
    return _reading(model, found.graph, kind, here)


def reading_pairs(model: GraphNetwork, graph: Structure, pairs: Tensor) -> Predict:
    """``(params, positions) -> [positions, outputs]`` of training pairs ``[2, n]``."""
    made = copies(graph, 1)

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        with evaluating(model.module):
            return model.outputs(made, pairs[:, batch], None, params)

    return predict


def _reading(model: GraphNetwork, graph: Structure, kind: str, nodes: Tensor) -> Predict:
    made = copies(graph, 1)

    def predict(params: Parameters, batch: Tensor) -> Tensor:
        with evaluating(model.module):
            return model.outputs(made, None, kind, params)[nodes[batch]]

    return predict


def _surroundings(model: GraphNetwork, graph: Structure, kind: str, nodes: Tensor) -> Place | None:
    """The smallest cut around these nodes that answers as the whole graph; None where none up to half of it does."""
    everyone = torch.arange(len(nodes), device=nodes.device)
    points = list(_points(model))
    with torch.no_grad():
        whole = _reading(model, graph, kind, nodes)
        expected = [whole(params, everyone) for params in points]
        for small in _cuts(graph, kind, nodes):
            here = torch.tensor([number for _, number in small.focus], device=nodes.device)
            part = _reading(model, small.graph, kind, here)
            try:
                found = [part(params, everyone) for params in points]
            except Exception:  # whatever a user's forward raises on a part, as one that counts on all nodes does
                return None
            if all(relative(a, b) <= tolerance(b) for a, b in zip(found, expected, strict=True)):
                return small
    return None


def _cuts(graph: Structure, kind: str, nodes: Tensor) -> Iterator[Place]:
    focus = tuple((kind, node) for node in nodes.tolist())
    directions: tuple[Direction, ...] = ("in", "out", "both")
    for direction in directions:
        for hops in range(1, _FARTHEST + 1):
            small = cut(graph, focus, hops, direction)
            if 2 * (small.graph.num_nodes + small.graph.num_edges) > graph.num_nodes + graph.num_edges:
                break
            yield small


def _points(model: GraphNetwork) -> Iterator[Parameters]:
    """The trained parameters, and two others, so that nothing that is zero by chance hides what is read."""
    yield (trained := trainable(model.net))
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        noise = {name: torch.randn(p.shape, generator=generator).to(p) for name, p in trained.items()}
        yield {name: p + (0.1 + p.abs().mean()) * noise[name] for name, p in trained.items()}
