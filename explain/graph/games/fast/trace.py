"""From a user's module to a program: its forward is traced by torch.fx, layers of message passing kept whole."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn
from torch_geometric import nn as pyg

from explain.graph.games.fast import layers
from explain.graph.games.fast.functions import POOLS, Rows, called, rows
from explain.graph.games.fast.program import Input, Op, Program, Refused, fused
from explain.graph.tensors.inputs import Inputs
from explain.obstacles import obstacle

_EDGES, _BATCH, _DATA = object(), object(), object()
_FIELDS = ("edge_weight", "edge_attr")


class _Field(str):
    """The name of an edge field."""


class _Tracer(fx.Tracer):
    """Layers whose meaning is known stay whole; everything else is looked into."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(POOLS))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """As in torch.fx, and torch_geometric's layers too."""
        if isinstance(m, (pyg.MessagePassing, pyg.JumpingKnowledge, pyg.Linear, pyg.BatchNorm)):
            return True
        norm = type(m).__module__.startswith("torch_geometric.nn.norm")
        return norm or super().is_leaf_module(m, module_qualified_name)


def program_of(module: nn.Module, inputs: Inputs) -> Program:
    """What a module's forward computes, as a program. The module is in eval mode.

    Raises:
        Refused: something in it is neither a linear aggregation nor a function of each row.
    """
    if inputs.typed or inputs.dense or inputs.positional:
        raise Refused("a heterogeneous, dense or positional model has no fast path")
    builder = _Builder()
    found = rows(builder.run(module, dict(inputs.sources)))
    kinds = {type(part).__name__ for part in module.modules() if isinstance(part, pyg.MessagePassing)}
    return Program(fused(builder.ops[: found + 1]), "/".join(sorted(kinds)) or type(module).__name__)


class _Builder:
    """Walks a traced forward and appends what it does."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.input: Rows | None = None

    def add(self, op: Op) -> int:
        """Append an operation; its position."""
        self.ops.append(op)
        return len(self.ops) - 1

    def run(self, module: nn.Module, sources: dict[str, str | None]) -> Any:
        """The value of ``module(**sources)``."""
        if isinstance(module, pyg.MessagePassing):
            return self._convolution(module, (), {name: self._source(source) for name, source in sources.items()})
        return self._walk(module, lambda name: self._source(sources.get(name)), set(sources))

    def inside(self, module: nn.Module, source: int) -> int:
        """The value of ``module(x)``."""
        if (made := layers.on_rows(self, module, source)) is not None:
            return made
        first = next(iter(inspect.signature(module.forward).parameters))
        return rows(self._walk(module, lambda name: Rows(source) if name == first else None, {first}))

    def _walk(self, module: nn.Module, given: Callable[[str], Any], names: set[str]) -> Any:
        graph, modules = _traced(module, names), dict(module.named_modules())
        needed = _needed(graph)
        values: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            if node not in needed:
                continue
            args = fx.node.map_arg(node.args, values.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
            if node.op == "output":
                return args[0][0] if isinstance(args[0], (tuple, list)) else args[0]
            if node.op == "placeholder":
                values[node] = given(str(node.target))
            elif node.op == "get_attr":
                values[node] = _attribute(module, str(node.target))
            elif node.op == "call_module":
                values[node] = self._module(modules[str(node.target)], args, kwargs)
            elif node.target is getattr and args[0] is _DATA:
                values[node] = self._source(args[1])
            else:
                values[node] = called(self, node.target, args, dict(kwargs))
        raise Refused("forward returns nothing")

    def _source(self, source: str | None) -> Any:
        if source == "x":
            if self.input is None:
                self.input = Rows(self.add(Input()))
            return self.input
        known = {None: None, "edge_index": _EDGES, "batch": _BATCH, "data": _DATA}
        if source in known:
            return known[source]
        if source in _FIELDS:
            return _Field(source)
        raise Refused(f"forward reads {source}")

    def _module(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Rows:
        if isinstance(module, pyg.MessagePassing):
            return self._convolution(module, args, kwargs)
        if isinstance(module, pyg.JumpingKnowledge):
            return Rows(layers.jumped(self, module, tuple(rows(part) for part in args[0])))
        made = layers.on_rows(self, module, rows(args[0] if args else next(iter(kwargs.values()))))
        if made is None:
            raise Refused(f"{type(module).__name__} has no fast path")
        return Rows(made)

    def _convolution(self, conv: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Rows:
        try:
            given = dict(inspect.signature(conv.forward).bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise Refused(f"{type(conv).__name__}: {error}") from error
        if given.pop("edge_index", None) is not _EDGES:
            raise Refused(f"{type(conv).__name__} on other edges than the data's")
        source = rows(given.pop("x", None))
        given = {name: value for name, value in given.items() if value is not None}
        field = given.pop("edge_weight", given.pop("edge_attr", None))
        if given or not (field is None or isinstance(field, _Field)):
            raise Refused(f"{type(conv).__name__} with {', '.join(given) or 'computed edge weights'}")
        return Rows(layers.convolution(self, conv, source, None if field is None else str(field)))


def _traced(module: nn.Module, names: set[str]) -> fx.Graph:
    """The module's forward; parameters that are not given keep their defaults.

    Raises:
        Refused: ``torch.fx`` cannot follow it.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    fixed = {p.name: p.default for p in parameters if p.name not in names and p.default is not p.empty}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants that fx cannot assert
            return _Tracer().trace(module, concrete_args=fixed)
    except Exception as error:  # whatever a forward raises when it meets a proxy: it has no trace, and no fast path
        raise Refused(f"torch.fx cannot trace {type(module).__name__}: {obstacle(error)}") from error


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on: checks that forward makes beside it are left out."""
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    found, waiting = {output}, [output]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _attribute(module: nn.Module, path: str) -> Tensor:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name)
    if not isinstance(found, Tensor):
        raise Refused(f"forward reads {path}")
    return found
