"""Attention in paper form: one query, one head, one edge at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def scaled_dot_product(query: Tensor, key: Tensor, allowed: Tensor, bias: Tensor, scale: float | None = None) -> Tensor:
    """``softmax(q k' scale + bias)`` over the allowed keys (Vaswani et al. 2017); masks ``[B, H, L, S]``."""
    batch, heads, queries, width = query.shape
    scale = 1 / math.sqrt(width) if scale is None else scale
    weights = torch.zeros(batch, heads, queries, key.size(2))
    for b in range(batch):
        for h in range(heads):
            own = h * key.size(1) // heads  # grouped queries share a key head
            for i in range(queries):
                scores = [
                    math.exp(float(query[b, h, i] @ key[b, own, j]) * scale + float(bias[b, h, i, j]))
                    if allowed[b, h, i, j]
                    else 0.0
                    for j in range(key.size(2))
                ]
                weights[b, h, i] = torch.tensor(scores) / max(sum(scores), 1e-300)
    return weights


def multi_head(layer: torch.nn.MultiheadAttention, query: Tensor, key: Tensor, allowed: Tensor) -> Tensor:
    """Weights of `nn.MultiheadAttention` for batch-first inputs, its packed projection taken apart."""
    width, heads = layer.embed_dim, layer.num_heads
    if layer.in_proj_weight is None:
        w_q, w_k = layer.q_proj_weight, layer.k_proj_weight
    else:
        w_q, w_k, _ = layer.in_proj_weight.chunk(3)
    b_q, b_k, _ = layer.in_proj_bias.chunk(3)

    def split(x: Tensor) -> Tensor:
        return x.view(len(x), -1, heads, width // heads).transpose(1, 2)

    q, k = split(query @ w_q.T + b_q), split(key @ w_k.T + b_k)
    return scaled_dot_product(q, k, allowed, torch.zeros_like(allowed, dtype=torch.float32))


def propagated(edge_index: Tensor, nodes: int) -> list[tuple[int, int]]:
    """Edges of a GAT layer: stored self-loops taken out, one for each node put at the end."""
    kept = [(int(u), int(v)) for u, v in edge_index.T if u != v]
    return kept + [(v, v) for v in range(nodes)]


def _softmax_over_senders(scores: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    totals: dict[int, float] = {}
    for (_, v), score in scores.items():
        totals[v] = totals.get(v, 0.0) + math.exp(score)
    return {(u, v): math.exp(score) / totals[v] for (u, v), score in scores.items()}


def gat(layer: torch.nn.Module, x: Tensor, edge_index: Tensor, head: int) -> dict[tuple[int, int], float]:
    """``alpha_vu = softmax_u LeakyReLU(a_s W h_u + a_t W h_v)`` (Velickovic et al. 2018)."""
    h = layer.lin(x).view(len(x), layer.heads, -1)[:, head]
    sent, received = h @ layer.att_src[0, head], h @ layer.att_dst[0, head]
    return _softmax_over_senders(
        {
            (u, v): float(F.leaky_relu(sent[u] + received[v], layer.negative_slope))
            for u, v in propagated(edge_index, len(x))
        }
    )


def gatv2(layer: torch.nn.Module, x: Tensor, edge_index: Tensor, head: int) -> dict[tuple[int, int], float]:
    """``alpha_vu = softmax_u a LeakyReLU(W_l h_u + W_r h_v)`` (Brody et al. 2022)."""
    left = layer.lin_l(x).view(len(x), layer.heads, -1)[:, head]
    right = layer.lin_r(x).view(len(x), layer.heads, -1)[:, head]
    return _softmax_over_senders(
        {
            (u, v): float(F.leaky_relu(left[u] + right[v], layer.negative_slope) @ layer.att[0, head])
            for u, v in propagated(edge_index, len(x))
        }
    )


def transformer(
    layer: torch.nn.Module, x: Tensor, edge_index: Tensor, head: int, edge_attr: Tensor | None = None
) -> dict[tuple[int, int], float]:
    """``alpha_vu = softmax_u q_v (k_u + e_uv) / sqrt(d)`` (Shi et al. 2021)."""
    query = layer.lin_query(x).view(len(x), layer.heads, -1)[:, head]
    key = layer.lin_key(x).view(len(x), layer.heads, -1)[:, head]
    scores = {}
    for column, (u, v) in enumerate(edge_index.T.tolist()):
        k = key[u]
        if edge_attr is not None:
            k = k + layer.lin_edge(edge_attr[column]).view(layer.heads, -1)[head]
        scores[u, v] = float(query[v] @ k) / math.sqrt(layer.out_channels)
    return _softmax_over_senders(scores)


def rollout(matrices: list[Tensor], residual: float) -> Tensor:
    """Product of ``rho I + (1 - rho) A`` over the layers, last layer leftmost (Abnar and Zuidema 2020)."""
    product = torch.eye(len(matrices[0]), dtype=torch.float64)
    for matrix in matrices:
        product = (residual * torch.eye(len(matrix), dtype=torch.float64) + (1 - residual) * matrix.double()) @ product
    return product


def walks(matrices: list[Tensor], row: int) -> Tensor:
    """Credit of each edge, ``[queries, keys]``: attention products of all walks from ``row`` back that take it."""
    nodes = len(matrices[0])
    credit = torch.zeros(nodes, nodes, dtype=torch.float64)

    def step(layer: int, at: int, product: float) -> None:
        if layer < 0:
            return
        for sender in range(nodes):
            weight = float(matrices[layer][at, sender])
            if weight:
                credit[at, sender] += product * weight
                step(layer - 1, sender, product * weight)

    step(len(matrices) - 1, row, 1.0)
    return credit


def through_identity(query: Tensor, key: Tensor, **arguments: object) -> Tensor:
    """``[..., queries, keys]``: what torch itself weighs, as its answer for values ``V = I``, in ``O(queries keys^2)``.

    Whatever torch means by the mask, ``is_causal``, ``scale`` and ``enable_gqa`` therefore holds here too.
    """
    query, key = query.float(), key.float()
    identity = torch.eye(key.size(-2)).expand(*key.shape[:-1], key.size(-2))
    mask = arguments.get("attn_mask")
    if type(mask) is Tensor and mask.is_floating_point():
        arguments = arguments | {"attn_mask": mask.float()}
    return F.scaled_dot_product_attention(query, key, identity, **arguments).nan_to_num(0.0)


def look_of_words(weights: Tensor, words: list[list[int]], start: int, grid: tuple[int, int], size: tuple[int, int]):
    """What each latent pixel puts onto each word, ``[heads, P, H, W]``, of ``[heads, queries, keys]`` weights whose
    image tokens begin at ``start``."""
    found = torch.zeros(len(weights), len(words), *size, dtype=torch.float64)
    for y in range(size[0]):
        for x in range(size[1]):
            query = start + (y * grid[0] // size[0]) * grid[1] + x * grid[1] // size[1]
            for w, tokens in enumerate(words):
                for token in tokens:
                    found[:, w, y, x] += weights[:, query, token].double()
    return found


def daam(weights: Tensor, words: list[list[int]], start: int, grid: tuple[int, int], size: tuple[int, int]):
    """The sum over heads of each word's own map, upsampled bicubically, ``[P, H, W]`` (Tang et al. 2023)."""
    found = torch.zeros(len(words), *size, dtype=torch.float64)
    image = weights[:, start : start + grid[0] * grid[1]].double()
    for head in image:
        for w, tokens in enumerate(words):
            look = sum((head[:, token] for token in tokens), torch.zeros(len(head), dtype=torch.float64))
            up = F.interpolate(look.reshape(1, 1, *grid), size, mode="bicubic", align_corners=False)
            found[w] += up[0, 0].clamp(min=0)
    return found


def alike_outputs(output: Tensor, words: list[list[int]], start: int, grid: tuple[int, int], size: tuple[int, int]):
    """``softmax_w(o_q . o_w)`` of the outputs ``[heads, tokens, d]`` with heads side by side, ``[P, H, W]``."""
    joined = torch.cat(list(output.double()), -1)
    found = torch.zeros(len(words), *size, dtype=torch.float64)
    for y in range(size[0]):
        for x in range(size[1]):
            query = start + (y * grid[0] // size[0]) * grid[1] + x * grid[1] // size[1]
            own = [float(joined[query] @ joined[tokens].mean(0)) for tokens in words]
            top = max(own)
            powers = [math.exp(one - top) for one in own]
            found[:, y, x] = torch.tensor(powers, dtype=torch.float64) / sum(powers)
    return found
