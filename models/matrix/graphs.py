"""Representatives on graphs: five nodes, six edges, and what their numbers are by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

import explain
from explain.types import Players
from models import convolutions, gcn, graph_bert, janossy, nodeformer
from models.matrix.case import Case, Smooth, Training

FEATURES, CLASSES, NODE = 3, 2, 1
EDGES = torch.tensor([[0, 2, 3, 4, 1, 4], [1, 1, 2, 0, 0, 3]])
"""Every node is within two hops of `NODE`; the last edge only counts in the degree of a node that is."""


def graph() -> Data:
    """Float64, all of whose nodes are labelled."""
    x = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Data(x=x, edge_index=EDGES, y=torch.tensor([0, 1, 1, 0, 1]), train_mask=torch.ones(5, dtype=torch.bool))


Call = Callable[[nn.Module, Any], Tensor]


def plain(net: nn.Module, data: Any) -> Tensor:
    """``net(x, edge_index)``."""
    return net(data.x, data.edge_index)


def without_edges(data: Data, gone: Tensor) -> Data:
    """A graph without these columns of ``edge_index``."""
    keep = torch.ones(data.edge_index.size(1), dtype=torch.bool).index_fill(0, gone, False)
    return data.edge_subgraph(keep) if hasattr(data, "edge_subgraph") else data


def with_features(data: Data, x: Tensor) -> Data:
    """A graph with other features."""
    changed = data.clone()
    changed.x = x
    return changed


def multiplied(net: nn.Module, amounts: Tensor, ask: Callable[[], Tensor]) -> Tensor:
    """What the network says where each layer's message over edge ``e`` is multiplied by ``amounts[e]``."""
    number = {pair: i for i, pair in enumerate(map(tuple, EDGES.t().tolist()))}
    sent: dict[nn.Module, Tensor] = {}
    handles = []
    for layer in [part for part in net.modules() if isinstance(part, MessagePassing)]:

        def remember(layer: MessagePassing, arguments: tuple) -> None:
            at = [number.get(pair, -1) for pair in map(tuple, arguments[0].t().tolist())]
            sent[layer] = torch.cat([amounts, amounts.new_ones(1)])[torch.tensor(at)]

        def multiply(layer: MessagePassing, _: tuple, messages: Tensor) -> Tensor:
            factor = sent[layer]
            return messages * factor.view([-1 if size == len(factor) else 1 for size in _once(messages, len(factor))])

        handles.append(layer.register_propagate_forward_pre_hook(remember))
        handles.append(layer.register_message_forward_hook(multiply))
    try:
        return ask()
    finally:
        for handle in handles:
            handle.remove()


def _once(messages: Tensor, edges: int) -> list[int]:
    """The shape of messages, of which one dimension alone is that of the edges."""
    at = 0 if messages.size(0) == edges else messages.dim() - 2
    return [edges if i == at else 0 for i in range(messages.dim())]


def on_nodes(
    net: nn.Module,
    call: Call = plain,
    *,
    data: Data | None = None,
    node: int = NODE,
    more: bool = True,
    looked: Callable[[nn.Module, Data, int], dict[str, Callable[[Players], Tensor]]] | None = None,
    kinds: tuple[str, ...] = ("edges", "nodes", "features"),
    tolerance: float = 1e-7,
) -> Case:
    """A network for nodes, asked about one: ``call(net, data) -> [nodes, classes]``."""
    data = graph() if data is None else data
    with torch.no_grad():
        whole = call(net, data)
    label = int(whole[node].argmax())
    target = explain.wrap(net, data, task="node", weight_decay=0.1).node(node, label=label)

    def edges(players: Players, there: Tensor) -> Tensor:
        return call(net, without_edges(data, players.index[~there]))[node]

    def nodes(players: Players, there: Tensor) -> Tensor:
        stay = torch.ones(len(data.x), dtype=torch.bool).index_fill(0, players.index[~there], False)
        return call(net, data.subgraph(stay))[int(stay[:node].sum())]

    def features(players: Players, there: Tensor) -> Tensor:
        return call(net, with_features(data, data.x.index_fill(1, players.index[~there], 0.0)))[node]

    def relations(players: Players, there: Tensor) -> Tensor:
        gone = torch.isin(data.edge_type, players.index[~there]).nonzero().view(-1)
        return call(net, without_edges(data, gone))[node]

    def columns(players: Players, there: Tensor) -> Tensor:
        changed = data.clone()
        changed.edge_attr = data.edge_attr.index_fill(1, players.index[~there], 0.0)
        return call(net, changed)[node]

    def entries(players: Players, there: Tensor) -> Tensor:
        x = data.x.clone()
        for rows, column in zip(players.geometry["node"][~there], players.index[~there, -1], strict=True):
            x[rows, column] = 0.0
        return call(net, with_features(data, x))[node]

    answers = {"edges": edges, "nodes": nodes, "features": features, "relations": relations}
    answers |= {"edge_features": columns, "node_features": entries}
    return Case(
        target,
        {kind: _quietly(answers[kind]) for kind in kinds},
        _smooth(net, call, data, node, label),
        _masked(net, call, data, node),
        looked(net, data, node) if looked else {},
        _training(net, call, data, node, label),
        (data.x, whole.detach()),
        tuple(_other(net, call, data, i) for i in range(5)) * 2 if more else (),
        label,
        tolerance,
    )


def _quietly(answer: Callable[[Players, Tensor], Tensor]) -> Callable[[Players, Tensor], Tensor]:
    return torch.no_grad()(answer)


def _other(net: nn.Module, call: Call, data: Data, node: int) -> Case:
    return on_nodes(net, call, data=data, node=node, more=False)


def _smooth(net: nn.Module, call: Call, data: Data, node: int, label: int) -> dict[str, Callable[[Players], Smooth]]:
    def of_features(owner: Callable[[Players], Tensor]) -> Callable[[Players], Smooth]:
        def made(players: Players) -> Smooth:
            own = owner(players).expand_as(data.x)
            base = torch.where(own >= 0, 0.0, data.x)
            return Smooth(data.x, base, own, lambda x: call(net, with_features(data, x))[node, label])

        return made

    def messages(players: Players) -> Smooth:
        owner = torch.full((EDGES.size(1),), -1)
        for i, atoms in enumerate(players.groups or players.index.view(-1, 1)):
            owner[atoms] = i
        ones = torch.ones(len(owner), dtype=data.x.dtype)
        return Smooth(
            ones, torch.zeros_like(ones), owner, lambda a: multiplied(net, a, lambda: call(net, data))[node, label]
        )

    found = {
        "features": of_features(lambda players: _numbered(players, FEATURES)[None]),
        "nodes": of_features(lambda players: _numbered(players, len(data.x))[:, None]),
    }
    kinds = ("edges", "relations") if "edge_type" in data else ("edges",)
    return found | dict.fromkeys(kinds, messages)


def _numbered(players: Players, size: int) -> Tensor:
    owner = torch.full((size,), -1)
    owner[players.index] = torch.arange(len(players))
    return owner


def _masked(net: nn.Module, call: Call, data: Data, node: int) -> dict[str, Callable[[Players, Tensor], Tensor]]:
    def edges(players: Players, amounts: Tensor) -> Tensor:
        each = torch.ones(EDGES.size(1), dtype=data.x.dtype).index_copy(0, players.index, amounts.to(data.x))
        return multiplied(net, each, lambda: call(net, data))[node]

    def features(players: Players, amounts: Tensor) -> Tensor:
        each = torch.ones(FEATURES, dtype=data.x.dtype).index_copy(0, players.index, amounts.to(data.x))
        return call(net, with_features(data, data.x * each))[node]

    return {"edges": edges, "features": features}


def flat(net: nn.Module) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
    """The parameters as one vector, and back by name."""
    named = dict(net.named_parameters())

    def back(theta: Tensor) -> dict[str, Tensor]:
        parts = theta.split([p.numel() for p in named.values()])
        return {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}

    return parameters_to_vector(named.values()).detach(), back


class _As(nn.Module):
    """A call as a module, so that its parameters can be others."""

    def __init__(self, net: nn.Module, call: Call) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, data: Any) -> Tensor:
        return self.call(self.net, data)


def outputs_at(net: nn.Module, call: Call, data: Any) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The parameters as a vector, and the outputs as a function of it."""
    theta, back = flat(net)
    asked = _As(net, call)

    def outputs(theta: Tensor) -> Tensor:
        return functional_call(asked, {f"net.{name}": value for name, value in back(theta).items()}, (data,))

    return theta, outputs


def _training(net: nn.Module, call: Call, data: Data, node: int, label: int) -> Training:
    theta, outputs = outputs_at(net, call, data)
    return Training(
        theta,
        lambda theta: F.cross_entropy(outputs(theta), data.y, reduction="none"),
        lambda theta: outputs(theta)[node, label],
        weight_decay=0.1,
        relabelled=lambda theta: F.cross_entropy(outputs(theta), torch.zeros_like(data.y), reduction="none"),
    )


# --- the kinds ---


def stirred(net: nn.Module, spread: float = 0.5) -> nn.Module:
    """In float64 and evaluation mode, its parameters drawn so that nothing in it is zero or alike."""
    generator = torch.Generator().manual_seed(0)
    net = net.double().eval()
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(spread * torch.randn(weights.shape, generator=generator, dtype=weights.dtype))
    return net


def gcn_() -> Case:
    """Convolutions that torch_geometric has, with a fast path."""
    return on_nodes(stirred(gcn.GCN(FEATURES, CLASSES, hidden=4)))


def rgcn() -> Case:
    """Edges of two types."""
    data = graph()
    data.edge_type = torch.tensor([0, 1, 0, 1, 0, 1])
    net = stirred(convolutions.RGCN(FEATURES, CLASSES, relations=2, hidden=3))
    kinds = ("edges", "nodes", "features", "relations")
    return on_nodes(net, lambda net, data: net(data.x, data.edge_index, data.edge_type), data=data, kinds=kinds)


NODES: dict[str, Callable[[], Case]] = {
    "GCN": gcn_,
    "ChebNet": lambda: on_nodes(stirred(convolutions.ChebNet(FEATURES, CLASSES, hidden=3))),
    "GraphSAGE": lambda: on_nodes(stirred(convolutions.SAGE(FEATURES, CLASSES, hidden=3))),
    "R-GCN": rgcn,
    "JK": lambda: on_nodes(stirred(convolutions.JK(FEATURES, CLASSES, hidden=3, layers=2))),
    "NodeFormer": lambda: on_nodes(stirred(nodeformer.NodeFormer(FEATURES, CLASSES, hidden=4, heads=2))),
    "Graph-BERT": lambda: on_nodes(stirred(graph_bert.GraphBert(FEATURES, CLASSES, hidden=4, k=2))),
    "Janossy": lambda: on_nodes(stirred(janossy.Janossy(FEATURES, CLASSES, hidden=4))),
}
