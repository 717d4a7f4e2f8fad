"""Graphs as states: the class of each pair of nodes, and of each node, drawn anew and brought back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from explain.diffusion.categorical import Categorical, drawn


class State(NamedTuple):
    """Nodes ``[rows, n, a]`` and pairs ``[rows, n, n, b]``: one-hot, probabilities, or uniform noise of that shape."""

    nodes: Tensor
    pairs: Tensor

    def repeated(self, count: int) -> State:
        """All rows ``count`` times, one whole after the other."""
        return State(*(part.repeat(count, *[1] * (part.dim() - 1)) for part in self))

    def chosen(self, present: State, other: State) -> State:
        """These entries where ``present`` (bool, without classes) says so, the other ones elsewhere."""
        parts = zip(present, self, other, strict=True)
        return State(*(torch.where(own[..., None], mine, its) for own, mine, its in parts))


class Presence(NamedTuple):
    """What is there of each row, bool.

    Args:
        nodes: types of nodes ``[rows, n]``.
        pairs: ``[rows, n, n]``.
        edge_types: the classes of edges that are there, ``[rows, n, n]``.
        looks: at which steps of a run the network is asked, ``[rows, steps]``.
        guided: at which it is guided, ``[rows, steps]``.
        conditions: entries of the condition, ``[rows, entries]``.
    """

    nodes: Tensor
    pairs: Tensor
    edge_types: Tensor
    looks: Tensor
    guided: Tensor
    conditions: Tensor

    @classmethod
    def whole(cls, rows: int, n: int, steps: int, entries: int, device: torch.device) -> Presence:
        """All of it."""
        shapes = ((n,), (n, n), (n, n), (steps,), (steps,), (entries,))
        return cls(*(torch.ones(rows, *shape, dtype=torch.bool, device=device) for shape in shapes))

    def repeat_interleaved(self, count: int) -> Presence:
        """Each row ``count`` times, one after the other."""
        return Presence(*(part.repeat_interleave(count, 0) for part in self))


class Stand(NamedTuple):
    """What stands where an entry is absent: a draw of the limit, and of the limit among edges, ``[rows, n, n, b]``."""

    entries: State
    edges: Tensor

    def repeated(self, count: int) -> Stand:
        """All rows ``count`` times, one whole after the other."""
        return Stand(self.entries.repeated(count), self.edges.repeat(count, 1, 1, 1))

    def beside(self, state: State, present: Presence) -> State:
        """The entries of ``state`` that are present, and this elsewhere; an edge that lost its class stays an edge."""
        found = state.chosen(State(present.nodes, present.pairs), self.entries)
        another = ~present.edge_types & (found.pairs[..., 0] == 0)
        return State(found.nodes, torch.where(another[..., None], self.edges, found.pairs))


@dataclass(frozen=True, eq=False)
class GraphNoise:
    """Noise on a graph: each pair of nodes by itself, and each node where nodes have types. See `Categorical`.

    Pairs are undirected: ``(i, j)`` and ``(j, i)`` are one entry. Class 0 of a pair is no edge; a node is none to
    itself.

    Args:
        edges: of the pairs.
        nodes: of the types of nodes; None where all are alike.

    Raises:
        TypeError: one of them is no `Categorical`.
        ValueError: they have another number of steps.

    >>> noise = GraphNoise(Categorical.marginal(torch.full((10,), 0.2), torch.tensor([7, 3])))
    >>> noise.steps, noise.classes
    (10, (1, 2))
    """

    edges: Categorical
    nodes: Categorical | None = None

    def __post_init__(self) -> None:
        for part in (self.edges, *([] if self.nodes is None else [self.nodes])):
            if not isinstance(part, Categorical):
                raise TypeError(f"the noise of a graph is made of Categorical, got {type(part).__name__}")
            if part.steps != self.edges.steps:
                raise ValueError(f"nodes and edges must have the same steps, got {part.steps} and {self.edges.steps}")

    @property
    def steps(self) -> int:
        """``T``."""
        return self.edges.steps

    @property
    def classes(self) -> tuple[int, int]:
        """Types of nodes, and classes of pairs."""
        return 1 if self.nodes is None else self.nodes.classes, self.edges.classes

    def draw(self, n: int, generator: torch.Generator, like: Tensor) -> State:
        """Uniform noise for one graph of ``n`` nodes, ``rows = 1``, the same for both directions of a pair."""
        a, b = self.classes
        nodes = torch.rand(1, n, a, generator=generator, dtype=torch.float64)
        pairs = torch.rand(1, n, n, b, generator=generator, dtype=torch.float64)
        upper = torch.ones(n, n, dtype=torch.bool).triu(1)[None, ..., None]
        return State(nodes.to(like), torch.where(upper, pairs, pairs.transpose(1, 2)).to(like))

    def _whole(self, pairs: Tensor) -> Tensor:
        """Without an edge from a node to itself."""
        none = torch.zeros_like(pairs)
        none[..., 0] = 1
        return torch.where(
            torch.eye(pairs.size(1), dtype=torch.bool, device=pairs.device)[None, ..., None], none, pairs
        )

    def noised(self, clean: State, noise: State, t: int | Tensor) -> State:
        """A draw of ``q(G_t | G_0)``, at one step or at those of the rows ``[rows]``."""
        nodes = clean.nodes if self.nodes is None else self.nodes.noised(clean.nodes, noise.nodes, t)
        return State(nodes, self._whole(self.edges.noised(clean.pairs, noise.pairs, t)))

    def absent(self, noise: State) -> State:
        """A draw of the limit."""
        nodes = torch.ones_like(noise.nodes) if self.nodes is None else self.nodes.absent(noise.nodes)
        return State(nodes, self._whole(self.edges.absent(noise.pairs)))

    @property
    def tells_edges_apart(self) -> bool:
        """Whether the limit has several classes of edges."""
        return int((self.edges.limit[1:] > 0).sum()) > 1

    def stand(self, noise: State) -> Stand:
        """What stands where an entry is absent. With the same noise a draw that is an edge has the same class in both.

        Where the limit has no edge, as of a mask, no class of an edge can be drawn: the draw of the limit itself.
        """
        absent, classes = self.absent(noise), self.edges.limit.index_fill(0, torch.tensor([0]), 0.0)
        if not float(classes.sum()) > 0:
            return Stand(absent, absent.pairs)
        among = (classes / classes.sum()).to(noise.pairs).expand_as(noise.pairs)
        return Stand(absent, drawn(among, noise.pairs))

    def limit(self, like: State) -> State:
        """The limit itself, as probabilities."""
        nodes = like.nodes if self.nodes is None else self.nodes.limit.to(like.nodes).expand_as(like.nodes)
        return State(nodes, self.edges.limit.to(like.pairs).expand_as(like.pairs))

    def step(self, state: State, p: State, t: int, noise: State) -> State:
        """A draw of ``p(G_{t-1} | G_t)``, by the mixture of DiGress."""
        nodes = state.nodes if self.nodes is None else drawn(self.nodes.reverse(state.nodes, p.nodes, t), noise.nodes)
        return State(nodes, self._whole(drawn(self.edges.reverse(state.pairs, p.pairs, t), noise.pairs)))

    def divergence(self, state: State, clean: State, p: State, t: int) -> tuple[Tensor, Tensor]:
        """``L_{t-1}`` in nats of each node ``[rows, n]`` and pair ``[rows, n, n]``, 0 on the diagonal."""
        pairs = self.edges.divergence(state.pairs, clean.pairs, p.pairs, t)
        off = ~torch.eye(pairs.size(1), dtype=torch.bool, device=pairs.device)
        nodes = torch.zeros_like(state.nodes[..., 0])
        if self.nodes is not None:
            nodes = self.nodes.divergence(state.nodes, clean.nodes, p.nodes, t)
        return nodes, torch.where(off, pairs, 0.0)

    def prior_divergence(self, clean: State) -> tuple[Tensor, Tensor]:
        """``L_T`` in nats of each node and pair."""
        pairs = self.edges.prior_divergence(clean.pairs)
        nodes = torch.zeros_like(clean.nodes[..., 0])
        return nodes if self.nodes is None else self.nodes.prior_divergence(clean.nodes), pairs


def read_graph(graph: Any, classes: tuple[int, int], like: Tensor) -> State:
    """A clean graph as a state of one row.

    Args:
        graph: ``Data`` with ``edge_index`` (``edge_attr`` int64 ``[E]`` for classes of edges other than 1, ``x`` int64
            ``[n]`` or one-hot for types of nodes), classes of pairs int64 ``[n, n]``, or types ``[n]`` and these.
        classes: types of nodes, and classes of pairs.
        like: of which dtype and device.

    Raises:
        TypeError: nothing of the kind.
        ValueError: directed edges, edges of a node to itself, or classes that are not there.
    """
    types, pairs = _of_data(graph) if isinstance(graph, Data) else graph if isinstance(graph, tuple) else (None, graph)
    if not isinstance(pairs, Tensor) or pairs.dim() != 2 or pairs.size(0) != pairs.size(1) or pairs.is_floating_point():
        got = f"{pairs.dtype} {list(pairs.shape)}" if isinstance(pairs, Tensor) else type(pairs).__name__
        raise TypeError(
            "a graph is a torch_geometric Data, the class of each pair int64 [n, n] (0 for no edge), or (types of "
            f"nodes int64 [n], classes of pairs); got {got}"
        )
    n = len(pairs)
    types = torch.zeros(n, dtype=torch.long) if types is None else types
    if types.dim() == 2:
        types = types.argmax(1)
    if not torch.equal(pairs, pairs.T) or bool(pairs.diagonal().any()):
        raise ValueError("pairs must be undirected, [i, j] as [j, i], and no node an edge to itself")
    for what, values, count in (("types of nodes", types, classes[0]), ("classes of pairs", pairs, classes[1])):
        if len(values) != n or int(values.min()) < 0 or int(values.max()) >= count:
            raise ValueError(f"{what} must be from 0 to {count - 1}, got {int(values.min())} to {int(values.max())}")
    return State(F.one_hot(types.long(), classes[0]).to(like)[None], F.one_hot(pairs.long(), classes[1]).to(like)[None])


def _of_data(graph: Data) -> tuple[Tensor | None, Tensor]:
    n = int(graph.num_nodes)
    pairs = torch.zeros(n, n, dtype=torch.long)
    held = graph.get("edge_attr")
    labelled = held is not None and held.dim() == 1 and not held.is_floating_point()
    pairs[graph.edge_index[0], graph.edge_index[1]] = held if labelled else 1
    return graph.get("x"), pairs
