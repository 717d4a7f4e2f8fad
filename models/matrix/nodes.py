"""Representatives that classify nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from explain.types import Players
from models import additive, convolutions, dcnn, difformer, gat, gcn, graph_bert, janossy, nodeformer
from models.chickenpox import Forecaster
from models.matrix.case import Case
from models.matrix.graphs import CLASSES, FEATURES, graph, on_nodes, stirred


def gcn_() -> Case:
    """Convolutions that torch_geometric has, with a fast path."""
    return on_nodes(stirred(gcn.GCN(FEATURES, CLASSES, hidden=4), seed=58))


def rgcn() -> Case:
    """Edges of two types."""
    data = graph()
    data.edge_type = torch.tensor([0, 1, 0, 1, 0, 1])
    net = stirred(convolutions.RGCN(FEATURES, CLASSES, relations=2, hidden=3))
    kinds = ("edges", "features", "relations")
    return on_nodes(net, lambda net, data: net(data.x, data.edge_index, data.edge_type), data=data, kinds=kinds)


def gat_() -> Case:
    """Attention along edges."""
    return on_nodes(stirred(gat.GAT(FEATURES, CLASSES, hidden=2, heads=2), seed=1), looked=_of_gat)


def _of_gat(net: Any, data: Data, node: int) -> dict[str, Callable[[Players], Tensor]]:
    """What the two layers look at, from the parameters of each and what it is given, loops of nodes after the edges."""
    loops = torch.arange(len(data.x)).expand(2, -1)
    edges = torch.cat([data.edge_index, loops], 1)
    with torch.no_grad():
        first = _alpha(net.conv1, data.x, edges)
        second = _alpha(net.conv2, F.elu(net.conv1(data.x, data.edge_index)), edges)
    read = torch.zeros(len(data.x)).double().index_fill(0, torch.tensor([node]), 1.0)
    last = read[edges[1]] * second
    earlier = torch.zeros_like(read).index_add(0, edges[0], last)[edges[1]] * first
    found = {"rollout": (last + earlier) / 2, "mean": (first + second) / 2, "last": last}
    return {name: _each(credit) for name, credit in found.items()}


def _each(credit: Tensor) -> Callable[[Players], Tensor]:
    return lambda players: credit[players.index]


def _alpha(layer: Any, x: Tensor, edges: Tensor) -> Tensor:
    """``softmax_j LeakyReLU_0.2(a_s W x_j + a_t W x_i)``, the mean over heads."""
    h = (x @ layer.lin.weight.T).view(len(x), layer.heads, -1)
    source, target = ((h * a).sum(-1) for a in (layer.att_src, layer.att_dst))
    raw = F.leaky_relu(source[edges[0]] + target[edges[1]], 0.2).exp()
    return (raw / torch.zeros_like(target).index_add(0, edges[1], raw)[edges[1]]).mean(1)


def additive_() -> Case:
    """A glass box that hears its neighbours alone, and sums by a scatter."""

    def weighed(net: Any, data: Data, weights: Tensor) -> Tensor:
        own, told = net.contributions(data.x, data.edge_index)
        heard = torch.zeros_like(own.sum(1)).index_add(0, data.edge_index[1], weights[:, None] * told.sum(1))
        return net.bias + own.sum(1) + heard

    return on_nodes(stirred(additive.Additive(FEATURES, CLASSES, hidden=3)), weighed=weighed, hops=1)


def dcnn_() -> Case:
    """Walks by a sparse matrix; a node that hears two is not at the bend where a lone edge starts to count."""
    data = graph()
    data.edge_index = torch.tensor([[0, 2, 3, 4, 1, 4, 3], [1, 1, 2, 0, 0, 2, 4]])

    def weighed(net: Any, data: Data, weights: Tensor) -> Tensor:
        step = torch.zeros(len(data.x), len(data.x), dtype=data.x.dtype)
        step = step.index_put((data.edge_index[1], data.edge_index[0]), weights)
        step = step / step.sum(1, keepdim=True).clamp(min=1)
        walked = torch.stack([data.x, step @ data.x, step @ step @ data.x], 1)
        return net.dense((net.weight * walked).tanh().flatten(1))

    return on_nodes(stirred(dcnn.DCNN(FEATURES, CLASSES)), data=data, weighed=weighed)


def difformer_(kernel: difformer.Kernel, shares: Callable[..., Tensor], seed: int) -> Case:
    """All pairs of nodes, and the normalised adjacency beside them."""

    def weighed(net: Any, data: Data, weights: Tensor) -> Tensor:
        A = torch.eye(len(data.x), dtype=data.x.dtype)
        A = A.index_put((data.edge_index[1], data.edge_index[0]), weights, accumulate=True)
        root = A.sum(1).rsqrt()
        A = root[:, None] * A * root
        z = net.norms[0](net.first(data.x)).relu()
        for pairs, norm in zip(net.pairs, net.norms[1:], strict=True):
            z = norm((1 - net.tau) * z + net.tau * (pairs.weights(z).mean(0) @ z + A @ z))
        return net.last(z)

    net = stirred(difformer.DIFFormer(FEATURES, CLASSES, hidden=3, layers=2, heads=2, kernel=kernel), seed=seed)
    looked = partial(_of_all_pairs, layers="pairs", shares=shares)
    return on_nodes(net, weighed=weighed, looked=looked, told={"pairs.*": lambda pairs, z: pairs.weights(z)})


def _sigmoids(pairs: Any, z: Tensor) -> Tensor:
    """``sigmoid(q_i k_j)`` over its sum, the mean over heads."""
    products = [query @ key.T for query, key in _by_head(pairs, z)]
    return _mean_share([product.sigmoid() for product in products])


def _lines(pairs: Any, z: Tensor) -> Tensor:
    """``1 + q_i k_j / (|Q| |K|)`` over its sum, the norms those of all heads, the mean over heads."""
    size = pairs.query(z).norm() * pairs.key(z).norm()
    return _mean_share([1 + query @ key.T / size for query, key in _by_head(pairs, z)])


def _by_head(pairs: Any, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Queries and keys ``[nodes, size]`` of each head."""
    return zip(pairs.query(z).chunk(pairs.heads, 1), pairs.key(z).chunk(pairs.heads, 1), strict=True)


def _mean_share(heads: Sequence[Tensor]) -> Tensor:
    """Rows of each head over their sums, the mean over heads."""
    return torch.stack([raw / raw.sum(1, keepdim=True) for raw in heads]).mean(0)


def nodeformer_() -> Case:
    """All pairs of nodes by random features, and two powers of the adjacency."""
    net = stirred(nodeformer.NodeFormer(FEATURES, CLASSES, hidden=4, heads=2))
    looked = partial(_of_all_pairs, layers="layers", shares=_random_features)
    return on_nodes(net, looked=looked, told={"layers.*": lambda layer, z, _: layer.weights(z)})


def _random_features(layer: Any, z: Tensor, _: list[Tensor]) -> Tensor:
    """``phi(q_i) phi(k_j)`` over its sum, the mean over heads; to each feature 1e-6 is added."""
    parts = ((part(z) / (layer.tau**0.5 * layer.size**0.25)).chunk(layer.heads, 1) for part in (layer.query, layer.key))
    queries, keys = ([(u @ layer.projection.T, u.square().sum(1, keepdim=True) / 2) for u in heads] for heads in parts)
    most = torch.stack([along for along, _ in keys]).amax((1, 2))
    return _mean_share(
        [
            ((q - q_norm - q.amax(1, keepdim=True)).exp() + 1e-6) @ ((k - k_norm - largest).exp() + 1e-6).T
            for (q, q_norm), (k, k_norm), largest in zip(queries, keys, most, strict=True)
        ]
    )


def _of_all_pairs(
    net: Any, data: Data, node: int, layers: str, shares: Callable[..., Tensor]
) -> dict[str, Callable[[Players], Tensor]]:
    """The shares of all pairs, layer by layer from what each is given; half of a row stays where it is."""
    seen: list[Tensor] = []

    def look(layer: Any, given: tuple[Any, ...], _: Tensor) -> None:
        seen.append(shares(layer, *given))

    handles = [layer.register_forward_hook(look) for layer in getattr(net, layers)]
    with torch.no_grad():
        net(data.x, data.edge_index)
    for handle in handles:
        handle.remove()
    reach = torch.eye(len(data.x), dtype=data.x.dtype)[node]
    for S in reversed(seen):
        reach = reach / 2 + reach @ S / 2
    found = {"rollout": reach, "mean": torch.stack(seen)[:, node].mean(0), "last": seen[-1][node]}
    return {name: _each(credit) for name, credit in found.items()}


def forecaster() -> Case:
    """A number from the last lags of a node and those that it hears; windows of two lags play."""
    data = graph()
    data.y = torch.randn(len(data.x), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    net, kinds = stirred(Forecaster(FEATURES, hidden=4)), ("edges", "features", "node_features")
    return on_nodes(net, data=data, values=True, hops=1, kinds=kinds, options={"node_features": {"size": 2}})


NODES: dict[str, Callable[[], Case]] = {
    "GCN": gcn_,
    "ChebNet": lambda: on_nodes(stirred(convolutions.ChebNet(FEATURES, CLASSES, hidden=3))),
    "GraphSAGE": lambda: on_nodes(stirred(convolutions.SAGE(FEATURES, CLASSES, hidden=3))),
    "R-GCN": rgcn,
    "GAT": gat_,
    "MoNet": lambda: on_nodes(stirred(convolutions.MoNet(FEATURES, CLASSES, hidden=3, gaussians=2))),
    "JK": lambda: on_nodes(stirred(convolutions.JK(FEATURES, CLASSES, hidden=3, layers=2))),
    "DCNN": dcnn_,
    "DIFFormer-s": lambda: difformer_("s", _lines, 12),
    "DIFFormer-a": lambda: difformer_("a", _sigmoids, 7),
    "NodeFormer": nodeformer_,
    "Graph-BERT": lambda: on_nodes(stirred(graph_bert.GraphBert(FEATURES, CLASSES, hidden=4, k=2))),
    "Janossy": lambda: on_nodes(stirred(janossy.Janossy(FEATURES, CLASSES, hidden=4), seed=17)),
    "additive": additive_,
    "forecaster": forecaster,
}
