"""Graphs in which it is known what matters: generated motifs (Ying et al. 2019; Luo et al. 2020) and real molecules."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import ExplainerDataset, TUDataset
from torch_geometric.datasets.graph_generator import BAGraph, TreeGraph
from torch_geometric.datasets.motif_generator import CycleMotif, GridMotif, HouseMotif, MotifGenerator

from explain.guard import random_states_kept
from models.datasets import raw_folder

DEGREES = 10  # columns of ones, which is all that these nodes have as features


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Graphs, and who is known to matter in them.

    Args:
        name: as it is asked for.
        task: "node": one graph, ``data``; "graph": a list of them.
        data: with ``x``, ``y``, ``train_mask`` and ``test_mask`` (node task), or one label a graph.
        players: "edges" or "nodes", whom the truth is about.
        truth: ``position of the target -> bool [atoms] or [alternatives, atoms]`` over the edges or nodes of its graph.
        targets: nodes, or graphs, that have a motif to be found.
    """

    name: str
    task: str
    data: Data | list[Data]
    players: str
    truth: Callable[[int], Tensor]
    targets: list[int]


def ba_shapes(seed: int = 0, base: int = 300, motifs: int = 80) -> Benchmark:
    """80 houses on a Barabasi-Albert graph; a node's class is its place in a house: base, bottom, middle, top.

    >>> found = ba_shapes()
    >>> found.data.num_nodes, int(found.truth(found.targets[0]).sum())
    (700, 12)
    """
    return _single("ba_shapes", lambda: (BAGraph(base, 5), HouseMotif()), motifs, seed)


def tree_cycles(seed: int = 0, depth: int = 8, motifs: int = 60) -> Benchmark:
    """Cycles of six nodes on a balanced binary tree; the class is whether a node is in a cycle."""
    return _single("tree_cycles", lambda: (TreeGraph(depth), CycleMotif(6)), motifs, seed)


def tree_grid(seed: int = 0, depth: int = 8, motifs: int = 80) -> Benchmark:
    """Grids of 3 x 3 nodes on a balanced binary tree; the class is whether a node is in a grid."""
    return _single("tree_grid", lambda: (TreeGraph(depth), GridMotif()), motifs, seed)


def ba_community(seed: int = 0, base: int = 300, motifs: int = 80, between: int = 350) -> Benchmark:
    """Two `ba_shapes`, joined at random; normal features tell the communities apart, and there are eight classes."""
    with _seeded(seed):
        halves = [_generated(BAGraph(base, 5), HouseMotif(), motifs) for _ in range(2)]
        size = halves[0].num_nodes
        joins = torch.stack([torch.randint(size, (between,)), size + torch.randint(size, (between,))])
        edge_index = torch.cat([halves[0].edge_index, halves[1].edge_index + size, joins, joins.flip(0)], 1)
        mask = torch.cat([halves[0].edge_mask, halves[1].edge_mask, torch.zeros(2 * between)])
        y = torch.cat([halves[0].y, halves[1].y + 4])
        x = torch.randn(2 * size, DEGREES) + torch.where(torch.arange(2 * size) < size, -1.0, 1.0)[:, None]
        data = _split(Data(x=x, edge_index=edge_index, y=y))
    return _about_motifs("ba_community", data, mask.bool(), (y % 4 > 0).nonzero().view(-1).tolist())


def ba_2motif(seed: int = 0, graphs: int = 400) -> Benchmark:
    """Barabasi-Albert graphs of 20 nodes, half of them with a house and half with a cycle of five, the class."""
    with _seeded(seed):
        motifs = (HouseMotif(), CycleMotif(5))
        found = [(_generated(BAGraph(20, 1), motifs[i % 2], 1), i % 2) for i in range(graphs)]
    data = [Data(x=torch.ones(g.num_nodes, DEGREES), edge_index=g.edge_index, y=torch.tensor([y])) for g, y in found]
    masks = [g.edge_mask.bool() for g, _ in found]
    return Benchmark("ba_2motif", "graph", data, "edges", lambda i: masks[i], list(range(graphs)))


def mutag(root: str | os.PathLike[str] | None = None) -> Benchmark:
    """MUTAG (Debnath et al. 1991): 188 molecules, mutagenic or not; of mutagenic ones the bonds of nitro groups.

    Raises:
        FileNotFoundError: ``root``, or ``EXPLAIN_DATA``, does not hold it.
    """
    raw = raw_folder(root, "TUDataset/MUTAG", ["MUTAG_A.txt"], "the files MUTAG_*.txt of the TUDataset collection")
    with tempfile.TemporaryDirectory() as beside:  # the loader writes what it processed next to the raw files
        shutil.copytree(raw, Path(beside, "MUTAG", "raw"))
        data = [Data(x=g.x, edge_index=g.edge_index, y=g.y) for g in TUDataset(beside, "MUTAG")]
    masks = [nitro_bonds(g) for g in data]
    targets = [i for i, g in enumerate(data) if int(g.y) == 1 and masks[i].any()]
    return Benchmark("mutag", "graph", data, "edges", lambda i: masks[i], targets)


def nitro_bonds(molecule: Data) -> Tensor:
    """Bonds of a nitrogen with two oxygens that are bonded to nobody else, bool ``[bonds]``; atoms are C, N, O, ..."""
    source, target = molecule.edge_index
    atom = molecule.x.argmax(1)
    bonds = torch.bincount(source, minlength=molecule.num_nodes)
    to_oxygen = (atom[source] == 1) & (atom[target] == 2) & (bonds[target] == 1)
    nitro = torch.bincount(source[to_oxygen], minlength=molecule.num_nodes) >= 2
    outwards = to_oxygen & nitro[source]
    ends = set(map(tuple, molecule.edge_index[:, outwards].t().tolist()))
    return torch.tensor([(u, v) in ends or (v, u) in ends for u, v in molecule.edge_index.t().tolist()])


def alkane_carbonyl(root: str | os.PathLike[str] | None = None, graphs: int = 1000) -> Benchmark:
    """Molecules with an alkane chain and a carbonyl, or not (Sanchez-Lengeling et al. 2020); atoms are the truth.

    As many negatives as positives, and at most ``graphs`` in all.

    Raises:
        FileNotFoundError: ``root``, or ``EXPLAIN_DATA``, does not hold it.
    """
    name = "alkane_carbonyl.npz"
    folder = raw_folder(root, "alkane_carbonyl", [name], f"{name} (github.com/mims-harvard/GraphXAI)", inside="")
    with np.load(folder / name, allow_pickle=False) as file:
        parts = {key: file[key] for key in file.files}
    positive, negative = (np.flatnonzero(parts["y"].reshape(-1) == y) for y in (1, 0))
    count = min(graphs // 2, len(positive))
    chosen = np.sort(np.concatenate([positive[:count], np.random.default_rng(0).choice(negative, count, False)]))
    nodes, edges = (np.concatenate([[0], np.cumsum(parts[key])]) for key in ("num_nodes", "num_edges"))
    data, truths = [], []
    for i in chosen.tolist():
        own = slice(nodes[i], nodes[i + 1])
        edge_index = torch.from_numpy(parts["edge_index"][:, edges[i] : edges[i + 1]]).long()
        y = torch.tensor([int(parts["y"].reshape(-1)[i])])
        data.append(Data(x=torch.from_numpy(parts["x"][own]).float(), edge_index=edge_index, y=y))
        alternatives = int(parts["num_alternatives"][i])
        truths.append(torch.from_numpy(parts["ground_truth"][own, :alternatives].T.copy()).bool())
    targets = [i for i, g in enumerate(data) if int(g.y) == 1]
    return Benchmark("alkane_carbonyl", "graph", data, "nodes", lambda i: truths[i], targets)


def _single(
    name: str, kinds: Callable[[], tuple[BAGraph | TreeGraph, MotifGenerator]], motifs: int, seed: int
) -> Benchmark:
    """Motifs on one graph of constant features."""
    with _seeded(seed):
        made = _generated(*kinds(), motifs)
        x = torch.ones(made.num_nodes, DEGREES)
        data = _split(Data(x=x, edge_index=made.edge_index, y=made.y))
    return _about_motifs(name, data, made.edge_mask.bool(), made.node_mask.nonzero().view(-1).tolist())


def _about_motifs(name: str, data: Data, edges: Tensor, targets: list[int]) -> Benchmark:
    """Of a node in a motif, the edges of that motif."""
    part = _components(data.num_nodes, data.edge_index[:, edges])
    return Benchmark(name, "node", data, "edges", lambda i: edges & (part[data.edge_index[0]] == part[i]), targets)


def _generated(graph: BAGraph | TreeGraph, motif: MotifGenerator, motifs: int) -> Data:
    return ExplainerDataset(graph, motif, num_motifs=motifs)[0]


def _components(nodes: int, edge_index: Tensor) -> Tensor:
    """The smallest node that each node is connected with, int64 ``[nodes]``."""
    part = torch.arange(nodes)
    while True:
        smaller = part.scatter_reduce(0, edge_index[1], part[edge_index[0]], "amin")
        if torch.equal(smaller, part):
            return part
        part = smaller


def _split(data: Data) -> Data:
    """Eight tenths of the nodes to train on, the rest to test."""
    order = torch.randperm(data.num_nodes)
    data.train_mask = torch.zeros(data.num_nodes, dtype=torch.bool)
    data.train_mask[order[: round(0.8 * data.num_nodes)]] = True
    data.test_mask = ~data.train_mask
    return data


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within: torch's, NumPy's and Python's random states start from a seed; afterwards they are as before."""
    with random_states_kept():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - torch_geometric's generators draw from the global states
        random.seed(seed)
        yield
