"""What is computed from the edges of a graph: degrees, steps of a walk, Laplacians, hops; linear in edges and nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from explain.graph.tensors.structure import EDGE, NODE, Structure, says_graphs

Step: TypeAlias = Callable[[Tensor], Tensor]  # ``[nodes, columns]`` to the same


@dataclass(frozen=True, eq=False)
class Wiring:
    """Edges ``source, target [edges]`` between ``nodes``, their ``weights`` in float64, and the graph of each node."""

    source: Tensor
    target: Tensor
    weights: Tensor
    nodes: int
    graph_of: Tensor

    def passed(self, values: Tensor, into: bool = True) -> Tensor:
        """``A^T v``: what each node is sent along its edges; ``A v`` against them; ``[nodes, ...]``."""
        here, there = (self.source, self.target) if into else (self.target, self.source)
        weights = self.weights.view(-1, *[1] * (values.dim() - 1))
        return torch.zeros_like(values).index_add_(0, there, weights * values[here])

    def degree(self, into: bool = True) -> Tensor:
        """Weights of the edges into, or out of, each node, ``[nodes]``."""
        return self.passed(self.weights.new_ones(self.nodes), into)

    def ranges(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value at the ends of the edges out of each node, 0 for none; ``[nodes]``."""
        sent, blank = values[self.target], torch.zeros_like(values)
        low, high = (blank.scatter_reduce(0, self.source, sent, how, include_self=False) for how in ("amin", "amax"))
        return low, high

    def by_graph(self, values: Tensor) -> Tensor:
        """Sums over the nodes of each graph, ``[graphs, columns]``."""
        return values.new_zeros(int(self.graph_of.max()) + 1, values.size(1)).index_add_(0, self.graph_of, values)

    @cached_property
    def symmetric(self) -> bool:
        """Whether each edge goes back as well, with its weight."""
        ways = [(a * self.nodes + b).sort() for a, b in ((self.source, self.target), (self.target, self.source))]
        same = torch.equal(ways[0].values, ways[1].values)
        return same and torch.equal(self.weights[ways[0].indices], self.weights[ways[1].indices])

    @property
    def looped(self) -> Wiring:
        """The same with a loop of weight 1 at each node that has none."""
        own = self.source[self.source == self.target]
        bare = torch.ones(self.nodes, dtype=torch.bool, device=own.device).index_fill(0, own, False).nonzero().view(-1)
        weights = torch.cat([self.weights, self.weights.new_ones(len(bare))])
        return replace(
            self,
            source=torch.cat([self.source, bare]),
            target=torch.cat([self.target, bare]),
            weights=weights,
        )

    @property
    def unlooped(self) -> Wiring:
        """The same without loops."""
        kept = self.source != self.target
        return replace(self, source=self.source[kept], target=self.target[kept], weights=self.weights[kept])

    @cached_property
    def steps(self) -> tuple[tuple[str, Step], ...]:
        """The matrices that features are multiplied with, by name; ``A`` has the weight of ``u -> v`` at ``[v, u]``.

        Along the edges, then against them; as they are, then with loops, ``A + I``.
        """
        made: list[tuple[str, Step]] = []
        for wires, name in ((self, "A"), (self.looped, "(A + I)")):
            for into, own in ((True, name), (False, f"{name}^T")):
                if not into and self.symmetric:
                    continue
                degree = wires.degree(into)[:, None]
                root = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), 0.0)
                made += [
                    (own, _step(wires, into)),
                    (f"D^-1 {own}", _step(wires, into, after=root.square())),
                    (f"D^-1/2 {own} D^-1/2", _step(wires, into, before=root, after=root)),
                ]
        return tuple(made)

    def laplacians(self) -> Iterator[tuple[str, Step]]:
        """The graph's Laplacians by name, without loops, as torch_geometric's ``get_laplacian`` makes them."""
        wires = self.unlooped
        degree = wires.degree(into=False)[:, None]
        root = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), 0.0)
        symmetric, walk = _step(wires, False, before=root, after=root), _step(wires, False, after=root.square())
        plain = _step(wires, False)
        yield "normalised", lambda v: v - symmetric(v)
        yield "unnormalised", lambda v: degree * v - plain(v)
        yield "random-walk", lambda v: v - walk(v)

    def hops(self, node: int) -> Tensor:
        """Steps along the edges from a node to each, -1 where no path leads; int64 ``[nodes]``."""
        found = torch.full((self.nodes,), -1, device=self.source.device)
        found[node] = 0
        for hop in range(1, self.nodes):
            near = self.target[found[self.source] == hop - 1]
            near = near[found[near] < 0]
            if not len(near):
                break
            found[near] = hop
        return found


def wiring(graph: Structure, weights: Tensor | None = None) -> Wiring:
    """The edges of a homogeneous graph, each of weight 1 unless ``weights [edges]`` are given."""
    source, target = graph.edges[EDGE]
    given = torch.ones(len(source), device=source.device) if weights is None else weights.detach().reshape(-1)
    batch = graph.nodes[NODE].get("batch")
    one = torch.zeros(graph.num_nodes, dtype=torch.long, device=source.device)
    return Wiring(
        source, target, given.double(), graph.num_nodes, batch if batch is not None and says_graphs(batch) else one
    )


def _step(wires: Wiring, into: bool, before: Tensor | float = 1.0, after: Tensor | float = 1.0) -> Step:
    return lambda values: after * wires.passed(before * values, into)
