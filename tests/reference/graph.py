"""Games on graphs in paper form: the whole graph, one coalition at a time; and games whose Shapley values are known."""

from __future__ import annotations

import math
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch_geometric.data import Data


def edge_game(module: nn.Module, data: Data, node: int, label: int, edges: Tensor, masks: Tensor) -> Tensor:
    """The logit with the absent ``edges`` taken out of the whole graph."""
    values = []
    for mask in masks:
        keep = torch.ones(data.edge_index.size(1), dtype=torch.bool)
        keep[edges] = mask
        with torch.no_grad():
            values.append(module(data.x, data.edge_index[:, keep])[node, label])
    return torch.stack(values).double()


def node_game(module: nn.Module, data: Data, node: int, label: int, nodes: Tensor, masks: Tensor) -> Tensor:
    """The logit with the absent ``nodes`` cut off and their features zero."""
    values = []
    for mask in masks:
        absent = nodes[~mask]
        touched = torch.isin(data.edge_index, absent).any(0)
        x = data.x.clone()
        x[absent] = 0
        with torch.no_grad():
            values.append(module(x, data.edge_index[:, ~touched])[node, label])
    return torch.stack(values).double()


def feature_game(
    module: nn.Module, data: Data, node: int, label: int, columns: Tensor, masks: Tensor, absent: Tensor
) -> Tensor:
    """The logit with the absent feature columns replaced by ``absent [nodes, features]`` everywhere."""
    values = []
    for mask in masks:
        x = data.x.clone()
        gone = columns[~mask]
        x[:, gone] = absent[:, gone]
        with torch.no_grad():
            values.append(module(x, data.edge_index)[node, label])
    return torch.stack(values).double()


def mean_star(x: Tensor, w: float) -> Tensor:
    """Leaves of a star under mean aggregation, the empty mean being 0: ``(w/n)[x_i H_n - m_-i (H_n - 1)]``."""
    n = len(x)
    harmonic = sum(1 / k for k in range(1, n + 1))
    others = (x.sum() - x) / (n - 1)
    return w / n * (x * harmonic - others * (harmonic - 1))


def max_star(x: Tensor) -> Tensor:
    """Leaves of a star under max aggregation, ``x >= 0``: the airport game."""
    order = x.argsort()
    steps = torch.diff(x[order], prepend=torch.zeros(1, dtype=x.dtype))
    shares = steps / torch.arange(len(x), 0, -1)
    phi = torch.empty_like(x)
    phi[order] = shares.cumsum(0)
    return phi


def gcn_star(center: float, x: Tensor, w: float) -> Tensor:
    """Leaves of a star under GCN with loops and renormalisation after each deletion."""
    n = len(x)
    others = (x.sum() - x) / (n - 1)
    phi = torch.zeros_like(x)
    for s in range(n):
        phi += x / math.sqrt(2 + s)
        phi += s * others * (1 / math.sqrt(2 + s) - 1 / math.sqrt(1 + s))
        phi += center * (1 / (2 + s) - 1 / (1 + s))
    return w / n * phi


def walk_shares(edge_index: Tensor, x: Tensor, node: int, length: int) -> Tensor:
    """Linear sum network of ``length`` layers: each walk into ``node`` shares its value among its distinct edges."""
    phi = torch.zeros(edge_index.size(1), dtype=x.dtype)
    for walk in product(range(edge_index.size(1)), repeat=length):
        ends = [edge_index[:, e].tolist() for e in walk]
        linked = all(first[1] == second[0] for first, second in pairwise(ends))
        if linked and ends[-1][1] == node:
            distinct = set(walk)
            for e in distinct:
                phi[e] += x[ends[0][0]] / len(distinct)
    return phi
