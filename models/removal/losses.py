"""The trained losses of `Sgc` and `SmoothGcn` by their matrices: gradient and Hessian products written out.

Only the rows that training nodes are read from are kept, and the adjacency is normalised once: on Cora a gradient takes
a fiftieth of the network's own time, and shares no code with it. Of other networks torch differentiates the forward
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch_geometric.data import Data

from models.removal.networks import Sgc, SmoothGcn

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Product: TypeAlias = Callable[[Array], Array]


class TrainedLoss(Protocol):
    """``J(theta) = (1/n) sum_i cross-entropy_i + weight_decay/2 |theta|^2`` of a flat float64 ``theta [p]``."""

    def at(self, theta: Array) -> tuple[float, Array, Product]:
        """``J``, its gradient ``[p]`` and ``v -> H v``."""


def trained_loss(net: nn.Module, data: Data, weight_decay: float, n: int) -> TrainedLoss:
    """The loss over ``data.train_mask``; ``n`` examples were there before any was taken away."""
    rows, layout = data.train_mask.nonzero().view(-1).numpy(), Layout.of(net)
    if not isinstance(net, Sgc | SmoothGcn):
        return NetworkLoss(net, data, weight_decay, n, layout)
    spread, h, labels = _normalised(data), sp.csr_array(data.x.numpy()), data.y.numpy()[rows]
    if isinstance(net, Sgc):
        for _ in range(net.conv.K):
            h = spread @ h
        return LinearLoss(h[rows], labels, weight_decay, n, layout)
    near = np.unique(spread[rows].indices)
    return TwoLayerLoss((spread @ h)[near], labels, weight_decay, n, layout, spread[rows][:, near])


def _normalised(data: Data) -> sp.csr_array:
    """``D^-1/2 (A + I) D^-1/2``, ``[to, from]``, of a graph without loops."""
    nodes = np.arange(data.num_nodes)
    source, target = (np.append(end, nodes) for end in data.edge_index.numpy())
    root = np.bincount(target, minlength=len(nodes)) ** -0.5
    return sp.csr_array((root[target] * root[source], (target, source)), shape=(len(nodes), len(nodes)))


@dataclass(frozen=True)
class Layout:
    """The parameters of a network as one vector: ``shapes`` by name, weights as ``[in, out]``."""

    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, net: nn.Module) -> Layout:
        """That of a network, layer by layer, the weight before the bias."""
        names = sorted(net.state_dict(), key=lambda name: (name.split(".")[0], name.endswith("bias")))
        return cls({name: tuple(reversed(net.state_dict()[name].shape)) for name in names})

    def read(self, net: nn.Module) -> Array:
        """``theta [p]``."""
        return np.concatenate([net.state_dict()[name].numpy().T.ravel() for name in self.shapes])

    def write(self, net: nn.Module, theta: Array) -> None:
        """The same back."""
        pieces = zip(self.shapes, self.split(theta), strict=True)
        net.load_state_dict({name: torch.from_numpy(piece.T.copy()) for name, piece in pieces})

    def split(self, theta: Array) -> list[Array]:
        """The pieces in their shapes."""
        ends = np.cumsum([np.prod(shape) for shape in self.shapes.values()])[:-1]
        return [piece.reshape(shape) for piece, shape in zip(np.split(theta, ends), self.shapes.values(), strict=True)]


@dataclass(frozen=True, eq=False)
class LinearLoss:
    """Of ``logits = h W + b``.

    Args:
        h: ``[training nodes, F]``.
        labels: ``[training nodes]``.
        weight_decay: as in ``torch.optim.SGD``.
        n: what the sum is divided by.
        layout: of ``theta``.
    """

    h: sp.csr_array
    labels: np.ndarray[Any, np.dtype[np.int64]]
    weight_decay: float
    n: int
    layout: Layout

    def at(self, theta: Array) -> tuple[float, Array, Product]:
        """``J``, its gradient ``[p]`` and ``v -> H v``."""
        weight, bias = self.layout.split(theta)
        value, slope, curve = _cross_entropy(self.h @ weight + bias, self.labels, self.n)

        def back(outputs: Array, vector: Array) -> Array:
            return _flat(self._transposed @ outputs, outputs.sum(0)) + self.weight_decay * vector

        def product(v: Array) -> Array:
            weight, bias = self.layout.split(v)
            return back(curve(self.h @ weight + bias), v)

        return value + self.weight_decay / 2 * float(theta @ theta), back(slope, theta), product

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return self.h.T.tocsr()


@dataclass(frozen=True, eq=False)
class TwoLayerLoss:
    """Of ``logits = spread tanh(h W1 + b1) W2 + b2``.

    Args:
        h: ``[near, F]``, of the nodes that training nodes are read from.
        labels: ``[training nodes]``.
        weight_decay: as in ``torch.optim.SGD``.
        n: what the sum is divided by.
        layout: of ``theta``.
        spread: ``[training nodes, near]``.
    """

    h: sp.csr_array
    labels: np.ndarray[Any, np.dtype[np.int64]]
    weight_decay: float
    n: int
    layout: Layout
    spread: sp.csr_array

    def at(self, theta: Array) -> tuple[float, Array, Product]:
        """``J``, its gradient ``[p]`` and ``v -> H v``, how the gradient moves along ``v`` (Pearlmutter 1994)."""
        W1, b1, W2, b2 = self.layout.split(theta)
        hidden = np.tanh(self.h @ W1 + b1)
        seen, bend = self.spread @ hidden, 1 - hidden**2
        value, slope, curve = _cross_entropy(seen @ W2 + b2, self.labels, self.n)
        back = self._from_spread @ (slope @ W2.T)

        def joined(first: Array, weight: Array, last: Array, vector: Array) -> Array:
            return _flat(self._transposed @ first, first.sum(0), weight, last.sum(0)) + self.weight_decay * vector

        def product(v: Array) -> Array:
            V1, c1, V2, c2 = self.layout.split(v)
            d_hidden = bend * (self.h @ V1 + c1)
            d_seen = self.spread @ d_hidden
            d_slope = curve(d_seen @ W2 + seen @ V2 + c2)
            d_back = self._from_spread @ (d_slope @ W2.T + slope @ V2.T)
            first = d_back * bend - 2 * back * hidden * d_hidden
            return joined(first, d_seen.T @ slope + seen.T @ d_slope, d_slope, v)

        gradient = joined(back * bend, seen.T @ slope, slope, theta)
        return value + self.weight_decay / 2 * float(theta @ theta), gradient, product

    @cached_property
    def _transposed(self) -> sp.csr_array:
        return self.h.T.tocsr()

    @cached_property
    def _from_spread(self) -> sp.csr_array:
        return self.spread.T.tocsr()


@dataclass(frozen=True, eq=False)
class NetworkLoss:
    """Of any network, by the derivatives of its own forward pass.

    Args:
        net: called as ``net(x, edge_index)``.
        data: the graph.
        weight_decay: as in ``torch.optim.SGD``.
        n: what the sum is divided by.
        layout: of ``theta``.
    """

    net: nn.Module
    data: Data
    weight_decay: float
    n: int
    layout: Layout

    def at(self, theta: Array) -> tuple[float, Array, Product]:
        """``J``, its gradient ``[p]`` and ``v -> H v``."""
        leaves = [torch.from_numpy(piece.T.copy()).requires_grad_() for piece in self.layout.split(theta)]
        params = dict(zip(self.layout.shapes, leaves, strict=True))
        logits = functional_call(self.net, params, (self.data.x, self.data.edge_index))[self.data.train_mask]
        loss = F.cross_entropy(logits, self.data.y[self.data.train_mask], reduction="sum") / self.n
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)

        def product(v: Array) -> Array:
            along = [torch.from_numpy(piece.T.copy()) for piece in self.layout.split(v)]
            curved = torch.autograd.grad(slopes, leaves, along, retain_graph=True, materialize_grads=True)
            return _flat(*(part.numpy().T for part in curved)) + self.weight_decay * v

        gradient = _flat(*(part.detach().numpy().T for part in slopes)) + self.weight_decay * theta
        return float(loss.detach()) + self.weight_decay / 2 * float(theta @ theta), gradient, product


def _cross_entropy(logits: Array, labels: np.ndarray[Any, Any], n: int) -> tuple[float, Array, Product]:
    """``(1/n) sum_i``, its gradient ``[m, C]`` in the logits, and how that moves with them."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    chance = np.exp(shifted)
    total = chance.sum(1, keepdims=True)
    chance /= total
    slope = chance / n
    slope[rows, labels] -= 1 / n

    def curve(moved: Array) -> Array:
        return chance * (moved - (chance * moved).sum(1, keepdims=True)) / n

    return float((np.log(total[:, 0]) - shifted[rows, labels]).sum() / n), slope, curve


def _flat(*pieces: Array) -> Array:
    return np.concatenate([piece.ravel() for piece in pieces])
