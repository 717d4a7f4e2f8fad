"""A small graph of authors and papers, the networks that read its types, and HGT written out edge by edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HANConv, HeteroConv, HGTConv

WIDTHS = {"author": 3, "paper": 4}


def library(twins: bool = False) -> HeteroData:
    """Four authors, five papers, four types of edges, in float64; with ``twins`` two of them join the same nodes."""
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    for kind, size in (("author", 4), ("paper", 5)):
        data[kind].x = torch.randn(size, WIDTHS[kind], generator=generator, dtype=torch.float64)
    writes = torch.tensor([[0, 1, 2, 3, 1, 0], [0, 1, 2, 3, 4, 2]])
    data["author", "writes", "paper"].edge_index = writes
    data["author", "reads", "paper"].edge_index = writes if twins else writes[:, [0, 2, 3]]
    data["paper", "by", "author"].edge_index = writes.flip(0)
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1, 2, 4, 3, 0], [1, 2, 3, 3, 0, 0]])
    return data


class Hgt(nn.Module):
    """HGT, one softmax over all relations into a node."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        data = library()
        widths = [WIDTHS, *[{"author": 4, "paper": 4}] * (layers - 1)]
        self.convs = nn.ModuleList(HGTConv(width, 4, data.metadata(), heads=2) for width in widths)

    def forward(self, x_dict: dict, edge_index_dict: dict) -> Tensor:
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return x_dict["paper"][:, :3]


class Han(nn.Module):
    """HAN, a softmax a metapath and one over metapaths."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = HANConv(WIDTHS, 4, library().metadata(), heads=2)

    def forward(self, x_dict: dict, edge_index_dict: dict) -> Tensor:
        return self.conv(x_dict, edge_index_dict)["paper"][:, :3]


class Gats(nn.Module):
    """A GAT of its own for each relation, side by side, in two layers."""

    def __init__(self) -> None:
        super().__init__()
        widths = [WIDTHS, {"author": 4, "paper": 4}]
        self.convs = nn.ModuleList(
            HeteroConv(
                {
                    (u, r, v): GATConv((width[u], width[v]), 2, heads=2, add_self_loops=False)
                    for u, r, v in library().edge_types
                }
            )
            for width in widths
        )

    def forward(self, x_dict: dict, edge_index_dict: dict) -> Tensor:
        for conv in self.convs:
            x_dict = {kind: x.tanh() for kind, x in conv(x_dict, edge_index_dict).items()}
        return x_dict["paper"][:, :3]


NETWORKS = {"hgt": Hgt, "han": Han, "gats": Gats}


def typed_network(name: str) -> nn.Module:
    """One of `NETWORKS` with random weights, float64, in eval mode."""
    torch.manual_seed(0)
    return NETWORKS[name]().double().eval()


def hgt_by_edges(conv: HGTConv, data: HeteroData, x: dict, amounts: Tensor) -> tuple[dict, Tensor]:
    """One HGT layer edge by edge, messages times ``amounts [E]``; and the weights ``[E, heads]``, type by type."""
    heads, size = conv.heads, conv.out_channels // conv.heads
    kqv = {kind: conv.kqv_lin.lins[kind](x[kind]).tensor_split(3, dim=1) for kind in x}
    relations, into, weights = data.edge_types, {}, torch.zeros(len(amounts), heads, dtype=torch.float64)
    flat = 0
    for number, (source, relation, target) in enumerate(relations):
        for u, v in data[source, relation, target].edge_index.t().tolist():
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                which = head * len(relations) + number
                key = kqv[source][0][u, part] @ conv.k_rel.weight[which]
                value = kqv[source][2][u, part] @ conv.v_rel.weight[which]
                prior = conv.p_rel["__".join((source, relation, target))][0, head]
                score = kqv[target][1][v, part] @ key * prior / size**0.5
                into.setdefault((target, v, head), []).append((score, value, flat))
            flat += 1
    heard = {kind: torch.zeros(len(x[kind]), heads * size, dtype=torch.float64) for kind in x}
    for (target, v, head), edges in into.items():
        shares = torch.stack([score for score, _, _ in edges]).softmax(0)
        for share, (_, value, edge) in zip(shares, edges, strict=True):
            heard[target][v, head * size : (head + 1) * size] += share * amounts[edge] * value
            weights[edge, head] = share
    made = {}
    for kind in x:
        out = conv.out_lin.lins[kind](nn.functional.gelu(heard[kind]))
        gate = conv.skip[kind].sigmoid()
        made[kind] = gate * out + (1 - gate) * x[kind] if out.size(1) == x[kind].size(1) else out
    return made, weights
