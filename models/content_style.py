"""The controlled motif and style benchmark (Trivedi et al. 2022): a class is a motif, all else in a graph is style."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data

FEATURES = 10  # the same for every node: only structure tells

# six classes of 6 to 8 nodes and 7 to 12 edges, two and two nearly the same
_HEXAGON = [(i, (i + 1) % 6) for i in range(6)]
_OCTAGON = [(i, (i + 1) % 8) for i in range(8)]
MOTIFS: dict[str, list[tuple[int, int]]] = {
    "A": [*_HEXAGON, (0, 3)],
    "B": [*_HEXAGON, (0, 2)],
    "C": [*_HEXAGON, *((6, i) for i in range(6))],  # a wheel
    "D": [*_HEXAGON, *((6, i) for i in range(5))],  # less one spoke
    "E": [*_OCTAGON, *((i, i + 4) for i in range(4))],
    "F": [*_OCTAGON, (0, 3), (1, 6), (2, 5), (4, 7)],
}


def content_style(
    graphs: int = 100, ratio: float = 1.0, motifs: Sequence[str] = tuple(MOTIFS), seed: int = 0
) -> list[Data]:
    """Graphs ``y`` of each class in turn, with ``content [edges]`` and ``content_nodes [nodes]`` as the truth.

    One or two copies of the motif, each in the place of a node of a random tree with ``floor(copies * (motif nodes -
    1) * ratio)`` nodes, and -2 to +1 of them, two or more. Every node has the same ten features.

    Args:
        graphs: how many, the classes in turn.
        ratio: of style to content, 1 to 8 in the paper.
        motifs: names of classes.
        seed: of copies, trees and places.

    Raises:
        ValueError: a ratio that is not above 0, or an unknown motif.

    >>> graph = content_style(1, ratio=2.0)[0]
    >>> int(graph.content.sum()) % (2 * len(MOTIFS["A"])), graph.x.shape[1]
    (0, 10)
    """
    if not ratio > 0 or not set(motifs) <= set(MOTIFS):
        raise ValueError(f"ratio must be above 0 and motifs some of {', '.join(MOTIFS)}, got {ratio} and {motifs}")
    generator = torch.Generator().manual_seed(seed)
    return [_graph(MOTIFS[motifs[i % len(motifs)]], i % len(motifs), ratio, generator) for i in range(graphs)]


def without_any(graph: Data, generator: torch.Generator, rate: float = 0.2) -> Data:
    """The generic augmentation, of a graph or a batch: each edge goes with probability ``rate``, content or style."""
    return _dropped(graph, torch.ones_like(graph.content), generator, rate)


def without_style(graph: Data, generator: torch.Generator, rate: float = 0.2) -> Data:
    """The content-aware augmentation: each edge of style goes with probability ``rate``, and no other."""
    return _dropped(graph, ~graph.content, generator, rate)


def _graph(motif: list[tuple[int, int]], label: int, ratio: float, generator: torch.Generator) -> Data:
    copies = _drawn(1, 3, generator)
    size = 1 + max(max(edge) for edge in motif)
    style = max(2, int(copies * (size - 1) * ratio) + _drawn(-2, 2, generator))
    tree = nx.random_labeled_tree(style, seed=_drawn(0, 2**31, generator))
    hosts = torch.randperm(style, generator=generator)[:copies].tolist()
    edges, content, nodes = list(tree.edges), [False] * (style - 1), [False] * style
    for host in hosts:  # the motif's first node takes the host's place
        names = [host, *range(len(nodes), len(nodes) + size - 1)]
        edges += [(names[a], names[b]) for a, b in motif]
        content += [True] * len(motif)
        nodes += [True] * (size - 1)
        nodes[host] = True
    pairs = torch.tensor(edges)
    return Data(
        x=torch.ones(len(nodes), FEATURES),
        edge_index=torch.stack([pairs, pairs.flip(1)], 1).view(-1, 2).T.contiguous(),  # both ways, side by side
        y=torch.tensor([label]),
        content=torch.tensor(content).repeat_interleave(2),
        content_nodes=torch.tensor(nodes),
    )


def _dropped(graph: Data, may: Tensor, generator: torch.Generator, rate: float) -> Data:
    pairs = graph.edge_index.size(1) // 2
    gone = (torch.rand(pairs, generator=generator) < rate).repeat_interleave(2) & may
    kept = graph.clone()
    kept.edge_index, kept.content = graph.edge_index[:, ~gone], graph.content[~gone]
    return kept


def _drawn(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))
