"""Networks of `models/` in paper form: a loop for each sum, pair by pair."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def normalised_adjacency(edge_index: Tensor, nodes: int) -> Tensor:
    """``D^-1/2 (A + I) D^-1/2``, dense; a row hears its columns."""
    dense = torch.eye(nodes, dtype=torch.float64)
    for source, target in edge_index.t().tolist():
        dense[target, source] = 1
    root = dense.sum(1).rsqrt()
    return root[:, None] * dense * root


def row_normalised(edge_index: Tensor, nodes: int) -> Tensor:
    """``D^-1 A``, dense; rows without a neighbour are 0."""
    dense = torch.zeros(nodes, nodes, dtype=torch.float64)
    for source, target in edge_index.t().tolist():
        dense[target, source] = 1
    return dense / dense.sum(1, keepdim=True).clamp(min=1)


def difformer_weights(pairs: nn.Module, z: Tensor) -> Tensor:
    """``S [heads, N, N]`` of a layer, one pair at a time."""
    heads, count = pairs.heads, len(z)
    q, k = (layer(z).view(count, heads, -1) for layer in (pairs.query, pairs.key))
    if pairs.kernel == "s" and pairs.norm == "tensor":
        q, k = q / q.square().sum().sqrt(), k / k.square().sum().sqrt()
    found = torch.zeros(heads, count, count, dtype=z.dtype)
    for head, i, j in itertools.product(range(heads), range(count), range(count)):
        a, b = q[i, head], k[j, head]
        if pairs.kernel == "a":
            found[head, i, j] = 1 / (1 + torch.exp(-(a @ b)))
        else:
            found[head, i, j] = 1 + (a @ b if pairs.norm == "tensor" else a @ b / (a.norm() * b.norm()))
    return found / found.sum(2, keepdim=True)


def difformer(net: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    """Logits of a `DIFFormer`, with ``S`` and ``A`` as matrices."""
    adjacency = normalised_adjacency(edge_index, len(x)) * net.graph
    z = net.norms[0](net.first(x)).relu()
    for pairs, norm in zip(net.pairs, net.norms[1:], strict=True):
        heard = difformer_weights(pairs, z).mean(0) @ z + adjacency @ z
        z = norm((1 - net.tau) * z + net.tau * heard)
    return net.last(z)


def dcnn(net: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    """Logits of a `DCNN`, by powers of the row-normalised adjacency."""
    step = row_normalised(edge_index, len(x))
    walked = [torch.linalg.matrix_power(step, hop) @ x for hop in range(net.hops + 1)]
    rows = [
        torch.cat([torch.tanh(w * part[i]) for w, part in zip(net.weight, walked, strict=True)]) for i in range(len(x))
    ]
    return net.dense(torch.stack(rows))
