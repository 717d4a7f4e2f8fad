"""Representatives on graphs whose nodes and edges have types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv, HGTConv

import explain
from explain.types import Players
from models.matrix.case import Case, Smooth, Training
from models.matrix.graphs import CLASSES, FEATURES, outputs_at, stirred

PAPER = 1
SIZES = {"author": 2, "paper": 3}
EDGES = {
    ("author", "writes", "paper"): torch.tensor([[0, 1, 1], [0, 1, 2]]),
    ("paper", "cites", "paper"): torch.tensor([[0, 2], [1, 1]]),
    ("paper", "by", "author"): torch.tensor([[0, 2], [0, 1]]),
}
_KINDS, _COUNT = list(SIZES), sum(edges.size(1) for edges in EDGES.values())
_STARTS = torch.tensor([0, *(edges.size(1) for edges in EDGES.values())]).cumsum(0)
Features = Mapping[str, Tensor]


class TypedGAT(nn.Module):
    """Two layers of attention, each relation's its own, summed where several reach a node."""

    def __init__(self, hidden: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._layer(hidden) for _ in range(2))
        self.out = nn.Linear(hidden, CLASSES)

    @staticmethod
    def _layer(hidden: int) -> HeteroConv:
        return HeteroConv({kind: GATConv((-1, -1), hidden, add_self_loops=False) for kind in EDGES}, aggr="sum")

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[tuple[str, str, str], Tensor]) -> Tensor:
        """Logits ``[papers, classes]``."""
        for layer in self.layers:
            x_dict = {kind: x.tanh() for kind, x in layer(x_dict, edge_index_dict).items()}
        return self.out(x_dict["paper"])


class TypedHGT(nn.Module):
    """Two layers of HGT (Hu et al. 2020), the second with a gate around it: one softmax over all relations."""

    def __init__(self, hidden: int = 4, heads: int = 2) -> None:
        super().__init__()
        kinds = list(SIZES), list(EDGES)
        self.layers = nn.ModuleList(HGTConv(size, hidden, kinds, heads) for size in (FEATURES, hidden))
        self.out = nn.Linear(hidden, CLASSES)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[tuple[str, str, str], Tensor]) -> Tensor:
        """Logits ``[papers, classes]``."""
        for layer in self.layers:
            x_dict = {kind: x.tanh() for kind, x in layer(x_dict, edge_index_dict).items()}
        return self.out(x_dict["paper"])


Senders = Callable[[Any, Tensor], list[tuple[nn.Module, Tensor]]]  # network, amounts [E] -> layers, and those of each
Shares = Callable[[Any, Features], Tensor]  # layer, what it is given -> shares [E] that sum to 1 into each node


def graph() -> HeteroData:
    """Float64; papers are labelled."""
    data, generator = HeteroData(), torch.Generator().manual_seed(0)
    for kind, count in SIZES.items():
        data[kind].x = torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    for relation, edges in EDGES.items():
        data[relation].edge_index = edges
    data["paper"].y, data["paper"].train_mask = torch.tensor([0, 1, 1]), torch.ones(3, dtype=torch.bool)
    return data


def _call(net: nn.Module, data: HeteroData) -> Tensor:
    return net(data.x_dict, data.edge_index_dict)


def _with_features(data: HeteroData, features: Features) -> HeteroData:
    changed = data.clone()
    for kind, x in features.items():
        changed[kind].x = x
    return changed


def _split(flat: Tensor) -> dict[str, Tensor]:
    """Features of all types as one vector, back by type."""
    parts = flat.split([count * FEATURES for count in SIZES.values()])
    return {kind: part.view(-1, FEATURES) for kind, part in zip(SIZES, parts, strict=True)}


def _joined(features: Features) -> Tensor:
    return torch.cat([features[kind].reshape(-1) for kind in SIZES])


def on_papers(net: Any, senders: Senders, shares: Shares, paper: int = PAPER, more: bool = True) -> Case:
    """A network for papers, asked about one; ``senders`` and ``shares`` say which layer sends what, and looks where."""
    data = graph()
    with torch.no_grad():
        whole = _call(net, data)
    label = int(whole[paper].argmax())

    def without(gone: Tensor) -> Tensor:
        changed = data.clone()
        for number, relation in enumerate(EDGES):
            keep = torch.ones(EDGES[relation].size(1), dtype=torch.bool)
            keep[gone[gone[:, 0] == number, 1]] = False
            changed[relation].edge_index = EDGES[relation][:, keep]
        return _call(net, changed)[paper]

    def edges(players: Players, there: Tensor) -> Tensor:
        return without(players.index[~there])

    def relations(players: Players, there: Tensor) -> Tensor:
        assert players.groups is not None
        return without(_typed_edges(torch.cat([torch.zeros(0).long(), *_chosen(players.groups, ~there)])))

    def nodes(players: Players, there: Tensor) -> Tensor:
        stay = {kind: torch.ones(count, dtype=torch.bool) for kind, count in SIZES.items()}
        for number, node in players.index[~there].tolist():
            stay[_KINDS[number]][node] = False
        return _call(net, data.subgraph(stay))[int(stay["paper"][:paper].sum())]

    def features(players: Players, there: Tensor) -> Tensor:
        return _call(net, _with_features(data, _scaled(data, players, there.to(torch.float64))))[paper]

    def number(x: Tensor) -> Tensor:
        return _call(net, _with_features(data, _split(x)))[paper, label]

    def of_features(own: Callable[[Players], Tensor]) -> Callable[[Players], Smooth]:
        def made(players: Players) -> Smooth:
            x, owner = _joined(data.x_dict), own(players)
            return Smooth(x, torch.where(owner >= 0, 0.0, x), owner, number)

        return made

    def messages(players: Players) -> Smooth:
        ones = torch.ones(_COUNT, dtype=torch.float64)
        return Smooth(ones, torch.zeros_like(ones), _edge_owner(players), at)

    def at(amounts: Tensor) -> Tensor:
        return _multiplied(net, data, senders(net, amounts))[paper, label]

    def masked_edges(players: Players, amounts: Tensor) -> Tensor:
        ones = torch.ones(_COUNT, dtype=torch.float64)
        factors = ones.index_copy(0, _flat_edges(players.index), amounts.double())
        return _multiplied(net, data, senders(net, factors))[paper]

    def masked_features(players: Players, amounts: Tensor) -> Tensor:
        return _call(net, _with_features(data, _scaled(data, players, amounts.double())))[paper]

    answers = {"edges": edges, "nodes": nodes, "features": features, "relations": relations}
    return Case(
        explain.wrap(net, data, task="node", weight_decay=0.1).node(("paper", paper), label=label),
        {kind: torch.no_grad()(answer) for kind, answer in answers.items()},
        {
            "features": of_features(lambda players: _owner(players, lambda x, column: x[:, column])),
            "nodes": of_features(lambda players: _owner(players, lambda x, node: x[node])),
            "edges": messages,
            "relations": messages,
        },
        {"edges": masked_edges, "features": masked_features},
        _looked(net, data, paper, shares),
        training=_training(net, data, paper, label),
        around=(data["paper"].x, whole),
        others=tuple(on_papers(net, senders, shares, each, more=False) for each in range(3)) * 3 if more else (),
        label=label,
    )


def _chosen(groups: tuple[Tensor, ...], which: Tensor) -> list[Tensor]:
    return [group for group, chosen in zip(groups, which.tolist(), strict=True) if chosen]


def _typed_edges(flat: Tensor) -> Tensor:
    """Type and position ``[e, 2]`` of edges counted through all types."""
    kind = torch.searchsorted(_STARTS, flat, right=True) - 1
    return torch.stack([kind, flat - _STARTS[kind]], 1)


def _flat_edges(typed: Tensor) -> Tensor:
    return _STARTS[typed[:, 0]] + typed[:, 1]


def _edge_owner(players: Players) -> Tensor:
    owner = torch.full((_COUNT,), -1)
    own = players.groups if players.groups is not None else _flat_edges(players.index).view(-1, 1)
    for i, atoms in enumerate(own):
        owner[atoms] = i
    return owner


def _owner(players: Players, own: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The player of each entry of the features, of whom each has a part of those of one type."""
    owner = {kind: torch.full((count, FEATURES), -1) for kind, count in SIZES.items()}
    for i, (number, place) in enumerate(players.index.tolist()):
        own(owner[_KINDS[number]], place).fill_(i)
    return _joined(owner)


def _scaled(data: HeteroData, players: Players, amounts: Tensor) -> Features:
    """Features whose columns are multiplied."""
    found = {kind: torch.ones(FEATURES, dtype=torch.float64) for kind in SIZES}
    for (number, column), amount in zip(players.index.tolist(), amounts, strict=True):
        found[_KINDS[number]] = found[_KINDS[number]].index_put((torch.tensor(column),), amount)
    return {kind: x * found[kind] for kind, x in data.x_dict.items()}


def _multiplied(net: Any, data: HeteroData, sent: list[tuple[Any, Tensor]]) -> Tensor:
    """What the network says where the messages of these layers are multiplied."""
    handles = []
    for layer, amounts in sent:

        def multiply(_: nn.Module, __: tuple, messages: Tensor, factor: Tensor = amounts) -> Tensor:
            return messages * factor.view(-1, *[1] * (messages.dim() - 1))

        handles.append(layer.register_message_forward_hook(multiply))
    try:
        return _call(net, data)
    finally:
        for handle in handles:
            handle.remove()


def _training(net: nn.Module, data: HeteroData, paper: int, label: int) -> Training:
    labels = data["paper"].y
    theta, outputs = outputs_at(net, _call, data)
    return Training(
        theta,
        lambda theta: F.cross_entropy(outputs(theta), labels, reduction="none"),
        lambda theta: outputs(theta)[paper, label],
        weight_decay=0.1,
        relabelled=lambda theta: F.cross_entropy(outputs(theta), torch.zeros_like(labels), reduction="none"),
    )


def _looked(net: Any, data: HeteroData, paper: int, shares: Shares) -> dict[str, Callable[[Players], Tensor]]:
    """What the two layers look at, nodes of all types one after the other."""
    x, levels = data.x_dict, []
    with torch.no_grad():
        for layer in net.layers:
            levels.append(shares(layer, x))
            x = {kind: found.tanh() for kind, found in layer(x, data.edge_index_dict).items()}
    first, second = levels
    source, target = _ends()
    read = F.one_hot(torch.tensor(_OFFSETS["paper"] + paper), sum(SIZES.values())).double()
    last = read[target] * second
    earlier = torch.zeros_like(read).index_add(0, source, last)[target] * first
    found = {"rollout": (last + earlier) / 2, "mean": (first + second) / 2, "last": last}
    return {name: _each(credit) for name, credit in found.items()}


_OFFSETS = {"author": 0, "paper": SIZES["author"]}


def _ends() -> tuple[Tensor, Tensor]:
    """Where the edges of all relations begin and end, ``[E]`` each."""
    source = torch.cat([edges[0] + _OFFSETS[relation[0]] for relation, edges in EDGES.items()])
    return source, torch.cat([edges[1] + _OFFSETS[relation[2]] for relation, edges in EDGES.items()])


def _each(credit: Tensor) -> Callable[[Players], Tensor]:
    return lambda players: credit[_flat_edges(players.index)]


def _by_relation(net: Any, amounts: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Each relation has a layer of its own."""
    each = dict(zip(EDGES, amounts.split([edges.size(1) for edges in EDGES.values()]), strict=True))
    return [(conv, each[relation]) for layer in net.layers for relation, conv in layer.convs.items()]


def _side_by_side(layer: Any, x: Features) -> Tensor:
    """A relation's softmax, shared alike with the other relations that reach the node."""
    reached = torch.zeros(sum(SIZES.values())).double()
    for relation, edges in EDGES.items():
        reached[edges[1].unique() + _OFFSETS[relation[2]]] += 1
    return torch.cat([_alpha(layer.convs[relation], relation, x) for relation in EDGES]) / reached[_ends()[1]]


def _alpha(conv: Any, relation: tuple[str, str, str], x: Features) -> Tensor:
    """``softmax_j LeakyReLU_0.2(a_s W_s x_j + a_t W_t x_i)`` along the edges of a relation."""
    source, target = EDGES[relation]
    heard = (x[relation[0]] @ conv.lin_src.weight.T) @ conv.att_src.view(-1)
    own = (x[relation[2]] @ conv.lin_dst.weight.T) @ conv.att_dst.view(-1)
    return _softmax(F.leaky_relu(heard[source] + own[target], 0.2), target)


def _softmax(scores: Tensor, target: Tensor) -> Tensor:
    """Of the edges ``[E, ...]`` into each node."""
    raw = scores.exp()
    return raw / raw.new_zeros(int(target.max()) + 1, *raw.shape[1:]).index_add(0, target, raw)[target]


def _all_at_once(net: Any, amounts: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """A layer sends the messages of all relations one after the other."""
    return [(layer, amounts) for layer in net.layers]


def _over_relations(layer: Any, x: Features) -> Tensor:
    """``softmax p_r (k_j W_r) q_i / sqrt(d)`` over the edges of all relations into a node, the mean over heads."""
    heads, scores = layer.heads, []
    for number, ((source, name, target), edges) in enumerate(EDGES.items()):
        parts = (layer.kqv_lin.lins[kind](x[kind]).chunk(3, 1) for kind in (source, target))
        key, query = (part[i].unflatten(1, (heads, -1)) for i, part in enumerate(parts))
        W = layer.k_rel.weight[number :: len(EDGES)]
        products = (torch.einsum("nhi,hij->nhj", key, W)[edges[0]] * query[edges[1]]).sum(-1)
        scores.append(products * layer.p_rel["__".join((source, name, target))] / query.size(-1) ** 0.5)
    return _softmax(torch.cat(scores), _ends()[1]).mean(1)


def typed_gat() -> Case:
    """Attention of each relation."""
    data, net = graph(), TypedGAT()
    with torch.no_grad():
        net.double()(data.x_dict, data.edge_index_dict)  # its sizes are those that it meets first
    return on_papers(stirred(net), _by_relation, _side_by_side)


TYPED: dict[str, Callable[[], Case]] = {
    "HeteroConv": typed_gat,
    "HGT": lambda: on_papers(stirred(TypedHGT(), seed=4), _all_at_once, _over_relations),
}
