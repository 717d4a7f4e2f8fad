"""The user's own call of a network, listened to: which fields of the data each argument is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from explain.graph.arguments.callables import UserCall
from explain.graph.arguments.signature import fields_of
from explain.graph.arguments.trial import Trial
from explain.graph.tensors.adjacency import entries, is_sparse_matrix


@dataclass(frozen=True, eq=False)
class Recorded:
    """What the call answers, and the source of each argument; None where one is no field of the data."""

    rows: list[Tensor]
    sources: dict[str, str | None] | None


def recorded(trial: Trial, call: UserCall) -> Recorded:
    """Run the user's call on a copy of the data, and see what it gives the network.

    Raises:
        ValueError: the call fails.
    """
    data = trial.sample()
    calls: list[tuple[tuple, dict]] = []
    listening = _listened(trial.module, calls)
    try:
        rows = trial.asked(lambda: call(trial.module, data))
    except Exception as error:
        raise ValueError(f"call= fails on the data: {type(error).__name__}: {error}") from error
    finally:
        if listening is not None:
            listening.remove()
    if len(calls) != 1:
        return Recorded(rows, None)
    return Recorded(rows, _named(trial.module, calls[0][0], calls[0][1], data))


def _listened(module: nn.Module, calls: list[tuple[tuple, dict]]) -> Any:
    try:
        return module.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    except RuntimeError:  # a scripted module has no such hooks
        return None


def _named(module: nn.Module, args: tuple, kwargs: dict, data: Data | HeteroData) -> dict[str, str | None] | None:
    """The source of each argument by its parameter's name, as far as they differ from the defaults."""
    try:
        signature = inspect.signature(module.forward)
        bound = signature.bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    sources: dict[str, str | None] = {}
    for name, value in bound.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        if parameter.kind is parameter.VAR_KEYWORD:
            for key, each in value.items():
                if (source := _source(each, data)) is None:
                    return None
                sources[key] = source
            continue
        if not isinstance(value, (Tensor, Mapping, Data, HeteroData)) and value is parameter.default:
            continue
        source = _source(value, data)
        if source is None and "batch" in name and _is_one_graph(value, data):
            source = "batch"
        if source is None and value is not None:
            return None
        sources[name] = source
    return sources


def _source(value: Any, data: Data | HeteroData) -> str | None:
    """The field of the data that a value is, by identity or by what it holds; "data" for the whole; None for none."""
    if value is data:
        return "data"
    if isinstance(value, Mapping):
        return _typed_source(value, data)
    if not isinstance(value, Tensor) and not is_sparse_matrix(value):
        return None
    if isinstance(data, HeteroData):
        return "edge_label_index" if _equal(value, data.get("edge_label_index")) else None
    known = {**fields_of(data), **({"batch": data.batch} if isinstance(data, Batch) else {})}
    for name, each in known.items():
        if each is value:
            return name
    for name, each in known.items():
        if _equal(value, each):
            return name
    return None


def _is_one_graph(value: Any, data: Data | HeteroData) -> bool:
    """Whether this says of every node that it is of graph 0."""
    return (
        isinstance(value, Tensor)
        and value.shape == (data.num_nodes,)
        and not (value.is_floating_point() or value.any())
    )


def _typed_source(value: Mapping[Any, Any], data: Data | HeteroData) -> str | None:
    if not isinstance(data, HeteroData) or not value:
        return None
    first = next(iter(value))
    if first not in (*data.node_types, *data.edge_types):
        return None
    for name in data[first]:
        held = {store._key: store[name] for store in data.stores if name in store and hasattr(store, "_key")}
        if set(value) <= set(held) and all(_equal(each, held[key]) for key, each in value.items()):
            return name if set(value) == {key for key in held if isinstance(key, type(first))} else None
    return None


def _equal(value: Any, field: Any) -> bool:
    if value is field:
        return True
    if is_sparse_matrix(value) or is_sparse_matrix(field):
        if not (is_sparse_matrix(value) and is_sparse_matrix(field)) or type(value) is not type(field):
            return False
        (one, values), (other, others) = entries(value, False), entries(field, False)
        alike = torch.equal(one, other) and (values is None) == (others is None)
        return alike and (values is None or others is None or torch.equal(values, others))
    return (
        isinstance(value, Tensor)
        and isinstance(field, Tensor)
        and value.shape == field.shape
        and value.dtype == field.dtype
        and torch.equal(value, field)
    )
