"""Other ways to read the same number, for explainers that differentiate it, train on it or fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from explain.types.players import Players


class Differentiable(NamedTuple):
    """The number as a differentiable function of the atoms that players own.

    ``inputs``, ``baseline``: ``[1, *atoms]``; ``f``: ``[batch, *atoms] -> [batch]``; ``owner``: int64 ``[*atoms]``, the
    player of each atom, -1 for none; ``removal``: what the baseline stands for, as games name it; ``checks``: what was
    measured of ``f``; ``doubt``: what is to be said of it, if anything.
    """

    inputs: Tensor
    baseline: Tensor
    f: Callable[[Tensor], Tensor]
    owner: Tensor
    removal: str = "features"
    checks: Mapping[str, Any] = MappingProxyType({})
    doubt: str = ""


class Neighbourhood(NamedTuple):
    """What the model says about the examples around the explained one, for surrogates that are fitted to them.

    ``x [examples, features]``, ``outputs [examples, outputs]``, ``row`` of the explained one, and ``players``, kind
    "features": the columns of ``x`` that may get credit.
    """

    x: Tensor
    outputs: Tensor
    row: int
    players: Players


class Call(NamedTuple):
    """One call of a copy of the user's module, for methods that train something on it.

    ``module(x, edge_index, **kwargs)`` gives ``[rows, outputs]``, of which ``row`` and ``label`` are explained: logits
    of classes, or of a regressor the one value, ``label`` None. It may be a part of the graph: ``nodes`` and ``edges``
    are the numbers of its nodes and edges in the whole (int64, -1 for stand-ins), by which players are found again.

    Of typed graphs ``x [nodes of all types, columns of all types]`` has the features of each type in its own rows and
    columns, zeros elsewhere, and ``edge_index`` counts nodes through all types. ``columns(layer, propagated)`` then
    says which column of ``edge_index`` each edge is that a layer propagates, -1 for its own loops, and ``atoms`` where
    the rows of ``x``, its columns or the edges of each player are; None where ends and numbers tell it.

    ``removal``: what a mask of edges at zero stands for, as games name it: "message", where it multiplies the messages
    of the user's layers; else it multiplies weights of edges, in one layer of its own. ``refused``: why no mask of
    edges can be learned, if it cannot; ``checks`` and ``doubt``: of such masks.
    """

    module: nn.Module
    x: Tensor
    edge_index: Tensor
    kwargs: dict[str, Any]
    task: str
    row: int
    label: int | None
    nodes: Tensor
    edges: Tensor
    columns: Callable[[str, Any], Tensor] | None = None
    atoms: Callable[[Players], list[Tensor]] | None = None
    removal: str = "message"
    refused: str = ""
    checks: Mapping[str, Any] = MappingProxyType({})
    doubt: str = ""


class TypedEdges(NamedTuple):
    """A graph whose nodes or edges have types, by numbers through all types, for maps along its edges.

    ``nodes``: how many; ``owner``: int64, the player of each edge (of each node where players are nodes), -1 for none;
    ``into``: the number of the node type that each type of edges leads to. ``find(layer, propagated)`` says which edges
    a layer propagates: the number of their type, None for all side by side; the number of each, int64 ``[E']``, -1 for
    the layer's own loops; and their ends ``[2, E']``.
    """

    nodes: int
    owner: Tensor
    into: tuple[int, ...]
    find: Callable[[str, Tensor], tuple[int | None, Tensor, Tensor]]
