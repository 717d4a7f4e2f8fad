"""Graph networks with weights set by hand: what they use is known, not learned."""

from __future__ import annotations

import random
from collections.abc import Sequence

import networkx as nx
import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import SimpleConv

from models.motifs import Benchmark

HOUSE = ((3, 4), (1, 2), (3, 1), (4, 2), (1, 0), (2, 0))  # messages from the floor up to the roof, 0
CYCLE = ((2, 1), (1, 0), (2, 3), (3, 4), (4, 0))  # both ways around five nodes, from 2 to the root, 0


class Planted(nn.Module):
    """1 at a root node whose coloured motif is complete, 0 at any other: an AND over the motif's ``q`` messages.

    Nodes of the motif have colours, the columns of ``x``, and its messages form a directed acyclic graph into the root.
    A vertex of colour ``v`` is on once a neighbour of each colour that sends to ``v`` is on::

        h_v <- on(x_v + sum over w in into(v) of on(sum over neighbours of h_w) - |into(v)|)
        on(z) = min(max(z, 0), 1)

    a sum aggregation and two ReLUs, as in GIN (Xu et al. 2019), with one layer a level of the motif. So each of the
    ``q`` edges has the Shapley value ``1/q`` exactly, every other edge 0, and the true edges rank first.

    Args:
        motif: pairs ``(from colour, to colour)``; colour 0 is the root.

    >>> x, path = torch.eye(3), torch.tensor([[2, 1], [1, 0]])
    >>> Planted(((2, 1), (1, 0)))(x, path)[:, 1].detach()
    tensor([1., 0., 0.])
    """

    def __init__(self, motif: Sequence[tuple[int, int]] = HOUSE) -> None:
        super().__init__()
        graph = nx.DiGraph(motif)
        colours = len(graph)
        into = torch.zeros(colours, colours)
        for source, target in motif:
            into[source, target] = 1
        levels = nx.dag_longest_path_length(graph)
        self.sources = nn.Parameter((into.sum(0) == 0).float())
        self.into = nn.Parameter(into)
        self.layers = nn.ModuleList(SimpleConv(aggr="sum") for _ in range(levels))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Colours ``[nodes, colours]`` and edges ``[2, edges]`` to logits ``[nodes, 2]``, 1/2 and the motif."""
        x = x[:, : len(self.into)]
        h = x * self.sources
        for layer in self.layers:
            heard = _on(layer(h, edge_index))
            fired = _on(x + heard @ self.into - self.into.sum(0))
            h = torch.maximum(fired * (1 - self.sources), x * self.sources)
        return torch.stack([torch.full_like(h[:, 0], 0.5), h[:, 0]], 1)


def _on(z: Tensor) -> Tensor:
    return z.relu() - (z - 1).relu()


def planted(
    motif: Sequence[tuple[int, int]] = HOUSE, *, name: str = "planted", seed: int = 0, nodes: int = 40, roots: int = 6
) -> Benchmark:
    """Complete motifs on a random graph that a `Planted` network finds; the edges of a root's motif are the truth.

    The other nodes have no colour, so that nothing but the motif can matter. Edges run in both directions.
    """
    rng = random.Random(seed)
    colours = 1 + max(max(pair) for pair in motif)
    base = nx.barabasi_albert_graph(nodes, 2, seed=seed)
    edges, rows, targets, truths = list(base.edges), [np.zeros(colours)] * nodes, [], []
    for _ in range(roots):
        start = len(rows)
        targets.append(start)
        truths.append({(start + u, start + v) for u, v in motif})
        edges += [(start + u, start + v) for u, v in motif]
        for vertex in range(colours):
            edges.append((start + vertex, rng.randrange(nodes)))
            rows.append(np.eye(colours)[vertex])
    both = sorted({*edges, *((v, u) for u, v in edges)})
    x = torch.tensor(np.stack(rows), dtype=torch.float32)
    y = torch.zeros(len(rows), dtype=torch.long)
    y[targets] = 1
    data = Data(x=x, edge_index=torch.tensor(both).t().contiguous(), y=y)
    masks = {root: torch.tensor([edge in truth for edge in both]) for root, truth in zip(targets, truths, strict=True)}
    return Benchmark(name, "node", data, "edges", lambda i: masks[i], targets)
