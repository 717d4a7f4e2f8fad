"""The same question asked otherwise: another number, other nodes, noisy features, a network that knows nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from explain.graph.absence import feature_matrix
from explain.graph.fast.admission import Programs
from explain.graph.structure import copies
from explain.guard import copied, evaluating
from explain.payoffs import Payoff, shuffled
from explain.types import Neighbourhood, Players, Unsupported

if TYPE_CHECKING:
    from explain.graph.model import GraphModel
    from explain.graph.structure import Structure
    from explain.graph.targets import GraphTarget


def neighbourhood(target: GraphTarget) -> Neighbourhood:
    """The nodes around the explained one, their features and the model's answers on the whole graph.

    Raises:
        Unsupported: not one node is explained, or it has no features.
    """
    if len(target.focus) != 1:
        raise Unsupported("a neighbourhood is that of one explained node: use Lime or Shapley for pairs and graphs")
    kind, node = target.focus[0]
    graph, start = target.graph, target.graph.node_starts[kind]
    around = target.place.nodes[target.place.nodes >= 0] - start
    around = around[(around >= 0) & (around < graph.counts[kind])].sort().values
    x = feature_matrix(graph, kind)[around]
    if not x.size(1):
        raise Unsupported("the nodes have no features x to give credit to")
    with torch.no_grad(), evaluating(target.module):
        outputs = target.model.outputs(copies(graph, 1), None, kind)[around]
    players = Players("features", (x != x[0]).any(0).nonzero().view(-1).cpu())
    return Neighbourhood(x, outputs, int((around == node).nonzero()), players)


def asking(target: GraphTarget, payoff: Payoff) -> GraphTarget:
    """The same prediction, read as another number."""
    other = _like(target, payoff=payoff)
    if "place" in target.__dict__:  # where coalitions are evaluated does not hang on what is read
        other.__dict__["place"] = target.place
    return other


def perturbed(target: GraphTarget, generator: torch.Generator, scale: float) -> GraphTarget:
    """The same question of features with noise: ``x + scale * std * normal``, ``std`` that of each column.

    Raises:
        Unsupported: no floating-point features.
    """
    graph, features = target.graph, {}
    for kind, fields in graph.nodes.items():
        if "x" in fields and fields["x"].is_floating_point():
            x = fields["x"]
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            spread = feature_matrix(graph, kind).std(0, correction=0).reshape(1, *x.shape[1:])
            features[kind] = x + scale * spread * noise
    if not features:
        raise Unsupported("noise is added to floating-point features x, and this graph has none")
    return _like(target, graph=graph.with_features(features))


def randomised(target: GraphTarget, generator: torch.Generator) -> GraphTarget:
    """The same question of a copy of the network whose parameters are each shuffled."""
    memo: dict[int, Any] = {}
    model: GraphModel = copy.copy(target.model)
    model.net = copied(target.model.net, memo)
    model.module = copied(target.model.module, memo)  # the same copy that net holds
    model.programs = Programs()  # of another state
    shuffled(model.net, generator)
    return _like(target, model=model)


def _like(
    target: GraphTarget,
    *,
    model: GraphModel | None = None,
    graph: Structure | None = None,
    payoff: Payoff | None = None,
) -> GraphTarget:
    made = type(target)(
        model or target.model,
        graph or target.graph,
        target.focus,
        target.label,
        payoff or target.payoff,
        target.removal,
        target.baseline,
        target.batch_size,
        target.index,
    )
    made.label_given = target.label_given
    return made
