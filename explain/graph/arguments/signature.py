"""The parameters of a forward, and which fields of the data each of them may mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from explain.graph.tensors.adjacency import DENSE, TRANSPOSED, is_dense_matrix, is_sparse_matrix

FEATURES = ("features", "feat", "feats", "h", "node_features", "node_feats", "inputs")  # other names of x
OBJECTS = ("data", "batch_data", "graph", "batch", "g")  # a first parameter that means the whole data object
MADE = ("edge_index", "batch", "ptr", "num_graphs", "num_nodes", "edge_label_index", "data", "adj")  # of every graph
COUNTS = ("num_graphs", "batch_size")  # how many graphs there are; whoever leaves them optional counts them
SHORT = ("e", "ea", "ef", "ew", "w", "norm")  # what edge features are called for short
_GRAPH = ("edge_index", "adj", TRANSPOSED)  # one graph said in several ways
LABELS = ("y", "train_mask", "val_mask", "test_mask", "edge_label")  # what a forward reads by their own names alone
_MOST = 64  # readings of unknown names that are tried


@dataclass(frozen=True)
class Signature:
    """Names of a forward's parameters; which are ``optional``; which go by position, all or those before a slash.

    ``anything``: whether it takes other keywords; ``unnamed``: whether it takes more by position, ``*args``.
    """

    names: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    positional: tuple[str, ...] = ()
    anything: bool = False
    unnamed: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """Those without a default."""
        return tuple(name for name in self.names if name not in self.optional)


def signature_of(module: nn.Module, forward: Callable[..., Any]) -> Signature:
    """Of ``forward``, the module's or its encoder's; ``(*args, **kwargs)`` is looked through to the module inside."""
    declared = getattr(getattr(module, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
    if declared is not None:
        return Signature(tuple(declared), positional=tuple(declared))
    schema = getattr(forward, "schema", None)  # torch.jit
    if schema is not None:
        arguments = schema.arguments[1:]
        names = tuple(argument.name for argument in arguments)
        return Signature(names, frozenset(a.name for a in arguments if a.has_default_value()), names)
    parameters = list(inspect.signature(forward).parameters.values())
    starred = [p for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    named = [p for p in parameters if p not in starred]
    inside = getattr(module, "encoder", None)
    if inside is None and len(children := list(module.children())) == 1:
        inside = children[0]
    if not named and starred and isinstance(inside, nn.Module):
        found = signature_of(inside, inside.forward)
        by_name = any(p.kind is p.VAR_KEYWORD for p in starred)
        return found if by_name else replace(found, positional=found.names)
    return Signature(
        tuple(p.name for p in named),
        frozenset(p.name for p in named if p.default is not p.empty),
        tuple(p.name for p in named if p.kind is p.POSITIONAL_ONLY),
        any(p.kind is p.VAR_KEYWORD for p in starred),
        any(p.kind is p.VAR_POSITIONAL for p in starred),
    )


def fields_of(data: Data | HeteroData) -> dict[str, Any]:
    """Tensors and sparse matrices of the data by name; of typed data the first of a name."""
    found: dict[str, Any] = {}
    for store in data.stores:
        for name, value in store.items():
            if isinstance(value, Tensor) or is_sparse_matrix(value):
                found.setdefault(name, value)
    return found


def is_constant(value: Any) -> bool:
    """Whether a field of the data has no rows: it is given as it is, by its own name alone."""
    return isinstance(value, (bool, int, float, str))


def of_edges(data: Data) -> frozenset[str]:
    """The fields with a row an edge, by their sizes; those of other graphs of a list have the same."""
    return frozenset(name for name, _ in data if data.is_edge_attr(name) and not data.is_node_attr(name))


def indices(fields: Mapping[str, Any]) -> list[str]:
    """Fields that are edges ``[2, k]`` of another name than ``edge_index``."""
    return [
        name
        for name, value in fields.items()
        if isinstance(value, Tensor)
        and value.dim() == 2
        and len(value) == 2
        and not (value.is_floating_point() or value.dtype == torch.bool)
        and ("edge_index" in name or name in ("edges", "edge_list"))
        and name not in ("edge_index", "edge_label_index")
    ]


@dataclass(frozen=True)
class Candidates:
    """The sources that one parameter may have, the likeliest first; ``sure``: its name leaves no doubt."""

    sources: tuple[str, ...]
    sure: bool
    preferred: bool = False  # the first is what the name means, if forward runs on it


def candidates(name: str, signature: Signature, fields: Mapping[str, Any], typed: bool, task: str) -> Candidates:
    """What a parameter may mean, by its name; without one, every field of the data."""
    if typed and name.endswith("_dict"):
        name = name.removesuffix("_dict")
    graph = tuple(source for source in _GRAPH if source in fields and source != "adj")
    if name in OBJECTS and name not in fields and (name != "batch" or _comes_alone(name, signature)):
        alone = len(signature.required) == 1
        return Candidates(("data",) if alone else ("data", *(graph or ("edge_index",)), "x"), alone, True)
    if name == "edge_index" and "edge_index" not in fields and TRANSPOSED in fields:
        return Candidates((TRANSPOSED,), True)
    if name == "edge_index" and "edge_index" not in fields and (others := indices(fields)):
        return Candidates(tuple(others), False)
    if name == TRANSPOSED:
        return Candidates((TRANSPOSED if TRANSPOSED in fields else "edge_index",), True)
    if name in DENSE:
        if name in fields and (is_sparse_matrix(fields[name]) or is_dense_matrix(fields[name])):
            return Candidates((name,), True)
        return Candidates(("adj", *(graph or ("edge_index",))), False, TRANSPOSED not in fields)
    if name in COUNTS and name not in fields and name in signature.required:
        return Candidates(("num_graphs",), True)
    if name in ("edge_index", "batch", "num_nodes") or (name == "edge_label_index" and task == "edge"):
        return Candidates((name,), True)
    if name == "ptr" and name in signature.required:
        return Candidates((name,), True)
    rows = [field for field, value in fields.items() if not is_constant(value)]
    known = tuple(field for field in rows if field not in ("x", "edge_label_index", "batch", *_GRAPH, *LABELS))
    if name in (shared := _share_x(signature, fields)) and len(shared) > 1:
        return Candidates(("x", *known), False)
    if name in fields:
        return Candidates((name,), True)
    if name in FEATURES and "x" in fields:
        alone = len(signature.required) == 1  # a mapping of all, perhaps
        return Candidates(("x", "data") if alone else ("x",), not alone, True)
    if name in signature.optional:
        return Candidates((), True)
    first = ("x",) if "x" in fields else ()
    matrix = () if typed else ("adj",)
    whole = ("data",) if len(signature.required) == 1 else ()
    pooled = ("batch",) if task == "graph" or "batch" in fields else ()
    pairs = ("edge_label_index",) if task == "edge" else ()
    return Candidates((*first, *(graph or ("edge_index",)), *matrix, *known, *pooled, *pairs, *whole), False)


def _share_x(signature: Signature, fields: Mapping[str, Any]) -> list[str]:
    """Parameters whose names mean the features: of several, as ``(h, x, edges)``, one means something else."""
    return [name for name in signature.required if "x" in fields and (name == "x" or name in {*FEATURES} - {*fields})]


def _comes_alone(name: str, signature: Signature) -> bool:
    """Whether this is the first parameter, and none beside it says what a graph holds."""
    return signature.names[0] == name and not {"x", "edge_index"} & set(signature.names)


def unfed(signature: Signature, sources: Mapping[str, Any], data: Data | HeteroData) -> list[tuple[str, str]]:
    """Optional parameters that nothing is given to, each with a field of the data that the user may well pass there.

    A label of the same name, or edge features under another: ``edge_weight`` is often ``data.edge_attr``; ``**kwargs``
    may well be edge features. Masks are none: they say which edges are the true reasons (``ExplainerDataset``).
    """
    fields = fields_of(data)
    on_edges = [
        name
        for name, value in fields.items()
        if name not in LABELS
        and "mask" not in name
        and not is_sparse_matrix(value)
        and value.is_floating_point()
        and any(name in store and store.is_edge_attr(name) for store in data.edge_stores)
    ]
    found = []
    for name in (n for n in signature.names if n in signature.optional and n not in (*sources, *MADE)):
        if name in LABELS:
            found += [(name, name)] if name in fields else []
        elif any(word in name for word in ("edge", "weight", "attr")) or name in SHORT:
            found += [(name, field) for field in on_edges if field != name.removesuffix("_dict")]
    if signature.anything:
        passed = {*signature.names, *sources.values()}
        found += [(name, name) for name in on_edges if name in ("edge_weight", "edge_attr") and name not in passed]
    return found


def readings(found: Mapping[str, Candidates]) -> list[dict[str, str]]:
    """Every way to give each parameter a source of its own; at most `_MOST`."""
    made = []
    for chosen in product(*(each.sources for each in found.values())):
        kinds = ["graph" if source in _GRAPH else source for source in chosen]
        unsure = [k for k, c in zip(kinds, found.values(), strict=True) if not c.sure]
        if len(set(kinds)) == len(kinds) or all(kinds.count(kind) == 1 for kind in unsure):
            made.append(dict(zip(found, chosen, strict=True)))
        if len(made) == _MOST:
            break
    return made
