"""The user's denoiser of graphs as ``(state, t) -> probabilities of the clean graph``, and what is proved of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.draws import seeded_by_input, seeded_remedy
from explain.graph_diffusion.conditions import CONDITIONS, Given, read
from explain.graph_diffusion.graph_losses import GraphLoss
from explain.graph_diffusion.graph_states import GraphNoise, State
from explain.graph_diffusion.network import TIMES, UNITS, Asking, as_module
from explain.guard import evaluating, other_random_states
from explain.spelling import came
from explain.types import NonFinite, Parameters

_PAIRS = ("E", "E_t", "e", "e_t", "edges", "edge_types", "adj", "adjacency", "A", "A_t")
_NODES = ("X", "X_t", "x", "x_t", "nodes", "node_types")
_PLAIN = 4  # arguments of the user's own call that takes no condition
_OWN_CONDITION = "name its argument, condition=, or give your own call, call=lambda net, X, E, t, condition: ..."
_OWN = "give your own call, call=lambda net, X, E, t: ..., with its logits of nodes and pairs (or of pairs alone)"


class GraphDenoiser:
    """A denoiser of graphs with its noise; see `GraphDiffusionModel` for the settings.

    Args:
        net: the network.
        process: the noise.
        time: "step" (1 to ``T``), "unit" (``t / T``) or a function of the steps ``[rows]``.
        call: the user's own call; one with an argument more takes a condition.
        trained: what it was trained with.
        condition: the argument that takes a condition, where its name does not say.
        null: what stands for no condition.

    Raises:
        TypeError: a process of another kind, a network whose arguments or unit of time cannot be told, or a null
            of one that takes no condition.
        ValueError: an unknown unit.
    """

    def __init__(
        self,
        net: Any,
        process: Any,
        time: str | Callable[[Tensor], Tensor] | None,
        call: Callable[..., Any] | None,
        trained: GraphLoss,
        condition: str | None = None,
        null: Any = None,
    ) -> None:
        if not isinstance(process, GraphNoise):
            raise TypeError(
                "a denoiser of graphs needs process=GraphNoise(edges=Categorical, nodes=Categorical or None), got "
                f"{type(process).__name__}; one of the labels on a graph takes that graph too, wrap(net, graph, ...)"
            )
        if time is None and call is None:
            raise TypeError("in which unit does the network take its time? Say time='step' (1 to T), 'unit' (t / T)")
        if time is not None and not callable(time) and time not in UNITS:
            raise ValueError(f"time must be one of {', '.join(UNITS)}, or a function of the steps, {came(time, UNITS)}")
        self.net, self.module, self.process, self.time = net, as_module(net), process, time or "step"
        self.trained = trained
        self.assumed: dict[str, str] = {}
        self.condition: str | None = None
        self.needs_condition = False
        if call is None:
            call = self._by_name(condition)
        elif len(inspect.signature(call).parameters) > _PLAIN:
            self.condition = list(inspect.signature(call).parameters)[_PLAIN]
            self.needs_condition = inspect.signature(call).parameters[self.condition].default is inspect.Parameter.empty
        if null is not None and self.condition is None:
            raise TypeError(f"this denoiser takes no condition, and null= stands for none: {_OWN_CONDITION}")
        self.null = None if null is None else read(null, self.like)
        self._asking = Asking(self.module, partial(call, net))
        if self.null is not None or not self.needs_condition:
            self.tried(self.null)

    @property
    def like(self) -> Tensor:
        """Of which dtype and device states are: the network's parameters'."""
        found = next(iter(self.module.parameters()), torch.zeros(()))
        return found.detach() if found.is_floating_point() else torch.zeros((), device=found.device)

    def _by_name(self, condition: str | None) -> Callable[..., Any]:
        forward = self.net.forward if isinstance(self.net, nn.Module) else self.net
        parameters = inspect.signature(forward).parameters
        pairs, nodes, time = (next((n for n in names if n in parameters), None) for names in (_PAIRS, _NODES, TIMES))
        own = next((n for n in ((condition,) if condition else CONDITIONS) if n in parameters), None)
        if condition and own is None:
            raise TypeError(f"this denoiser has no argument {condition!r} for a condition: {', '.join(parameters)}")
        self.condition = own
        self.needs_condition = own is not None and parameters[own].default is inspect.Parameter.empty
        roles = {pairs: "pairs", nodes: "nodes", time: "time", own: "condition"}
        unknown = [
            name
            for name, p in parameters.items()
            if name not in roles and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if pairs is None or time is None or unknown:
            raise TypeError(
                f"the arguments ({', '.join(parameters)}) of this denoiser of graphs cannot be told: {_OWN}"
            )
        left = [name for name in parameters if name not in roles]
        said = [f"{pairs} = one-hot pairs", *([f"{nodes} = one-hot nodes"] if nodes else []), f"{time} = the time"]
        said += [f"{own} = the condition, where one is given"] if own else []
        self.assumed["arguments"] = ", ".join(said) + (f"; at their defaults: {', '.join(left)}" if left else "")

        def call(net: Any, X: Tensor, E: Tensor, t: Tensor, c: Tensor | None = None) -> Any:
            return net(**{pairs: E, time: t} | ({nodes: X} if nodes else {}) | ({str(own): c} if c is not None else {}))

        return call

    def __call__(self, state: State, t: int, params: Parameters | None = None, given: Given | None = None) -> State:
        """Probabilities of the clean nodes and pairs, each row by itself; of ``params`` in place of its own.

        Guided, they are ``softmax(u + w (c - u))`` of the logits with the condition and without, which is
        ``p(G_0 | G_t, c)^w p(G_0 | G_t)^(1 - w)`` made to sum to 1, entry by entry (Ho and Salimans 2021; of graphs
        Ninniri et al. 2024).
        """
        steps = torch.full((len(state.pairs),), t, device=state.pairs.device)
        logits = self.logits(state, steps, params, None if given is None else given.condition)
        if given is not None and given.guided:
            without = self.logits(state, steps, params, given.null)
            logits = State(*(torch.lerp(u, c, _like(given.weights, c)) for u, c in zip(without, logits, strict=True)))
        return State(*(part.softmax(-1) for part in logits))

    def logits(
        self, state: State, steps: Tensor, params: Parameters | None = None, condition: Tensor | None = None
    ) -> State:
        """Logits of the clean nodes and pairs at steps ``[rows]``; of nodes that are all alike, zeros.

        Raises:
            ValueError: an answer of another shape.
        """
        time = self.time(steps) if callable(self.time) else steps
        if self.time == "unit":
            time = (steps.double() / self.process.steps).to(state.pairs)
        asked = () if condition is None else (condition,)
        answer = self._asking.answer(params, state.nodes.clone(), state.pairs.clone(), time, *asked)
        answer = (getattr(answer, "X", None), answer.E) if hasattr(answer, "E") else answer
        nodes, pairs = answer if isinstance(answer, tuple) else (None, answer)
        if self.process.nodes is None:
            nodes = torch.zeros_like(state.nodes)
        for what, found, own in (("nodes", nodes, state.nodes), ("pairs", pairs, state.pairs)):
            if not isinstance(found, Tensor) or found.shape != own.shape:
                got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"the denoiser must answer logits of {what} {list(own.shape)}, got {got}: {_OWN}")
        return State(nodes, pairs)

    @torch.no_grad()
    def tried(self, *conditions: Tensor | None) -> None:
        """Ask about two graphs, in one batch and each alone, and twice; with these conditions, where there are some.

        Raises:
            ValueError: it cannot be called, is not deterministic, draws from a seed that its input makes, sees other
                rows, or tells one direction of a pair otherwise than the other.
            NonFinite: NaN or infinity.
            OutOfMemoryError: as torch raises it.
        """
        generator, t = torch.Generator().manual_seed(0), max(1, self.process.steps // 2)
        both = [self.process.absent(self.process.draw(6, generator, self.like)) for _ in range(2)]
        rows = [part for part in conditions if part is not None]
        own = [Given(row[None]) for row in (rows[0], rows[-1])] if rows else [None, None]
        given = Given(torch.stack([rows[0], rows[-1]])) if rows else None
        joined = State(*(torch.cat(parts) for parts in zip(*both, strict=True)))
        answers = []
        for seed in (0, 1):
            try:
                with other_random_states(seed), evaluating(self.module):
                    answers.append(self(joined, t, given=given))
                    each = [self(one, t, given=its) for one, its in zip(both, own, strict=True)]
                    alone = State(*(torch.cat(parts) for parts in zip(*each, strict=True)))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a user's forward raises
                shapes = f"nodes {list(joined.nodes.shape)}, pairs {list(joined.pairs.shape)} and t [2]"
                if given is not None:
                    shapes += f", and {self.condition} {given.condition.dtype} {list(given.condition.shape)}"
                raise ValueError(
                    f"the denoiser cannot be called with {shapes}: {type(error).__name__}: {error}"
                ) from error
        first, again = answers
        if not all(bool(part.isfinite().all()) for part in first):
            raise NonFinite("the denoiser answers NaN or infinity: check its weights")
        for other, what in (
            (again, "is not deterministic: two calls in eval mode differ"),
            (alone, "answers a row of a batch otherwise than alone: rows are coalitions and draws"),
        ):
            if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(first, other, strict=True)):
                raise ValueError(f"the denoiser {what}")
        scaled = State(*(1.01 * part for part in joined))  # two graphs may have the same sum
        with evaluating(self.module):
            if seeded_by_input(lambda: self(joined, t, given=given), lambda: self(scaled, t, given=given)):
                raise ValueError(seeded_remedy("each step of each coalition"))
        if not torch.allclose(first.pairs, first.pairs.transpose(1, 2), rtol=1e-3, atol=1e-4):
            raise ValueError(
                "the denoiser answers otherwise about (i, j) than about (j, i), and pairs are undirected here: "
                "symmetrise its logits in call="
            )


def _like(rows: Tensor | None, values: Tensor) -> Tensor:
    """``[rows]`` shaped to multiply ``values [rows, ...]``."""
    assert rows is not None
    return rows.to(values).view(-1, *[1] * (values.dim() - 1))
