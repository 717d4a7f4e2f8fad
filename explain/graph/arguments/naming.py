"""What forward is given, read from its names, and tried where names do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from explain.graph.arguments.callables import Decoder, Linked, callable_module
from explain.graph.arguments.signature import (
    LABELS,
    MADE,
    Candidates,
    Signature,
    candidates,
    fields_of,
    indices,
    is_constant,
    of_edges,
    readings,
    signature_of,
    unfed,
)
from explain.graph.arguments.trial import Trial, apart, same
from explain.graph.tensors.adjacency import TRANSPOSED, Matrix, is_dense_matrix, is_graph
from explain.graph.tensors.inputs import Inputs, structure_of

_UNTRIED = "The answers may differ, and the graph is too large to be run as a whole"
_THINGS = {"node": "node", "edge": "pair", "graph": "graph"}
_POSITIONS = (("data",), ("x", "edge_index"), ("x", "edge_index", "edge_attr"), ("x", "edge_index", "batch"))


@dataclass(frozen=True, eq=False)
class Reading:
    """The module that is called, what it is given, what of that was assumed, what was measured, and what is to ask."""

    net: nn.Module
    inputs: Inputs
    assumed: dict[str, str] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def named(trial: Trial, given: Mapping[str, str | None], decoder: Decoder | None) -> Reading:
    """How the names of forward's parameters are read; see `explain.graph.arguments.proving.read`."""
    net = callable_module(trial.module, trial.task, decoder)
    forward = net.encoder if isinstance(net, Linked) else trial.module.forward
    signature = signature_of(trial.module, forward)
    fields, typed = fields_of(trial.data) | trial.constants, isinstance(trial.data, HeteroData)
    signature = _with_given(signature, given, trial)
    reader = _Reader(trial, net, signature, fields, typed, frozenset(given))
    required: dict[str, Candidates] = {}
    for name in signature.names:
        if name in given:
            required[name] = _given(name, given[name], fields)
        elif name in signature.required:
            required[name] = candidates(name, signature, fields, typed, trial.task)
    optional = {}
    for name in [n for n in signature.names if n in signature.optional and n not in given]:
        found = candidates(name, signature, fields, typed, trial.task)
        known = found.sure and found.sources and (found.sources[0] in fields or found.sources[0] in MADE)
        known = known and name not in LABELS
        if known and not (found.sources[0] == "edge_label_index" and trial.task != "edge"):
            optional[name] = found.sources[0]
    sources, assumed = reader.settled(required)
    named = [name for name, source in given.items() if source is not None]
    if named:
        for name in [n for n, source in optional.items() if source in fields and source not in ("batch", "edge_index")]:
            if name not in sources:
                assumed[name] = "not passed: inputs= names others"
            del optional[name]
    return reader.with_optional(sources, optional, assumed)


def _with_given(signature: Signature, given: Mapping[str, str | None], trial: Trial) -> Signature:
    """The signature with names that only the user knows, of ``**kwargs`` or ``*args``.

    Raises:
        TypeError: forward takes no such names.
    """
    unknown = [name for name in given if name not in signature.names]
    if unknown and not (signature.anything or signature.unnamed):
        raise TypeError(f"inputs names {sorted(unknown)}, but forward takes {', '.join(signature.names)}")
    if (signature.anything and unknown) or not signature.unnamed:
        return replace(signature, names=(*signature.names, *unknown))
    names = (*signature.names, *(name for name in unknown if given[name] is not None))
    if len(names) > len(signature.names):
        return replace(signature, names=names, positional=names)
    return _by_position(signature, trial)


def _by_position(signature: Signature, trial: Trial) -> Signature:
    """Of a forward ``(*args)`` whose names nobody knows: the only usual arguments that it runs on.

    Raises:
        TypeError: it runs on none of them, or on several that answer differently.
    """
    fields, typed = fields_of(trial.data), isinstance(trial.data, HeteroData)
    known = [candidates(name, signature, fields, typed, trial.task).sources for name in signature.names]
    found: list[tuple[tuple[str, ...], list[Tensor]]] = []
    for sources in (*(taken[:1] for taken in known[:1]), *_POSITIONS):
        fits = len(sources) >= len(known) and all(s in k for s, k in zip(sources, known, strict=False))
        if fits and all(source in fields or source in ("data", "batch") for source in sources):
            rows = trial.says(trial.module, inputs_of(dict(zip(sources, sources, strict=True)), sources, fields, trial))
            if trial.runs(rows):
                found.append((sources, rows))
    if not found or any(not same(rows, found[0][1]) for _, rows in found[1:]):
        named = ", ".join((*signature.names, "*args"))
        raise TypeError(
            f"{type(trial.module).__name__}.forward takes ({named}), and {'several' if found else 'none'} of the usual "
            "arguments run: name them in order, explain.wrap(model, data, inputs={'x': 'x', 'edge_index': "
            "'edge_index'}), or show the call, call=lambda net, data: net(...)"
        )
    names = (*signature.names, *found[0][0][len(known) :])
    return replace(signature, names=names, positional=names)


def _given(name: str, source: str | None, fields: Mapping[str, Any]) -> Candidates:
    if source is None:
        return Candidates((), sure=True)
    if source not in fields and source not in MADE:
        raise TypeError(f"inputs names {source!r} for {name!r}, but the data holds {', '.join(sorted(fields))}")
    return Candidates((source,), sure=True)


def inputs_of(
    sources: Mapping[str, str | None], positional: tuple[str, ...], fields: Mapping[str, Any], trial: Trial
) -> Inputs:
    """These sources, with how the matrices among them are built.

    A square matrix of any name is the graph where forward is given no other; several are columns of the nodes, as many
    as there are nodes.
    """
    wanted = [source for source in sources.values() if source is not None]
    own = _own_names(wanted, fields, trial)
    sources = {name: next((ours for ours, o in own.items() if o == source), source) for name, source in sources.items()}
    alone = not {"edge_index", "adj", "data"} & {*wanted} and not isinstance(trial.data, HeteroData)
    square = [name for name in wanted if name != "x" and is_dense_matrix(fields.get(name), trial.data.num_nodes)]
    only = square if alone and len(square) == 1 else []
    graphs = [source for source in wanted if source in only or is_graph(source, fields.get(source))]
    matrices = {source: Matrix.like(source, fields[source]) for source in graphs}
    if "adj" in sources.values() and "adj" not in matrices:
        matrices["adj"] = Matrix()
    plain = {source for source in wanted if is_constant(fields.get(source))}
    if "data" in sources.values() and trial.task != "graph":
        kept = trial.data.stores[0]._mapping.items()
        plain |= {name for name, v in kept if not isinstance(v, Tensor) and not is_graph(name, v)} - {"num_nodes"}
    typed, batched = isinstance(trial.data, HeteroData), trial.task == "graph" or "batch" in fields
    edges = frozenset() if typed else of_edges(trial.data)
    return Inputs(sources, typed, positional, matrices, trial.pair_type, frozenset(plain), own, batched, edges)


def _own_names(wanted: list[str], fields: Mapping[str, Any], trial: Trial) -> dict[str, str]:
    """Which fields are the features and the edges, where the data calls them otherwise: the only ones that may be."""
    own, whole = {}, "data" in wanted
    edges = [name for name in indices(fields) if name in wanted or (whole and "edge_index" not in fields)]
    if "edge_index" not in wanted and len(edges) == 1:
        own["edge_index"] = edges[0]
    stores = trial.data.node_stores if isinstance(trial.data, HeteroData) else [trial.data]
    features = [name for name in fields if (whole or name in wanted) and any(_features(name, s) for s in stores)]
    if "x" not in fields and len(features) == 1:
        own["x"] = features[0]
    return own


def _features(name: str, store: Any) -> bool:
    value = store.get(name)
    floating = isinstance(value, Tensor) and value.layout == torch.strided and value.is_floating_point()
    return floating and value.dim() > 1 and name not in LABELS and store.is_node_attr(name)


def beside(fields: Mapping[str, Any], read: list[str]) -> dict[str, str]:
    """What is to be said of edges that are read beside those of ``edge_index``."""
    others = [name for name in indices(fields) if name in read and "edge_index" in read]
    return dict.fromkeys(others, "its edges stay as they are: players are the edges of edge_index")


def unedited(constants: Mapping[str, Any]) -> dict[str, str]:
    """What is to be said of plain numbers and texts that are read, which no edit of the graph changes."""
    return {name: f"{value!r}, as the data holds it, in every coalition" for name, value in constants.items()}


def which_edges(trial: Trial, read: list[str]) -> str:
    """The words where several sets of edges are read and none is called ``edge_index``, whose edges are the players."""
    return (
        f"which edges may play? {type(trial.module).__name__} reads {', '.join(read)} of the data and not edge_index: "
        "call those edge_index that are to be explained; for all of them hold all as edge_index, with a field that "
        "tells them apart: call=lambda net, data: net(data.x, data.edge_index[:, data.kind == 0], data.edge_index[:, "
        "data.kind == 1])"
    )


def check_edges(trial: Trial, sources: Mapping[str, str | None]) -> None:
    """Check that it is clear which edges the players are.

    Raises:
        ValueError: several sets of edges are read, and none of them is ``edge_index``.
    """
    read = [name for name in indices(fields_of(trial.data)) if name in sources.values()]
    if len(read) > 1 and not {"edge_index", "data"} & {*sources.values()}:
        raise ValueError(which_edges(trial, read))


@dataclass(frozen=True, eq=False)
class _Reader:
    """Chooses among readings by trying them."""

    trial: Trial
    net: nn.Module
    signature: Signature
    fields: Mapping[str, Any]
    typed: bool
    given: frozenset[str] = frozenset()

    def inputs(self, sources: Mapping[str, str | None]) -> Inputs:
        """These sources, in the forward's order."""
        ordered = {name: sources[name] for name in (*self.signature.names, *sources) if name in sources}
        made = inputs_of(ordered, self.signature.positional, self.fields, self.trial)
        if isinstance(self.net, Linked):
            made = replace(made, sources={**made.sources, "edge_label_index": "edge_label_index"})
        return made

    def says(self, sources: Mapping[str, str | None]) -> list[Tensor] | Exception:
        """What the network answers on these."""
        return self.trial.says(self.net, self.inputs(sources))

    def settled(self, found: dict[str, Candidates]) -> tuple[dict[str, str | None], dict[str, str]]:
        """A source for each of these parameters, and what was assumed.

        Raises:
            TypeError: none, or several that forward runs on.
        """
        off = [name for name, each in found.items() if each.sure and not each.sources]
        sources: dict[str, str | None] = {name: None for name in off if name in self.signature.required}
        found = {name: each for name, each in found.items() if name not in off}
        for name, each in found.items():
            if not each.sources:
                raise self._without_source(name)
        unsure = [name for name, each in found.items() if not each.sure]
        if not unsure:
            return sources | {name: each.sources[0] for name, each in found.items()}, {}
        if self.trial.large and all(found[name].preferred for name in unsure):
            chosen = {name: each.sources[0] for name, each in found.items()}
        elif self.trial.large:
            raise self._without_source(unsure[0])
        else:
            chosen = self._tried({**dict.fromkeys(sources, None)}, found, unsure)
        how = "what its name means" if self.trial.large else "what forward runs on"
        spoken = {"adj": "the dense matrix of edge_index, ones and zeros"}
        said = {
            name: f"{spoken.get(chosen[name], chosen[name])}, {how}: inputs={{{name!r}: ...}} or call= says otherwise"
            for name in unsure
        }
        return sources | chosen, said

    def _tried(self, off: Mapping[str, None], found: Mapping[str, Candidates], unsure: list[str]) -> dict[str, str]:
        running: list[tuple[dict[str, str], list[Tensor]]] = []
        failed = ""
        for reading in readings(found):
            rows = self.says({**off, **reading})
            if self.trial.runs(rows):
                running.append((reading, rows))
            elif isinstance(rows, Exception) and not failed:
                failed = f" (with {reading[unsure[0]]}: {_first_line(rows)})"
        if not running:
            raise self._without_source(unsure[0], failed)
        meant = [r for r in running if all(r[0][n] == found[n].sources[0] for n in unsure if found[n].preferred)]
        running = meant or running
        if any(not same(rows, running[0][1]) for _, rows in running[1:]):
            ways = "; ".join(", ".join(f"{n}={reading[n]}" for n in unsure) for reading, _ in running[:4])
            raise TypeError(
                f"{type(self.trial.module).__name__}.forward runs on several readings of {', '.join(unsure)} ({ways}) "
                f"and answers otherwise on each: name the source, explain.wrap(model, data, "
                f"inputs={{{unsure[0]!r}: ...}}), or show the call, call=lambda net, data: net(...)"
            )
        return running[0][0]

    def _without_source(self, name: str, failed: str = "") -> TypeError:
        holds = ", ".join(sorted(self.fields)) or "nothing"
        return TypeError(
            f"{type(self.trial.module).__name__}.forward needs {name!r}, and the data holds {holds}{failed}: name its "
            f"source, explain.wrap(model, data, inputs={{{name!r}: ...}}), or show the call, call=lambda net, data: "
            "net(...)"
        )

    def with_optional(
        self, sources: dict[str, str | None], optional: dict[str, str], assumed: dict[str, str]
    ) -> Reading:
        """Optional parameters too, and the data object with its matrices, held against what leaving them out says."""
        constants = {name for name, value in self.fields.items() if is_constant(value)}
        everything = sources | {name: source for name, source in optional.items() if name not in sources}
        trial, doubts = self.trial, []
        if not trial.large:  # fields of a wrong length are no question of what to pass
            structure_of(trial.data, self.inputs(everything))
        for name in [n for n, s in optional.items() if n not in sources and self._doubtful(s)]:
            doubts.append(self._held(everything, name, assumed))
        if not any(sources.get(name) for name in self.given):  # sources that are named are meant to be all
            others = unfed(self.signature, everything, trial.data)
            doubts += [self._left_out(everything, name, source) for name, source in others if name not in self.given]
        doubts.append(self._other_graphs(everything))
        check_edges(trial, everything)
        assumed |= beside(self.fields, [source for source in everything.values() if source])
        assumed |= unedited({name: self.fields[source] for name, source in everything.items() if source in constants})
        inputs, told = self.inputs(everything), tuple(filter(None, doubts))
        return Reading(self.net, inputs, assumed, doubts=told)

    def _doubtful(self, source: str) -> bool:
        """Whether leaving out an optional source may be what the user does."""
        if source in ("edge_index", "edge_label_index"):
            return False
        return source in self.fields or (source == "batch" and self.trial.task != "graph")

    def _held(self, everything: dict[str, str | None], name: str, assumed: dict[str, str]) -> str:
        """Keep an optional argument, or leave it out, by what the network says without it; the doubt that is left."""
        source = everything[name]
        assert source is not None
        if self.trial.large:
            return "" if source not in self.fields else _asked(name, source, _UNTRIED)
        without = {key: s for key, s in everything.items() if key != name}
        full, less = self.says(everything), self.says(without)
        if not self.trial.runs(less):
            return ""  # forward needs it
        if isinstance(full, Exception):
            del everything[name]
            assumed[name] = f"not passed: forward fails with it ({_first_line(full)})"
        elif not self.trial.fits(full):  # as a mask that picks some of the rows
            del everything[name]
            assumed[name] = f"not passed: with it the answer has no row for each {_THINGS[self.trial.task]}"
        elif not same(full, less):
            if source not in self.fields:
                del everything[name]  # one graph: nobody passes what the data does not hold
                return ""
            if source == "batch":
                assumed[name] = (
                    "passed: the data holds several graphs, and the answer hangs on which is which: "
                    f"inputs={{{name!r}: None}} switches it off"
                )
                return ""
            if not self._built_for(everything, without):
                return _asked(name, source, apart(full, less))
            assumed[name] = (
                "passed, as the data holds it, and parameters of the network are there for it alone: "
                f"inputs={{{name!r}: None}} switches it off"
            )
        return ""

    def _built_for(self, everything: dict[str, str | None], without: dict[str, str | None]) -> bool:
        """Whether the network has parameters that only an argument reaches: it was trained with it."""
        full = self.trial.reached(self.net, self.inputs(everything))
        less = self.trial.reached(self.net, self.inputs(without))
        return full is not None and less is not None and less < full

    def _left_out(self, sources: dict[str, str | None], name: str, source: str) -> str:
        """The doubt about an optional argument that has no field of its name, though another may be what is passed."""
        if self.trial.large:
            return _asked(name, source, _UNTRIED)
        own, other = self.says(sources), self.says({**sources, name: source})
        if not self.trial.runs(own) or not self.trial.runs(other) or same(own, other):
            return ""
        return _asked(name, source, apart(other, own))

    def _other_graphs(self, sources: dict[str, str | None]) -> str:
        """Where the data says its graph twice, whether the other graph makes another answer."""
        others = [name for name in (TRANSPOSED,) if is_graph(name, self.fields.get(name))]
        read = next((name for name, source in sources.items() if source == "edge_index"), None)
        if read is None or read in self.given or not others:
            return ""
        differ = _UNTRIED
        if not self.trial.large:
            own, other = self.says(sources), self.says({**sources, read: others[0]})
            if isinstance(own, Exception) or isinstance(other, Exception) or same(own, other):
                return ""
            differ = apart(other, own)
        return (
            f"is forward's {read!r} given data.{others[0]}, or data.edge_index? {differ}: say "
            f"inputs={{{read!r}: {others[0]!r}}}, or inputs={{{read!r}: 'edge_index'}}"
        )


def _asked(name: str, source: str, differ: str) -> str:
    """The question whether an optional argument is passed, with both answers and how each is said."""
    return (
        f"is forward's optional {name!r} given data.{source}? {differ}: say inputs={{{name!r}: {source!r}}} if you "
        f"pass it, inputs={{{name!r}: None}} if you do not"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
