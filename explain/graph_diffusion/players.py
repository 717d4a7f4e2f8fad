"""Who plays where labels are denoised on a graph: known labels, nodes, edges, features, steps, the correction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from explain.graph_diffusion.number import LabelNumber, RunNumber, StepNumber
from explain.spelling import came
from explain.types import Players, Unsupported

RUN_KINDS = ("known_labels", "nodes", "edges", "features", "steps", "guidance")
STEP_KINDS = ("labels", "nodes", "edges", "features")
_OPTIONS: dict[str, set[str]] = {
    "known_labels": {"hops"},
    "labels": {"hops"},
    "nodes": {"hops"},
    "edges": {"hops", "undirected"},
    "features": set(),
    "steps": {"size"},
    "guidance": {"size"},
}


def players_of(number: LabelNumber, kind: str, options: dict[str, Any]) -> Players:
    """The players of a kind; ``hops=`` keeps to those that are as near to the node.

    Raises:
        ValueError: an unknown kind or option, or no node to be near to.
        Unsupported: steps of a run that is the user's own.
    """
    kinds = RUN_KINDS if isinstance(number, RunNumber) else STEP_KINDS
    if kind not in kinds:
        raise ValueError(f"labels on a graph play with {', '.join(kinds)}; {came(kind, kinds)}")
    known = _OPTIONS[kind]
    if unknown := set(options) - known:
        raise ValueError(f"players({kind!r}) takes {sorted(known) or 'no options'}, {came(min(unknown), known)}")
    if kind in ("steps", "guidance"):
        assert isinstance(number, RunNumber)
        return _step_players(number, kind, options.get("size", 1))
    if kind == "features":
        if number.graph.get("x") is None:
            raise ValueError("the graph has no features x")
        return Players("features", torch.arange(number.graph.x.size(1)))
    if kind in ("edges", "nodes") and not number.model.reads_edges:
        raise ValueError(
            "the network answers the same without any edge: does it hold a graph of its own? Edges and nodes play "
            "where it reads graph.edge_index, call=lambda net, graph, y_t, t: ..."
        )
    near = _near(number, options.get("hops"))
    edges = number.graph.edge_index.cpu()
    geometry = {"edge_index": edges[:, near[edges].all(0)]}
    if number.node is not None:
        geometry["focus"] = torch.tensor([number.node])
    if kind == "edges":
        return _edge_players(edges, near[edges].all(0).nonzero().view(-1), geometry, options.get("undirected", False))
    own = near.clone()
    if kind == "known_labels":
        own &= number.model.known.cpu()
        if not bool(own.any()):
            raise ValueError("no label is known here: say who is, wrap(..., known=bool [n]), or widen hops=")
    elif kind == "nodes" and number.node is not None:
        own[number.node] = False
    index = own.nonzero().view(-1)
    classes = number.state if isinstance(number, StepNumber) else number.model.truth
    names = tuple(f"{node}" if kind == "nodes" else f"{node} is {int(classes[node])}" for node in index.tolist())
    return Players(kind, index, names, geometry={**geometry, "node": index})


def _near(number: LabelNumber, hops: int | None) -> Tensor:
    """Nodes within so many edges of the node, whichever way they point, bool ``[n]``; all when None.

    Raises:
        ValueError: no such number, or no node to count from.
    """
    found = torch.ones(number.model.nodes, dtype=torch.bool)
    if hops is None:
        return found
    if isinstance(hops, bool) or not isinstance(hops, int) or hops < 0:
        raise ValueError(f"hops must be a whole number of at least 0, got {hops!r}")
    if number.node is None:
        raise ValueError("hops= are counted from the node that is asked about: give node=")
    edges = number.graph.edge_index.cpu()
    both = torch.cat([edges, edges.flip(0)], 1)
    nodes = k_hop_subgraph(number.node, hops, both, num_nodes=number.model.nodes)[0]
    return torch.zeros_like(found).index_fill(0, nodes, True)


def _edge_players(edges: Tensor, own: Tensor, geometry: dict[str, Tensor], undirected: bool) -> Players:
    if not undirected:
        ends = edges[:, own]
        names = tuple(f"{u}→{v}" for u, v in ends.t().tolist())
        return Players("edges", own, names, geometry={**geometry, "ends": ends})
    pairs, owner = torch.unique(edges[:, own].sort(0).values, dim=1, return_inverse=True)
    groups = tuple(own[owner == pair] for pair in range(pairs.size(1)))
    index = torch.stack([group[0] for group in groups]) if groups else own
    names = tuple(f"{u}–{v}" for u, v in pairs.t().tolist())
    return Players("edges", index, names, groups, {**geometry, "edge_index": pairs, "ends": pairs})


def _step_players(number: RunNumber, kind: str, size: Any) -> Players:
    """The steps of a run, ``size`` adjacent ones a player, named by the ``t`` that each begins with.

    Raises:
        ValueError: no such size, or guidance where known labels do not correct the run.
        Unsupported: a run that is the user's own.
    """
    if number.process is None:
        raise Unsupported(f"this run is your own sampler, whose steps are not seen: {kind!r} play with betas= given")
    if kind == "guidance" and not number.constrained:
        raise ValueError("there is no guidance to play with: the run is asked with constrained=False")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= number.steps:
        raise ValueError(f"size must be whole, from 1 to {number.steps} steps, got {size!r}")
    groups = tuple(torch.arange(number.steps).split(size))
    index = torch.stack([group[0] for group in groups])
    t = torch.tensor([number.times[int(first)] for first in index])
    return Players(kind, index, tuple(f"t={each}" for each in t.tolist()), groups, {"t": t})
