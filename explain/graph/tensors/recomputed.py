"""Fields that are computed again from every edited copy of the graph, by the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from explain.graph.tensors.derived import derived_fields
from explain.graph.tensors.structure import Copies, Fields, Structure, copies
from explain.guard import other_random_states

Recompute: TypeAlias = Callable[[Any], Any]  # a data object to the field, or to a data object with it
AsObject: TypeAlias = Callable[[Copies], Data | HeteroData]
_CLOSE = 1e-4  # of the largest number: what the data holds was computed in single precision
_SEEDS = 2


class Spot(NamedTuple):
    """Where a field stands: of "nodes" or "edge_fields" of a type, or "shared"."""

    among: str
    kind: Any = None

    def fields(self, graph: Structure) -> Fields:
        """Those that stand beside it."""
        found = getattr(graph, self.among)
        return found if self.kind is None else found[self.kind]

    def store(self, data: Data | HeteroData) -> Any:
        """What holds it in a data object."""
        return data[self.kind] if isinstance(data, HeteroData) and self.kind is not None else data

    def within(self, graph: Structure, name: str, value: Tensor) -> Structure:
        """The graph with another value of the field."""
        fields = {**self.fields(graph), name: value}
        if self.among == "nodes":
            return replace(graph, nodes={**graph.nodes, self.kind: fields})
        if self.among == "edge_fields":
            return replace(graph, edge_fields={**graph.edge_fields, self.kind: fields})
        return replace(graph, shared=fields)


@dataclass(frozen=True, eq=False)
class Recomputed:
    """``functions`` of a data object by the field that they give.

    ``own``: what the data calls a field, where that is another name. ``signed``: fields whose columns are known up to
    their signs (eigenvectors): each column has the sign by which it is nearer to the one that the data holds.
    """

    functions: Mapping[str, Recompute]
    own: Mapping[str, str] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)

    def of(self, made: Copies, as_object: AsObject) -> Copies:
        """The copies with these fields computed from each, as if it were alone; functions draw the same numbers."""
        found = [self._computed(one, as_object) for one in _apart(made)]
        graph = made.structure
        for name, spot in found[0]:
            value = torch.cat([each[name, spot] for each in found])
            graph = spot.within(graph, name, value)
        return replace(made, structure=graph)

    def gap(self, graph: Structure, as_object: AsObject) -> float:
        """By how much, relative to its largest number, a field that is computed misses the one that the data holds.

        Raises:
            ValueError: a field that forward is not given, or that the function does not give.
        """
        made, most = copies(graph, 1), 0.0
        for name in self.functions:
            if not any(spots(graph, name)):
                raise ValueError(f"recompute names {self._own(name)!r}, and the data holds no such field")
        eigen = {each.field for each in derived_fields(graph) if each.signs}
        self.signed.update(name for name in self.functions if name in eigen)
        drawn = [self._computed(made, as_object, seed) for seed in range(_SEEDS)]
        for name, spot in drawn[0]:
            held = spot.fields(graph)[name]
            gaps = [_relative(found[name, spot], held) for found in drawn]
            if max(gaps) > _CLOSE:
                gaps = [_relative(_signed(found[name, spot], held), held) for found in drawn]
                if max(gaps) > _CLOSE:
                    raise ValueError(
                        f"recompute={{{self._own(name)!r}: ...}} gives other numbers on the whole graph than the data "
                        f"holds, off by {max(gaps):.2g} of the largest: it was made otherwise (another number of "
                        "columns, weights or loops, before other changes of the data), or hangs on chance, as "
                        "eigenvectors of one eigenvalue do: give the function that made it"
                    )
                self.signed.add(name)
            most = max(most, *gaps)
        return most

    def _computed(self, one: Copies, as_object: AsObject, seed: int = 0) -> dict[tuple[str, Spot], Tensor]:
        """The fields of a single copy; a function that gives several is asked once.

        Raises:
            ValueError: a field of another shape.
        """
        graph, known = one.structure, {}
        found: dict[tuple[str, Spot], Tensor] = {}
        for name, function in self.functions.items():
            if id(function) not in known:
                with other_random_states(seed):
                    known[id(function)] = function(as_object(one).clone())
            places = list(spots(graph, name))
            for spot in places:
                held = spot.fields(graph)[name]
                value = self._read(name, known[id(function)], spot, len(places) == 1)
                if value.shape != held.shape:
                    raise ValueError(
                        f"recompute={{{self._own(name)!r}: ...}} must give the field as the data has it, here "
                        f"{list(held.shape)}, got {list(value.shape)}"
                    )
                value = value.to(held)
                found[name, spot] = _signed(value, held) if name in self.signed else value
        return found

    def _read(self, name: str, given: Any, spot: Spot, alone: bool) -> Tensor:
        own = self._own(name)
        if isinstance(given, (Data, HeteroData)):
            given = spot.store(given).get(own)
        elif not alone:
            given = None
        if not isinstance(given, Tensor):
            raise ValueError(
                f"recompute={{{own!r}: ...}} must take a data object and give the field, a tensor, or a data object "
                f"that holds it as {own!r}; got {type(given).__name__}"
            )
        return given

    def _own(self, name: str) -> str:
        return self.own.get(name, name)


def recomputed(given: Any, own: Mapping[str, str]) -> Recomputed | None:
    """What the user gave as ``recompute``, by our names of the fields; None for nothing.

    Raises:
        TypeError: no functions by name.
    """
    if given is None:
        return None
    right = isinstance(given, Mapping) and all(isinstance(n, str) and callable(f) for n, f in given.items())
    if not right or not given:
        raise TypeError(
            "recompute must map names of the data's fields to functions of a data object, such as "
            f"{{'pe': AddLaplacianEigenvectorPE(8, attr_name='pe')}}, got {given!r}"
        )
    ours = {theirs: name for name, theirs in own.items()}
    return Recomputed({ours.get(name, name): function for name, function in given.items()}, own)


def spots(graph: Structure, name: str) -> Iterator[Spot]:
    """Where a graph has a field of this name."""
    yield from (Spot("nodes", kind) for kind, fields in graph.nodes.items() if name in fields)
    yield from (Spot("edge_fields", kind) for kind, fields in graph.edge_fields.items() if name in fields)
    if name in graph.shared:
        yield Spot("shared")


def _signed(value: Tensor, held: Tensor) -> Tensor:
    """Columns with the signs by which they are nearer to those that are held."""
    along = (value * held).sum(0, keepdim=True)
    return torch.where(along < 0, -value, value)


def _relative(found: Tensor, expected: Tensor) -> float:
    if not expected.numel():
        return 0.0
    gap = (found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-12)
    return float(gap.nan_to_num(float("inf")))


def _apart(made: Copies) -> Iterator[Copies]:
    """The copies one by one."""
    if made.count == 1:
        yield made
        return
    graph = made.structure
    sizes = {kind: torch.bincount(owner, minlength=made.count) for kind, owner in made.owner.items()}
    starts = {kind: size.cumsum(0) - size for kind, size in sizes.items()}
    for copy in range(made.count):
        rows = {kind: slice(int(starts[kind][copy]), int((starts[kind] + sizes[kind])[copy])) for kind in sizes}
        edges, edge_fields = {}, {}
        for kind, index in graph.edges.items():
            own = made.owner[kind[0]][index[0]] == copy
            first = torch.stack([starts[kind[0]][copy], starts[kind[2]][copy]])
            edges[kind] = index[:, own] - first[:, None]
            edge_fields[kind] = {name: value[own] for name, value in graph.edge_fields[kind].items()}
        single = replace(
            graph,
            counts={kind: int(size[copy]) for kind, size in sizes.items()},
            nodes={k: {name: value[rows[k]] for name, value in fields.items()} for k, fields in graph.nodes.items()},
            edges=edges,
            edge_fields=edge_fields,
            shared={name: value.chunk(made.count)[copy] for name, value in graph.shared.items()},
        )
        yield Copies(single, {k: torch.zeros_like(made.owner[k][rows[k]]) for k in rows}, 1)
