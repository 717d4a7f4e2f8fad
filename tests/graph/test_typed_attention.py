"""Attention of heterogeneous graphs against matrices over the nodes of all types, written out by hand."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv, HGTConv
from typed_cases import NETWORKS, WIDTHS, hgt_by_edges, library, typed_network

import explain
from explain.attention.rollout import NoChain
from explain.graph.model import GraphModel
from explain.types import Unsupported

FOCUS = 4 + 3  # paper 3, after the four authors


def target_of(net, data=None):
    return GraphModel(net, data or library()).node(("paper", 3), label=1)


def flat_ends(data):
    starts = {"author": 0, "paper": 4}
    return torch.cat([data[k].edge_index + torch.tensor([[starts[k[0]]], [starts[k[2]]]]) for k in data.edge_types], 1)


def by_hand(name, net, data):
    """The share of each edge in each layer, ``[E]``, type by type."""
    if name == "hgt":
        x, layers = data.x_dict, []
        for conv in net.convs:
            x, weights = hgt_by_edges(conv, data, x, torch.ones(21, dtype=torch.float64))
            layers.append(weights.mean(1))
        return layers
    ends = flat_ends(data)
    if name == "gats":
        x, layers = data.x_dict, []
        for conv in net.convs:
            weights, reached = [], torch.zeros(9, dtype=torch.float64)
            for kind in data.edge_types:
                index = data[kind].edge_index
                alpha = conv.convs[kind]((x[kind[0]], x[kind[2]]), index, return_attention_weights=True)[1][1]
                weights.append(alpha.mean(1))
                reached[index[1].unique() + (4 if kind[2] == "paper" else 0)] += 1
            layers.append(torch.cat(weights) / reached[ends[1]])
            x = {kind: each.tanh() for kind, each in conv(x, data.edge_index_dict).items()}
        return layers
    conv, x, shares = net.conv, data.x_dict, []
    hidden = {kind: conv.proj[kind](each).view(-1, 2, 2) for kind, each in x.items()}
    _, semantic = conv(x, data.edge_index_dict, return_semantic_attention_weights=True)
    place = {"author": 0, "paper": 0}
    for kind in data.edge_types:
        joined, (source, target) = "__".join(kind), data[kind].edge_index
        left = (hidden[kind[0]] * conv.lin_src[joined]).sum(-1)[source]
        right = (hidden[kind[2]] * conv.lin_dst[joined]).sum(-1)[target]
        score = nn.functional.leaky_relu(left + right, conv.negative_slope).exp()
        alpha = torch.stack([score[e] / score[target == target[e]].sum(0) for e in range(len(target))])
        shares.append(alpha.mean(1) * semantic[kind[2]][place[kind[2]]])
        place[kind[2]] += 1
    return [torch.cat(shares)]


@pytest.mark.parametrize("name", NETWORKS)
def test_rollout_is_that_of_matrices_and_players_are_those_of_the_game(name):
    net, data = typed_network(name), library()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    target, ends = target_of(net, data), flat_ends(data)
    with torch.no_grad():
        layers = by_hand(name, net, data)
    reach, credit = torch.zeros(9, dtype=torch.float64), torch.zeros(21, dtype=torch.float64)
    reach[FOCUS] = 1
    for weights in reversed(layers):
        credit += reach[ends[1]] * weights / len(layers)
        reach = torch.zeros(9, dtype=torch.float64).index_add(0, ends[0], reach[ends[1]] * weights)
    edges = explain.Attention("edges").explain(target)
    starts = torch.tensor([0, 6, 9, 15])
    flat = starts[edges.players.index[:, 0]] + edges.players.index[:, 1]
    torch.testing.assert_close(edges.scores, credit[flat])
    assert edges.players.names == target.players("edges").names
    assert edges.checks["row_sum_error"] < 1e-12
    assert edges.checks["unseen"] == 0
    assert edges.value == target.value()
    nodes = explain.Attention("nodes").explain(target)
    torch.testing.assert_close(nodes.scores, reach[nodes.players.geometry["node"]])
    relations = explain.Attention("relations").explain(target)
    by_relation = torch.stack([each.sum() for each in credit.split([6, 3, 6, 6])])
    torch.testing.assert_close(relations.scores, by_relation)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


class Chained(nn.Module):
    """Papers hear authors, then papers hear papers: two layers, of one relation each."""

    def __init__(self, beside=False):
        super().__init__()
        torch.manual_seed(0)
        self.writes = GATConv((3, 4), 4, add_self_loops=False)
        self.cites, self.beside = GATConv(4, 4, add_self_loops=False), beside

    def forward(self, x_dict, edge_index_dict):
        heard = self.writes((x_dict["author"], x_dict["paper"]), edge_index_dict["author", "writes", "paper"])
        cited = self.cites(x_dict["paper"] if self.beside else heard, edge_index_dict["paper", "cites", "paper"])
        return cited + heard if self.beside else cited


@pytest.mark.parametrize("beside", [False, True])
def test_whether_relations_stand_side_by_side_is_seen_and_not_guessed(beside):
    why = explain.Attention("relations").explain(target_of(Chained(beside).double().eval()))
    assert why.checks["levels"] == ([["writes", "cites"]] if beside else [["writes"], ["cites"]])
    torch.testing.assert_close(why.scores.sum(), torch.tensor(1.0, dtype=torch.float64))
    seen = {name: score for name, score in zip(why.players.names, why.scores.tolist(), strict=True) if score}
    assert seen == pytest.approx({"author-writes-paper": 0.5, "paper-cites-paper": 0.5})


class Ensemble(nn.Module):
    """Two HGT layers that do not read one another."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = (HGTConv(WIDTHS, 4, library().metadata(), heads=2) for _ in range(2))

    def forward(self, x_dict, edge_index_dict):
        return self.one(x_dict, edge_index_dict)["paper"] + self.two(x_dict, edge_index_dict)["paper"]


def test_what_does_not_chain_is_refused_with_the_remedy():
    target = target_of(Ensemble().double().eval())
    with pytest.raises(NoChain, match=r"two does not read what one wrote: use aggregate='mean'"):
        explain.Attention("nodes").explain(target)
    assert float(explain.Attention("nodes", aggregate="mean").explain(target).scores.sum()) == pytest.approx(1)
    with pytest.raises(Unsupported, match="another order"):
        explain.Attention().explain(target_of(typed_network("han"), library(twins=True)))
