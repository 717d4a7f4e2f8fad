"""How the user's module is called: by the names of its parameters, proved against the user's own call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from explain.graph.arguments.callables import Called, Decoder, Linked, UserCall, callable_module, unwrapped
from explain.graph.arguments.naming import Reading, beside, check_edges, inputs_of, named, unedited, which_edges
from explain.graph.arguments.recording import recorded
from explain.graph.arguments.signature import LABELS, MADE, fields_of, indices
from explain.graph.arguments.trial import Trial, gap, same
from explain.graph.tensors.adjacency import Matrix, is_graph
from explain.graph.tensors.inputs import Inputs, check_indices, structure_of
from explain.graph.tensors.structure import NODE
from explain.parts import NoRows, Part

_OF_NODES = ("x", "batch", "pos", "z", "n_id", *LABELS)
_UNSURE = 3  # fields that may be of edges at once
_SAMPLED = ("num_sampled_nodes", "num_sampled_edges")


def read(
    module: nn.Module,
    data: Data | HeteroData,
    task: str,
    given: Mapping[str, str | None] | None = None,
    decoder: Decoder | None = None,
    call: UserCall | None = None,
    part: Part | None = None,
) -> Reading:
    """How ``module`` is called on ``data``.

    A parameter gets the field of its name. A name that says nothing is tried: it gets the only field on which forward
    runs. An *optional* parameter gets the field of its name too; where leaving that out changes the answer it is asked
    for, since only the user knows, unless the network has parameters for it alone. ``given`` decides: a source, or None
    for the parameter's default.
    Sources that are given are meant to be all: optional parameters beside them are left out. With ``call`` nothing is
    guessed: the arguments are those that the user's own call passes, or, where they are no fields of the data, the call
    itself is asked, of smaller data.

    Raises:
        TypeError: a parameter without a source, with several that forward runs on, or an optional one that changes the
            answer.
        ValueError: ``call`` and ``given`` disagree, or ``call`` does not read its data.
    """
    _check_words(given, call)
    check_indices(data)
    core = unwrapped(module)
    trial = Trial(core, data, task, part or Part())
    reading = _called(trial, given, decoder, call) if call is not None else _read(trial, given, decoder)
    return replace(reading, inputs=_with_edge_rows(trial, reading.net, reading.inputs))


def _read(trial: Trial, given: Mapping[str, str | None] | None, decoder: Decoder | None) -> Reading:
    """How forward is called by its names.

    Raises:
        TypeError: an optional argument that only the user knows of.
    """
    found = named(trial, given or {}, decoder)
    if found.doubts:
        raise TypeError(
            f"only you know how you call {type(trial.module).__name__}: {'; '.join(found.doubts)}; or show your call, "
            "explain.wrap(model, data, call=lambda net, data: net(...))"
        )
    if found.inputs.whole and not isinstance(found.net, Linked):
        return _of_data(trial, found.net, found.inputs, found.assumed)
    return found


def _with_edge_rows(trial: Trial, net: nn.Module, inputs: Inputs) -> Inputs:
    """The same inputs of a graph with as many nodes as edges, where the size of a field does not tell which it is of.

    The fewest fields are of edges with which forward runs on the graph without one of its edges.
    """
    data = trial.data
    if isinstance(data, HeteroData) or trial.large or data.num_nodes != data.num_edges or data.num_edges < 2:
        return inputs
    unsure = [name for name in structure_of(data, inputs).nodes[NODE] if name not in _OF_NODES]
    kept = torch.arange(data.num_edges)[None] > 0
    for count in range(min(len(unsure), _UNSURE) + 1):
        for chosen in combinations(unsure, count):
            made = replace(inputs, of_edges=inputs.of_edges | {*chosen})
            if trial.runs(trial.says(net, made, kept)):
                return made
    return inputs


def _check_words(given: Any, call: Any) -> None:
    """Check that ``inputs`` and ``call`` are what they have to be.

    Raises:
        TypeError: they are not.
    """
    if given is not None and not (
        isinstance(given, Mapping)
        and all(isinstance(name, str) and isinstance(source, str | None) for name, source in given.items())
    ):
        raise TypeError(
            "inputs must map names of forward's parameters to names of the data's fields, or to None, such as "
            f"{{'feat': 'x', 'edge_weight': None}}, got {given!r}"
        )
    if call is not None and not callable(call):
        raise TypeError(f"call must be your own call, lambda net, data: net(data.x, data.edge_index), got {call!r}")


def _called(trial: Trial, given: Mapping[str, str | None] | None, decoder: Decoder | None, call: UserCall) -> Reading:
    """The arguments that the call passes, if with them the network answers as the call does; else the call itself.

    Raises:
        ValueError: ``given`` beside a decoder, or arguments that answer otherwise than the call.
    """
    itself = Called(trial.module, call, decoder)
    of_data = inputs_of({"data": "data"}, (), fields_of(trial.data), trial)
    if decoder is not None:
        if given is not None:
            raise ValueError("with decoder=, give inputs= or call=, not both: call= says what the encoder is given")
        return _of_data(trial, itself, of_data, {})
    heard = recorded(trial, call)
    _check_rows(trial, "call=", heard.rows)
    if given is not None:
        reading = named(trial, given, None)
        rows = trial.says(reading.net, reading.inputs)
        if isinstance(rows, Exception) or not same(rows, heard.rows):
            passed = ", ".join(f"{name}={source}" for name, source in reading.inputs.sources.items())
            raise ValueError(
                f"inputs= and call= disagree: the network called with {passed} {_difference(rows, heard.rows)}, held "
                "against the call: give one of them, or the same arguments in both"
            )
        return replace(reading, checks={"call_gap": gap(rows, heard.rows)})
    for reading in _of_the_call(trial, heard.sources):
        rows = trial.says(reading.net, reading.inputs)
        if not isinstance(rows, Exception) and same(rows, heard.rows):
            return replace(reading, checks={"call_gap": gap(rows, heard.rows)})
    return _of_data(trial, itself, of_data, {})


def _of_the_call(trial: Trial, sources: Mapping[str, str | None] | None) -> list[Reading]:
    """Readings that may be what the call does: the arguments it was heard to pass, or those of an encoder's names."""
    fields = fields_of(trial.data)
    if sources is not None:
        check_edges(trial, sources)
        known = all(source is None or source in fields or source in MADE for source in sources.values())
        return [Reading(trial.module, inputs_of(sources, (), fields, trial))] if known else []
    if isinstance(callable_module(trial.module, trial.task, None), Linked):
        try:
            return [replace(named(trial, {}, None), assumed={}, doubts=())]  # the comparison settles them
        except (TypeError, ValueError):
            return []
    return []


def _of_data(trial: Trial, net: nn.Module, inputs: Inputs, assumed: dict[str, str]) -> Reading:
    """A network that reads the data object, given copies of it that answer as the data itself does.

    A graph that the data holds twice, as ``edge_index`` and as a matrix, is given as the one that is read.

    Raises:
        ValueError: no copy answers so, or what is called does not read its data.
    """
    if trial.large:
        return Reading(net, inputs, assumed)
    data = trial.sample()
    who = f"{type(trial.module).__name__}.forward(data)"
    try:
        expected = trial.asked(lambda: net(data))
    except NoRows as error:
        raise ValueError(_without_rows(trial, who, str(error))) from error
    except Exception:  # said with the shapes when the first question is asked
        return Reading(net, inputs, assumed)
    _check_rows(trial, who, expected)
    held = {name: Matrix.like(name, value) for name, value in fields_of(trial.data).items() if is_graph(name, value)}
    read_too = [name for name in held if _reads(trial, net, name, expected)] if "edge_index" in data else []
    tried = [{name: held[name]} for name in read_too] or ([{}] if "edge_index" in data else [held])
    failures: list[str] = []
    for matrices in tried:
        made = replace(inputs, matrices=matrices)
        rows = trial.says(net, made)
        if not isinstance(rows, Exception) and same(rows, expected):
            if isinstance(net, Called):
                _check_reads(trial, net, expected)
            read_plain = [name for name in sorted(inputs.plain) if _reads_plain(trial, net, name)]
            assumed |= unedited({name: data.stores[0][name] for name in read_plain})
            if others := indices(fields_of(trial.data)):
                read = [name for name in ("edge_index", *others) if _reads(trial, net, name, expected)]
                made = _with_edges(trial, net, made, read, expected)
                assumed |= beside(fields_of(trial.data), read)
            return Reading(net, made, assumed, {"call_gap": gap(rows, expected)})
        failures.append(_difference(rows, expected))
    raise ValueError(
        f"{type(trial.module).__name__} answers otherwise on the data than on a copy of its nodes, edges and their "
        f"fields, which {' or '.join(failures)}: what else it reads must be a tensor with one row a node, edge or graph"
    )


def _reads(trial: Trial, net: nn.Module, name: str, expected: list[Tensor]) -> bool:
    """Whether the answer hangs on these edges of the data, a list or a matrix of them."""
    data = trial.sample()
    if name not in data:
        return False
    data[name] = data[name] * 0 if is_graph(name, data[name]) else data[name][:, :0]
    try:
        return not same(trial.asked(lambda: net(data)), expected)
    except Exception:  # whatever a user's forward raises without edges
        return True


def _reads_plain(trial: Trial, net: nn.Module, name: str) -> bool:
    """Whether the answer hangs on a field of the data that is no tensor.

    Raises:
        ValueError: it counts what a loader has sampled, which is another number in every edited graph.
    """
    data = trial.sample()
    if name not in data:
        return False
    del data[name]
    try:
        trial.asked(lambda: net(data))
    except Exception:  # whatever a user's forward raises without it
        if name in _SAMPLED:
            raise ValueError(
                f"{type(trial.module).__name__} reads data.{name}, what a loader sampled: edges and nodes that are "
                "removed would be counted as if they were there. Show a call that does not trim layers, "
                "call=lambda net, data: net(data.x, data.edge_index)"
            ) from None
        return True
    return False


def _with_edges(trial: Trial, net: nn.Module, inputs: Inputs, read: list[str], expected: list[Tensor]) -> Inputs:
    """The same inputs, where the only edges that are read have another name than ``edge_index``.

    Raises:
        ValueError: several have, or the answer is another one on copies with these edges alone.
    """
    if not read or "edge_index" in read or inputs.edges == read[0]:
        return inputs
    made = replace(inputs, own={**inputs.own, "edge_index": read[0]})
    rows = trial.says(net, made)
    if len(read) > 1 or isinstance(rows, Exception) or not same(rows, expected):
        raise ValueError(which_edges(trial, read))
    return made


def _check_rows(trial: Trial, who: str, rows: list[Tensor]) -> None:
    """Check that an answer has the rows that a number is read from.

    Raises:
        ValueError: it has others.
    """
    if not trial.fits(rows):
        shapes = " and ".join(str(list(part.shape)) for part in rows)
        raise ValueError(_without_rows(trial, who, f"it returned {shapes}"))


def _without_rows(trial: Trial, who: str, instead: str) -> str:
    row = {"node": "node", "edge": "pair of edge_label_index", "graph": "graph"}[trial.task]
    return (
        f"{who} must return a row for every {row}, [rows, outputs]: show the call that does, call=lambda net, data: "
        f"net(data.x, data.edge_index); {instead}"
    )


def _difference(rows: list[Tensor] | Exception, expected: list[Tensor]) -> str:
    if isinstance(rows, Exception):
        return f"fails ({type(rows).__name__}: {rows})"
    return f"is off by up to {gap(rows, expected):.3g}"


def _check_reads(trial: Trial, net: nn.Module, expected: list[Tensor]) -> None:
    """Check that the user's call reads the data that it is given, not the data it was written beside.

    Raises:
        ValueError: its answer is the same on other data.
    """
    data = trial.sample()
    for store in data.stores:
        for name, value in store.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                store[name] = torch.zeros_like(value) if value.layout == torch.strided else value * 0
            elif name == "edge_index":
                store[name] = value[:, :0]
    try:
        rows = trial.asked(lambda: net(data))
    except Exception:  # it cannot say the same of this
        return
    if gap(rows, expected) == 0 and any(bool(part.any()) for part in rows):
        raise ValueError(
            "call= answers the same on other data: it must read its second argument, "
            "call=lambda net, data: net(data.x, data.edge_index)"
        )
