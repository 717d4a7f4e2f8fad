"""What else can be asked with: the nodes around, noisy features, a network that knows nothing."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch

from explain.graph.findings import Findings
from explain.graph.network import GraphNetwork
from explain.graph.number import GraphNumber
from explain.graph.players.absent_features import feature_matrix
from explain.graph.tensors.cuts import Place
from explain.graph.tensors.structure import Structure, copies
from explain.guard import copied, evaluating
from explain.payoffs import shuffled
from explain.types import Neighbourhood, Players, Unsupported

Network = TypeVar("Network", bound=GraphNetwork)


def neighbourhood(number: GraphNumber, place: Place) -> Neighbourhood:
    """The nodes around the explained one, their features and the model's answers on the whole graph.

    Raises:
        Unsupported: not one node is explained, or it has no features.
    """
    if len(number.focus) != 1:
        raise Unsupported("a neighbourhood is that of one explained node: use Lime or Shapley for pairs and graphs")
    kind, node = number.focus[0]
    graph, start = number.graph, number.graph.node_starts[kind]
    around = place.nodes[place.nodes >= 0] - start
    around = around[(around >= 0) & (around < graph.counts[kind])].sort().values
    x = feature_matrix(graph, kind)[around]
    if not x.size(1):
        raise Unsupported("the nodes have no features x to give credit to")
    with torch.no_grad(), evaluating(number.module):
        outputs = number.model.outputs(copies(graph, 1), None, kind)[around]
    players = Players("features", (x != x[0]).any(0).nonzero().view(-1).cpu())
    return Neighbourhood(x, outputs, int((around == node).nonzero()), players)


def with_noise(graph: Structure, generator: torch.Generator, scale: float) -> Structure:
    """The graph with noise on its features: ``x + scale * std * normal``, ``std`` that of each column.

    Raises:
        Unsupported: no floating-point features.
    """
    features = {}
    for kind, fields in graph.nodes.items():
        if "x" in fields and fields["x"].is_floating_point():
            x = fields["x"]
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            spread = feature_matrix(graph, kind).std(0, correction=0).reshape(1, *x.shape[1:])
            features[kind] = x + scale * spread * noise
    if not features:
        raise Unsupported("noise is added to floating-point features x, and this graph has none")
    return graph.with_features(features)


def randomised(model: Network, generator: torch.Generator) -> Network:
    """A copy of the network whose parameters are each shuffled."""
    memo: dict[int, Any] = {}
    other = copy.copy(model)
    other.net = copied(model.net, memo)
    other.module = copied(model.module, memo)  # the same copy that net holds
    other.findings = Findings()  # of another state
    shuffled(other.net, generator)
    return other
