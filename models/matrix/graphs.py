"""Representatives on graphs: five nodes, six edges, and what their numbers are by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

import explain
from explain.attention.told import Told
from explain.types import Players
from models.matrix.case import Answers, Case, Masked, Smooth, Training

FEATURES, CLASSES, NODE = 3, 2, 1
EDGES = torch.tensor([[0, 2, 3, 4, 1, 4], [1, 1, 2, 0, 0, 3]])
"""Every node is within two hops of `NODE`; the last edge only counts in the degree of a node that is."""


def graph() -> Data:
    """Float64, all of whose nodes are labelled."""
    x = torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Data(x=x, edge_index=EDGES, y=torch.tensor([0, 1, 1, 0, 1]), train_mask=torch.ones(5, dtype=torch.bool))


Call = Callable[[nn.Module, Any], Tensor]
Weighed = Callable[[nn.Module, Any, Tensor], Tensor]  # with a weight of each edge


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


def multiplied(net: nn.Module, edge_index: Tensor, amounts: Tensor, ask: Callable[[], Tensor]) -> Tensor:
    """What the network says where each layer's message over edge ``e`` is multiplied by ``amounts[e]``."""
    number = {pair: i for i, pair in enumerate(map(tuple, edge_index.t().tolist()))}
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


def by_messages(call: Call) -> Weighed:
    """What `multiplied` gives of a network that is called so."""
    return lambda net, data, amounts: multiplied(net, data.edge_index, amounts, lambda: call(net, data))


def _once(messages: Tensor, edges: int) -> list[int]:
    """The shape of messages, of which one dimension alone is that of the edges."""
    at = 0 if messages.size(0) == edges else messages.dim() - 2
    return [edges if i == at else 0 for i in range(messages.dim())]


class Asked(NamedTuple):
    """A network, how it is called, and the row that is read: of a node, or of the first of the graphs it is given."""

    net: nn.Module
    call: Call
    weighed: Weighed
    data: Data
    node: int = 0

    def of(self, data: Data) -> Tensor:
        """The outputs that are read where the graph is another."""
        return self.call(self.net, data)[self.node]

    def at(self, weights: Tensor) -> Tensor:
        """The outputs that are read where edges have weights."""
        return self.weighed(self.net, self.data, weights)[self.node]


def on_nodes(
    net: nn.Module,
    call: Call = plain,
    *,
    data: Data | None = None,
    node: int = NODE,
    more: bool = True,
    looked: Callable[[nn.Module, Data, int], dict[str, Callable[[Players], Tensor]]] | None = None,
    kinds: Sequence[str] = ("edges", "features"),
    tolerance: float = 1e-7,
    weighed: Weighed | None = None,
    told: Told = None,
    hops: int = 2,
    values: bool = False,
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Case:
    """A network for nodes, asked about one: ``call(net, data) -> [nodes, classes]``.

    ``weighed`` is the same with weights of edges, of one whose layers send no messages; it hears ``hops`` far. Of
    ``values`` the first is the number, trained by their squared error.
    """
    asked = Asked(net, call, weighed or by_messages(call), graph() if data is None else data, node)
    with torch.no_grad():
        whole = call(net, asked.data)
    label = None if values else int(whole[node].argmax())
    model = explain.wrap(net, asked.data, task="node", weight_decay=0.1, **({"outputs": "values"} if values else {}))

    def nodes(players: Players, there: Tensor) -> Tensor:
        stay = torch.ones(len(asked.data.x), dtype=torch.bool).index_fill(0, players.index[~there], False)
        return call(net, asked.data.subgraph(stay))[int(stay[:node].sum())]

    def other(node: int) -> Case:
        return on_nodes(net, call, data=data, node=node, more=False, weighed=weighed, values=values)

    return Case(
        model.node(node, label=label),
        {"nodes": torch.no_grad()(nodes)} | absences(asked, kinds),
        slopes(asked, label or 0),
        masked(asked),
        looked(net, asked.data, node) if looked else {},
        told,
        _fitted(asked) if values else _training(asked, label or 0),
        _around(asked.data, whole, node, hops),
        tuple(map(other, range(5))) * 2 if more else (),
        options,
        label,
        tolerance,
    )


def absences(asked: Asked, kinds: Sequence[str]) -> dict[str, Answers]:
    """By kind of players, the outputs without some of them."""
    data = asked.data

    def edges(players: Players, there: Tensor) -> Tensor:
        return asked.of(without_edges(data, players.index[~there]))

    def features(players: Players, there: Tensor) -> Tensor:
        return asked.of(with_features(data, data.x.index_fill(1, players.index[~there], 0.0)))

    def relations(players: Players, there: Tensor) -> Tensor:
        return asked.of(without_edges(data, torch.isin(data.edge_type, players.index[~there]).nonzero().view(-1)))

    def columns(players: Players, there: Tensor) -> Tensor:
        changed = data.clone()
        changed.edge_attr = data.edge_attr.index_fill(1, players.index[~there], 0.0)
        return asked.of(changed)

    def entries(players: Players, there: Tensor) -> Tensor:
        owner = _entries(players, data.x)
        return asked.of(with_features(data, data.x.masked_fill(torch.isin(owner, (~there).nonzero()[:, 0]), 0.0)))

    found = {"edges": edges, "features": features, "relations": relations}
    found |= {"edge_features": columns, "node_features": entries}
    return {kind: torch.no_grad()(found[kind]) for kind in kinds}


def _around(data: Data, outputs: Tensor, node: int, hops: int) -> tuple[Tensor, Tensor]:
    """The features and outputs of those who can be heard."""
    near = {node}
    for _ in range(hops):
        near |= {source for source, target in data.edge_index.t().tolist() if target in near}
    return data.x[sorted(near)], outputs[sorted(near)]


def slopes(asked: Asked, label: int) -> dict[str, Callable[[Players], Smooth]]:
    """By kind of players, the number as a function of features, or of amounts of messages."""
    data = asked.data

    def of_features(owner: Callable[[Players], Tensor]) -> Callable[[Players], Smooth]:
        def made(players: Players) -> Smooth:
            own = owner(players).expand_as(data.x)
            base = torch.where(own >= 0, 0.0, data.x)
            return Smooth(data.x, base, own, lambda x: asked.of(with_features(data, x))[label])

        return made

    def messages(players: Players) -> Smooth:
        owner = torch.full((data.edge_index.size(1),), -1)
        for i, atoms in enumerate(players.groups or players.index.view(-1, 1)):
            owner[atoms] = i
        ones = torch.ones(len(owner), dtype=data.x.dtype)
        return Smooth(ones, torch.zeros_like(ones), owner, lambda weights: asked.at(weights)[label])

    found = {
        "features": of_features(lambda players: _numbered(players, data.x.size(1))[None]),
        "nodes": of_features(lambda players: _numbered(players, len(data.x))[:, None]),
        "node_features": of_features(lambda players: _entries(players, data.x)),
    }
    kinds = ("edges", "relations") if "edge_type" in data else ("edges",)
    return found | dict.fromkeys(kinds, messages)


def _entries(players: Players, x: Tensor) -> Tensor:
    """The player of each entry of the features, ``[nodes, features]``; a window is several of one node."""
    owner = torch.full(x.shape, -1)
    for i, own in enumerate(players.groups or players.index[:, None]):
        owner[own[:, 0], own[:, 1]] = i
    return owner


def _numbered(players: Players, size: int) -> Tensor:
    owner = torch.full((size,), -1)
    owner[players.index] = torch.arange(len(players))
    return owner


def masked(asked: Asked) -> dict[str, Masked]:
    """By kind of players, the outputs with messages or features multiplied."""
    data = asked.data

    def edges(players: Players, amounts: Tensor) -> Tensor:
        ones = torch.ones(data.edge_index.size(1), dtype=data.x.dtype)
        return asked.at(ones.index_copy(0, players.index, amounts.to(data.x)))

    def features(players: Players, amounts: Tensor) -> Tensor:
        each = torch.ones(data.x.size(1), dtype=data.x.dtype).index_copy(0, players.index, amounts.to(data.x))
        return asked.of(with_features(data, data.x * each))

    return {"edges": edges, "features": features}


def flat(net: nn.Module) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
    """The parameters that are trained as one vector, and back by name."""
    named = {name: p for name, p in net.named_parameters() if p.requires_grad}

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


def _training(asked: Asked, label: int) -> Training:
    labels = asked.data.y
    theta, outputs = outputs_at(asked.net, asked.call, asked.data)
    return Training(
        theta,
        lambda theta: F.cross_entropy(outputs(theta), labels, reduction="none"),
        lambda theta: outputs(theta)[asked.node, label],
        weight_decay=0.1,
        relabelled=lambda theta: F.cross_entropy(outputs(theta), torch.zeros_like(labels), reduction="none"),
    )


def _fitted(asked: Asked) -> Training:
    theta, outputs = outputs_at(asked.net, asked.call, asked.data)
    return Training(
        theta,
        lambda theta: (outputs(theta)[:, 0] - asked.data.y).square(),
        lambda theta: outputs(theta)[asked.node, 0],
        weight_decay=0.1,
        relabelled=lambda theta: outputs(theta)[:, 0].square(),
    )


def stirred(net: nn.Module, spread: float = 0.5, seed: int = 0) -> nn.Module:
    """In float64 and evaluation mode, its parameters drawn so that nothing in it is zero or alike."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(spread * torch.randn(weights.shape, generator=generator, dtype=weights.dtype))
    return net
