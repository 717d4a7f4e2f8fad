"""The user's denoiser of labels as ``(graph, y_t, t) -> prediction``, and what is proved of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

from explain.draws import seeded_by_input, seeded_remedy
from explain.guard import evaluating, other_random_states
from explain.plain import plain_operations
from explain.spelling import came
from explain.types import NonFinite, Parameters

STATES = (
    *("y_t", "yt", "y_noisy", "noisy_y", "noisy_labels", "labels_t", "label_t", "y", "labels", "label"),
    *("x_t", "xt", "z_t", "zt", "state", "z"),
)
TIMES = ("t", "time", "timestep", "timesteps", "time_step", "ts", "step", "steps")
_ALSO = {"features": "x", "feats": "x", "feat": "x", "h": "x", "edges": "edge_index", "ei": "edge_index"}
UNITS = ("step", "unit")
_FORMS = ("one for all", "one a graph", "one a node", "a number")
Call = Callable[[Any, Data, Tensor, Tensor], Any]


class LabelNetwork:
    """``(graph, y_t [rows, C], t) -> [rows, C]`` around a user's network, on any number of copies of a graph.

    Args:
        net: the network.
        module: the network as a module, see `as_module`.
        graph: the graph that it was trained on.
        classes: ``C``.
        steps: ``T``.
        time: "step" (``t`` as the schedule counts it), "unit" (``t / T``), or a function of the step.
        call: the user's own call, ``(net, graph, y_t, t) -> prediction``; by the names of forward's arguments if None.

    Raises:
        TypeError: forward has an argument that nobody can name, or the unit of its time is not known.
        ValueError: an unknown unit.
    """

    def __init__(
        self,
        net: Any,
        module: nn.Module,
        graph: Data,
        classes: int,
        steps: int,
        time: str | Callable[[Tensor], Tensor] | None,
        call: Call | None,
    ) -> None:
        self.net, self.module, self.classes, self.steps = net, module, classes, steps
        self.nodes = int(graph.num_nodes)
        self.assumed: dict[str, str] = {}
        self.arguments = None if call is not None else self._named(graph)
        self._call = call
        self._asking = Asking(module, self._answered)
        if time is None and call is None:
            raise TypeError(
                f"in which unit does {_name(net)} take its time? Say time='step' (the steps of the schedule), "
                "time='unit' (t / T), or a function of the step t"
            )
        if time is not None and not callable(time) and time not in UNITS:
            raise ValueError(
                f"time must be one of {', '.join(UNITS)}, or a function of the step t, {came(time, UNITS)}"
            )
        self.time = time or "step"
        self.forms: list[str] = list(_FORMS)  # how the time may be given
        self.rows = self.forms[0]

    def _named(self, graph: Data) -> dict[str, str]:
        """For each argument of forward: "state", "time", or a field of the graph.

        Raises:
            TypeError: an argument that cannot be told.
        """
        own = "give your own call, call=lambda net, graph, y_t, t: net(graph.x, y_t, t, graph.edge_index)"
        try:
            forward = self.net.forward if isinstance(self.net, nn.Module) else self.net
            parameters = list(inspect.signature(forward).parameters.values())
        except (TypeError, ValueError) as error:
            raise TypeError(f"the arguments of {_name(self.net)} cannot be read: {own}") from error
        names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        state = next((name for name in STATES if name in names), None)
        time = next((name for name in TIMES if name in names), None)
        if state is None or time is None:
            lacks = "the noised labels" if state is None else "the time"
            raise TypeError(f"which of {_name(self.net)}'s arguments ({', '.join(names)}) takes {lacks}? Else {own}")
        found = {state: "state", time: "time"}
        left = []
        for p in parameters:
            field = _ALSO.get(p.name, p.name)
            if p.name in found or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            held = graph.get(field)
            if field not in ("edge_index", "batch") and _holds_the_edges(held, graph.edge_index, self.nodes):
                raise TypeError(
                    f"{field!r} holds the edges again, and those that are taken away are taken from edge_index: {own}, "
                    f"with {p.name} made of graph.edge_index"
                )
            if field == "batch" or held is not None:
                found[p.name] = field
            elif p.default is p.empty:
                raise TypeError(
                    f"what is {p.name!r} of {_name(self.net)}? The graph has {', '.join(graph.keys())}: {own}"
                )
            else:
                left.append(p.name)
        self.assumed["arguments"] = ", ".join(
            f"{name} = {'the noised labels' if field == 'state' else 'the time' if field == 'time' else field}"
            for name, field in found.items()
        )
        if left:
            self.assumed["arguments"] += f"; at their defaults: {', '.join(left)}"
        return found

    def _given_time(self, t: int, nodes: int, like: Tensor) -> Tensor:
        count = {"one a node": nodes, "one a graph": nodes // self.nodes}.get(self.rows, 1)
        step = torch.full((count,), t, device=like.device)
        if callable(self.time):
            return self.time(step)
        found = step if self.time == "step" else (step.double() / self.steps).to(like)
        return found[0] if self.rows == "a number" else found

    def _answered(self, graph: Data, y: Tensor, time: Tensor) -> Any:
        if self._call is not None:
            return self._call(self.net, graph, y, time)
        assert self.arguments is not None
        given = {"state": y, "time": time}
        return self.net(**{n: given[field] if field in given else graph[field] for n, field in self.arguments.items()})

    def __call__(self, graph: Data, y: Tensor, t: int, params: Parameters | None = None) -> Tensor:
        """The network's answer at step ``t`` to labels ``y [rows, C]`` of a union of copies, with ``params`` if given.

        Raises:
            ValueError: an answer of another shape.
        """
        answer = self._asking.answer(params, graph, y, self._given_time(t, len(y), y))
        if not isinstance(answer, Tensor) or answer.shape != y.shape:
            got = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ValueError(f"the denoiser must answer one row a node, {list(y.shape)}, got {got}")
        return answer

    def tried(self, graph: Data, y: Tensor, t: int) -> None:
        """One call: with a time for all nodes, one a node, or as a number, whatever the network takes first.

        Raises:
            ValueError: it cannot be called so, in words, or answers otherwise with the same time in another form.
            NonFinite: NaN or infinity.
            OutOfMemoryError: as torch raises it.
        """
        answers, failures = {}, []
        for form in _FORMS:
            self.rows = form
            try:
                with torch.no_grad(), other_random_states(0), evaluating(self.module):
                    answers[form] = self(graph, y, t)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a user's forward raises
                failures.append(f"{form}: {type(error).__name__}: {error}")
        if not answers:
            raise ValueError(
                f"the denoiser cannot be called with y_t {list(y.shape)} and t (tried {'; '.join(failures)}): give "
                "your own call, call=lambda net, graph, y_t, t: ..., with t a step, int64 [1] or [n]"
            )
        self.forms = list(answers)
        self.rows, answer = next(iter(answers.items()))
        if any(not torch.allclose(answer, other, rtol=1e-3, atol=1e-5) for other in answers.values()):
            raise ValueError(
                f"the denoiser answers otherwise with the same t {' and '.join(answers)}: give your own call, "
                "call=lambda net, graph, y_t, t: ..."
            )
        if not bool(answer.isfinite().all()):
            raise NonFinite("the denoiser answers NaN or infinity here: check its weights, or its half precision")

    @torch.no_grad()
    def batched(self, both: Data, alone: list[Data], y: Tensor, t: int) -> bool:
        """Whether two copies side by side are answered as each by itself, with the time in some form.

        A network of a fixed number of nodes, or one that looks at all nodes of its batch, answers otherwise or not.

        Raises:
            ValueError: two calls on the same labels differ, or what is drawn is seeded by them.
        """
        one, first = alone[0], y.chunk(2)[0]
        apart, again = (self._both(alone, y, t, seed) for seed in (0, 1))
        scale = float(apart.abs().max())
        if not torch.allclose(apart, again, rtol=1e-3, atol=1e-5 * scale):
            raise ValueError("the denoiser is not deterministic: two calls in eval mode differ")
        with evaluating(self.module):
            if seeded_by_input(lambda: self(one, first, t), lambda: self(one, 1.01 * first, t)):
                raise ValueError(seeded_remedy("each step of each coalition"))
        for form in self.forms:
            self.rows = form
            try:
                with other_random_states(0), evaluating(self.module):
                    together = self(both, y, t)
            except (RuntimeError, IndexError, ValueError):
                continue
            if torch.allclose(together, apart, rtol=1e-3, atol=1e-4 * scale):
                return True
        self.rows = self.forms[0]
        return False

    def _both(self, alone: list[Data], y: Tensor, t: int, seed: int) -> Tensor:
        """The answers to each copy by itself, one below the other."""
        with other_random_states(seed), evaluating(self.module):
            return torch.cat([self(one, part, t) for one, part in zip(alone, y.chunk(2), strict=True)])


class Asking(nn.Module):
    """A call around a network, so that parameters may be replaced wherever in it the network is asked."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *given: Any) -> Any:
        """As the call answers."""
        return self.call(*given)

    def answer(self, params: Parameters | None, *given: Any) -> Any:
        """With other parameters of the network, in operations that may be differentiated twice; its own when None."""
        if params is None:
            return self.call(*given)
        with plain_operations(self.module):
            return functional_call(self, {f"module.{name}": value for name, value in params.items()}, given)


class _Function(nn.Module):
    """A function as a module, which explainers put back as they found it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Any, **named: Any) -> Any:
        """As the function answers."""
        return self.function(*given, **named)


def _holds_the_edges(value: Any, edge_index: Tensor, nodes: int) -> bool:
    """Whether this is an adjacency matrix, sparse, of a library of its own, or dense with its entries at the edges."""
    if not isinstance(value, Tensor):
        return type(value).__name__ in ("SparseTensor", "EdgeIndex", "Adj")
    if value.layout != torch.strided:
        return value.shape == (nodes, nodes)
    if value.shape != (nodes, nodes):
        return False
    edges = torch.zeros(nodes, nodes, dtype=torch.bool, device=edge_index.device)
    edges[edge_index[0], edge_index[1]] = True
    off = ~torch.eye(nodes, dtype=torch.bool, device=edges.device)
    filled = (value != 0).to(edges.device) & off
    edges &= off
    return bool(edges.any()) and (torch.equal(filled, edges) or torch.equal(filled, edges.T))


def as_module(net: Any) -> nn.Module:
    """The network, a function as a module that answers as it does."""
    return net if isinstance(net, nn.Module) else _Function(net)


def _name(net: Any) -> str:
    return type(net).__name__ if isinstance(net, nn.Module) else getattr(net, "__name__", type(net).__name__)
