"""Clusters of a pooling layer: who is put together with whom, and all of a cluster as one player."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn.pool import SAGPooling, TopKPooling

from explain.guard import untouched
from explain.types import Players, Target


@dataclass(frozen=True, eq=False)
class Clusters:
    """What a pooling layer makes of the nodes of one graph.

    Args:
        layer: its name in the network.
        shares: how much of each node belongs to each cluster, ``[nodes, clusters]``, rows summing to 1.
        read: how they were read: "softmax" of what the layer gave, as a DiffPool takes it, "shares" that it gave, or
            "kept", the nodes that stay (cluster 0) and those that are dropped (cluster 1).

    >>> Clusters("assign", torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), "shares").of.tolist()
    [0, 1, 0]
    """

    layer: str
    shares: Tensor
    read: Literal["softmax", "shares", "kept"]

    @property
    def of(self) -> Tensor:
        """The cluster that each node belongs to most, int64 ``[nodes]``."""
        return self.shares.argmax(1)

    @property
    def certainty(self) -> Tensor:
        """The share of each node that is in this cluster, ``[nodes]``: what the question of `players` leaves out."""
        return self.shares.amax(1)

    def players(self, target: Target, kind: Literal["nodes", "edges"] = "nodes") -> Players:
        """All nodes of a cluster as one player, or all edges whose source is in it: they come and go together.

        Nobody is split: a node is wholly of the cluster that it belongs to most. Assignments are those of the whole
        graph; where nodes are gone the network assigns the others anew, and that is part of the answer.

        Args:
            target: a graph's or a node's number.
            kind: what of a cluster goes, "nodes" or "edges".

        Raises:
            ValueError: another kind, or nodes of several types.
        """
        if kind not in ("nodes", "edges"):
            raise ValueError(f'kind must be "nodes" or "edges", got {kind!r}')
        single = target.players(kind)
        if single.index.dim() > 1:
            raise ValueError("clusters are of nodes of one type: this graph has several")
        nodes = single.index if kind == "nodes" else single.geometry["ends"][0]
        cluster = self.of.to(nodes.device)[nodes]
        found = [(int(each), (cluster == each).nonzero()[:, 0]) for each in cluster.unique()]
        geometry = {name: value for name, value in single.geometry.items() if name not in ("node", "ends")}
        return Players(
            kind,
            single.index[torch.tensor([int(members[0]) for _, members in found], dtype=torch.long)],
            tuple(self._name(each, kind, len(members)) for each, members in found),
            tuple(single.index[members] for _, members in found),
            geometry,
        )

    def _name(self, cluster: int, kind: str, members: int) -> str:
        what = ("kept", "dropped")[cluster] if self.read == "kept" else f"cluster {cluster}"
        return f"{what} ({members} {kind if members > 1 else kind[:-1]})"


def clusters(
    net: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    *,
    layer: str,
    call: Callable[[nn.Module], Any] | None = None,
) -> Clusters:
    """The clusters that ``layer`` of a network makes of the nodes of one graph.

    Args:
        net: the network.
        x: ``[nodes, features]``.
        edge_index: ``[2, edges]``.
        layer: the name of the module that assigns: its output is ``[nodes, clusters]`` or ``[1, nodes, clusters]``,
            shares or what the softmax is taken of; or a `TopKPooling` or `SAGPooling`, which keeps nodes.
        call: how it is called, ``net(x, edge_index, batch)`` with one graph where not given.

    Raises:
        ValueError: no such module, it does not run, or what it gives is no assignment of these nodes.

    Source: Ying et al. 2018 (DiffPool), Lee et al. 2019 (SAGPool).

    >>> edges = torch.tensor([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
    >>> pool = SAGPooling(3, ratio=0.5)
    >>> found = clusters(nn.ModuleDict({"pool": pool}), torch.eye(4, 3), edges, layer="pool",
    ...     call=lambda net: net["pool"](torch.eye(4, 3), edges))
    >>> found.read, found.of.bincount().tolist()
    ('kept', [2, 2])
    """
    parts = dict(net.named_modules())
    if layer not in parts or not layer:
        raise ValueError(f"the network has no module {layer!r}; it has {', '.join(filter(None, parts))}")
    said: list[Any] = []
    ask = call or (lambda net: net(x, edge_index, edge_index.new_zeros(len(x))))
    with untouched(net), torch.no_grad():
        handle = parts[layer].register_forward_hook(lambda part, args, output: said.append(output))
        try:
            ask(net)
        finally:
            handle.remove()
    if not said:
        raise ValueError(f"the call does not run {layer!r}: name a module that it runs")
    if isinstance(parts[layer], (TopKPooling, SAGPooling)):
        return Clusters(layer, _kept(said[0][4], layer, len(x)), "kept")
    return _assigned(said[0], layer, len(x))


def _kept(stays: Tensor, layer: str, nodes: int) -> Tensor:
    """Shares of nodes that stay and of those that are dropped, ``[nodes, 2]``.

    Raises:
        ValueError: it keeps nodes that there are not.
    """
    if len(stays) and int(stays.max()) >= nodes:
        raise ValueError(f"{layer!r} keeps node {int(stays.max())} of {nodes}: ask with one graph, as the network is")
    shares = torch.tensor([[0.0, 1.0]], device=stays.device).repeat(nodes, 1)
    shares[stays] = torch.tensor([1.0, 0.0], device=stays.device)
    return shares


def _assigned(output: Any, layer: str, nodes: int) -> Clusters:
    """Shares as given, or the softmax of what is no shares yet.

    Raises:
        ValueError: it is no matrix with a row a node.
    """
    given = output[0] if isinstance(output, Tensor) and output.dim() == 3 and len(output) == 1 else output
    if not isinstance(given, Tensor) or given.dim() != 2 or len(given) != nodes or not given.is_floating_point():
        got = f"[{', '.join(map(str, output.shape))}]" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{layer!r} gave {got}, and clusters of {nodes} nodes are read from [{nodes}, clusters] or "
            f"[1, {nodes}, clusters]: name the layer that assigns"
        )
    given = given.detach().clone()
    ones = torch.ones(nodes, dtype=given.dtype, device=given.device)
    if bool((given >= 0).all()) and torch.allclose(given.sum(1), ones, atol=1e-5):
        return Clusters(layer, given, "shares")
    return Clusters(layer, given.softmax(1), "softmax")
