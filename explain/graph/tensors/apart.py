"""Forward sees copies: a first layer that works in place writes onto them, never onto the user's graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from explain.graph.tensors.structure import Copies, Fields

_SMALL = 2**20  # bytes of a graph that is copied for every call: less than the call costs


class Apart:
    """Whether a forward writes onto what it is given: seen at its first call, so that large graphs need no more copies.

    Copies of several graphs at once are made for the call; a single one may be the user's own tensors.
    """

    def __init__(self) -> None:
        self.writes: bool | None = None  # not seen yet

    @contextmanager
    def given(self, made: Copies) -> Iterator[Copies]:
        """Within: what forward may be given for these copies of a graph.

        Raises:
            ValueError: a forward that wrote onto nothing at its first call did so now.
        """
        small = made.count == 1 and sum(part.nbytes for part in _tensors(made)) <= _SMALL
        found = made if self.writes is False and not small else _cloned(made)
        watched = [] if _transformed() else [part for part in _tensors(found) if not part.is_inference()]
        versions = [part._version for part in watched]
        yield found
        moved = any(part._version != version for part, version in zip(watched, versions, strict=True))
        if moved and found is made and made.count == 1:
            raise ValueError(
                "forward wrote onto the graph that it was given, which it had not done at its first call: let it write "
                "onto a clone (x = x.clone()), and give the data anew"
            )
        if self.writes is None and watched:
            self.writes = False
        self.writes = self.writes or (True if moved else self.writes)


def _transformed() -> bool:
    """Whether torch.func differentiates or batches this call: its tensors are wrapped, and in it nothing is learned."""
    return torch._C._functorch.maybe_current_level() is not None


def _tensors(made: Copies) -> Iterator[Tensor]:
    graph = made.structure
    for fields in (*graph.nodes.values(), *graph.edge_fields.values(), graph.shared, made.owner):
        yield from fields.values()
    yield from graph.edges.values()


def _cloned(made: Copies) -> Copies:
    graph = made.structure
    nodes = {kind: _fields(fields) for kind, fields in graph.nodes.items()}
    edges = {kind: index.clone() for kind, index in graph.edges.items()}
    edge_fields = {kind: _fields(fields) for kind, fields in graph.edge_fields.items()}
    structure = replace(graph, nodes=nodes, edges=edges, edge_fields=edge_fields, shared=_fields(graph.shared))
    return replace(made, structure=structure, owner=_fields(made.owner))


def _fields(fields: Fields) -> Fields:
    return {name: value.clone() for name, value in fields.items()}
