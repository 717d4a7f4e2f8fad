"""Networks of `models/` in paper form: a loop for each sum, pair by pair."""

from __future__ import annotations

import itertools
import math

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


@torch.no_grad()
def nodeformer_weights(layer: nn.Module, z: Tensor) -> Tensor:
    """The weights ``[heads, N, N]`` of a `KernelAttention`, one pair and one random feature at a time."""
    heads, count, rows = layer.heads, len(z), layer.projection
    shrunk = math.sqrt(layer.tau) * layer.size**0.25
    q, k = (part(z).view(count, heads, -1) / shrunk for part in (layer.query, layer.key))
    found = torch.zeros(heads, count, count, dtype=z.dtype)
    for head in range(heads):
        top = max(float(w @ k[j, head]) for w in rows for j in range(count))
        for i, j in itertools.product(range(count), repeat=2):
            a, b = q[i, head], k[j, head]
            own = max(float(w @ a) for w in rows)
            for w in rows:
                of_query = torch.exp(w @ a - a @ a / 2 - own) + 1e-6
                of_key = torch.exp(w @ b - b @ b / 2 - top) + 1e-6
                found[head, i, j] += of_query * of_key / len(rows)
    return found / found.sum(2, keepdim=True)


@torch.no_grad()
def nodeformer(net: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    """Logits of a `NodeFormer` in eval mode, its adjacencies as matrices."""
    powers, reached = [], torch.eye(len(x), dtype=torch.float64)
    reached[edge_index[1], edge_index[0]] = 1
    for _ in range(net.orders):
        root = reached.sum(1).rsqrt()
        powers.append(root[:, None] * reached * root)
        reached = (reached @ reached > 0).double()
    z = nn.functional.elu(net.norms[0](net.first(x)))
    for layer, norm in zip(net.layers, net.norms[1:], strict=True):
        weights, v = nodeformer_weights(layer, z), layer.value(z).view(len(x), layer.heads, -1)
        each = []
        for head in range(layer.heads):
            along = sum(torch.sigmoid(b[head]) * power for b, power in zip(layer.bias, powers, strict=True))
            each.append((weights[head] + along) @ v[:, head])
        z = norm(z + layer.out(torch.cat(each, 1)))
    return net.last(z)


def janossy(read: nn.GRU, members: Tensor, k: int) -> Tensor:
    """The mean over all orders of what the GRU says of the first ``k`` members, zeros where there are fewer."""
    padding = members.new_zeros(max(k - len(members), 0), members.size(1))
    said = []
    for order in itertools.permutations(range(len(members))):
        said.append(read(torch.cat([members[list(order)], padding])[None, :k])[1][0, 0])
    return torch.stack(said).mean(0)


def hops_to(edge_index: Tensor, node: int, nodes: int, far: int) -> list[int]:
    """How many edges lead from each node to this one; ``far`` where none do."""
    found, front, hops = {node: 0}, [node], 0
    while front:
        hops += 1
        front = [s for s, t in edge_index.t().tolist() if t in front and s not in found]
        found |= dict.fromkeys(front, hops)
        front = list(dict.fromkeys(front))
    return [found.get(other, far) for other in range(nodes)]


def graph_bert(net: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    """Logits of a `GraphBert`, one node after the other; PageRank as a sum over walks."""
    step = torch.eye(len(x), dtype=torch.float64)
    step[edge_index[1], edge_index[0]] = 1
    step = step / step.sum(1, keepdim=True)
    near, walks = torch.zeros_like(step), torch.eye(len(x), dtype=torch.float64)
    for _ in range(600):
        near, walks = near + net.alpha * walks, (1 - net.alpha) * walks @ step
    degrees = torch.bincount(edge_index[1], minlength=len(x)).tolist()
    heard = torch.zeros(len(x), 1) if net.heard is None else normalised_adjacency(edge_index, len(x)) @ net.heard(x)
    logits = []
    for node in range(len(x)):
        rank = {j: round(float(near[node, j]) * 1e10) for j in range(len(x)) if j != node}
        others = sorted((j for j in rank if rank[j]), key=lambda j: -rank[j])
        around = [node, *others[: net.k]]
        hops = hops_to(edge_index, node, len(x), 16)
        raw = net.embed(x[around])
        h = raw + net.rank.weight[: len(around)]
        h = net.norm(h + net.hops.weight[[hops[j] for j in around]] + net.degree.weight[[degrees[j] for j in around]])
        for block, residual in zip(net.blocks, net.raw, strict=True):
            each = []
            for q, k, v in zip(
                *(part(h).chunk(block.heads, 1) for part in (block.query, block.key, block.value)), strict=True
            ):
                each.append((q @ k.T / math.sqrt(q.size(1))).softmax(1) @ v)
            h1 = block.norm1(h + block.joined(torch.cat(each, 1)))
            h = block.norm2(h1 + block.narrow(nn.functional.gelu(block.wide(h1)))) + residual(raw) + heard[node]
        logits.append(net.out(h.mean(0)))
    return torch.stack(logits)
