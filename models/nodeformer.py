"""NodeFormer (Wu et al. 2022): attention among all pairs of nodes by random features, in time ``O(N)``."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops

from models.layers import dropout, once
from models.training import Recipe

# the authors' settings for Cora with 20 labels a class; theirs are 1000 epochs without patience
CORA = Recipe(epochs=1000, lr=0.01, weight_decay=5e-4, patience=100, every=2)

_SMALL = 1e-6  # added to each random feature, so that no row of weights is 0


class KernelAttention(nn.Module):
    """``z_i = phi(q_i) sum_j phi(k_j) v_j^T / phi(q_i) sum_j phi(k_j)``, and what comes along edges and their powers.

    ``phi(u) = m^-1/2 (exp(w_r u - |u|^2/2 - max) + 1e-6)_r=1..m`` of ``u`` divided by ``tau^1/2 size^1/4``: over
    orthogonal ``w`` the mean of ``phi(q) phi(k)`` is the kernel ``exp(q k / (tau size^1/2))`` of softmax attention;
    with few ``w`` the weights are others, and those are the network's. In training keys are multiplied by
    ``exp(g/tau)``, ``g`` of a standard Gumbel distribution, for ``samples`` draws of which the mean is taken.

    The projection ``w`` is a buffer: drawn anew at each call in training, and *kept* in eval mode. The authors' code
    draws it in eval mode too, from a seed made of ``sum(q)``, so that of each input another network answers, which
    cannot be explained, and which starts the global generator anew at every call.

    Args:
        size: columns of ``z``, of each head too.
        heads: of them; their outputs are joined by a linear layer.
        orders: powers of the adjacency that are heard along as well, by doubling: ``A``, ``A^2``, ``A^4``, ...
        projections: ``m``.
        samples: draws of Gumbel noise in training.
        tau: the temperature.
    """

    projection: Tensor

    def __init__(self, size: int, heads: int, orders: int, projections: int, samples: int, tau: float) -> None:
        super().__init__()
        self.size, self.heads, self.samples, self.tau = size, heads, samples, tau
        self.query, self.key, self.value = (nn.Linear(size, heads * size) for _ in range(3))
        self.out = nn.Linear(heads * size, size)
        self.bias = nn.Parameter(torch.empty(orders, heads))
        self.register_buffer("projection", torch.empty(projections, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights as layers have them, relations at sigmoid(0.1), a projection from the global generator."""
        for layer in (self.query, self.key, self.value, self.out):
            layer.reset_parameters()
        nn.init.constant_(self.bias, 0.1)
        self.projection = orthogonal(*self.projection.shape).to(self.projection)

    def weights(self, z: Tensor) -> Tensor:
        """The weights ``[heads, N, N]`` of all pairs that `forward` applies in eval mode, rows summing to 1."""
        q, k = self._features(z)
        scores = q @ k.mT
        return scores / scores.sum(-1, keepdim=True)

    def forward(self, z: Tensor, powers: list[Tensor]) -> Tensor:
        """``[N, size] -> [N, size]``; ``powers`` are sparse normalised adjacencies ``[N, N]``."""
        if self.training:
            self.projection = orthogonal(*self.projection.shape).to(z)
        q, k = self._features(z)
        v = self._split(self.value(z))
        heard = self._heard(q, k, v) if not self.training else self._noisily_heard(q, k, v)
        for power, bias in zip(powers, self.bias, strict=True):
            told = (power @ v.transpose(0, 1).flatten(1)).unflatten(1, (self.heads, -1)).transpose(0, 1)
            heard = heard + bias.sigmoid()[:, None, None] * told
        return self.out(heard.transpose(0, 1).flatten(1))

    def along(self, z: Tensor, edge_index: Tensor) -> Tensor:
        """The weights ``[heads, edges]`` of the edges, of target to source."""
        q, k = self._features(z)
        source, target = edge_index
        return (q[:, target] * k[:, source]).sum(-1) / (q @ k.sum(1)[..., None])[:, target, 0]

    def unlikely(self, z: Tensor, edge_index: Tensor) -> Tensor:
        """``-mean(log weight_ij / degree_j)`` over edges and heads, loops among them."""
        edges, _ = add_remaining_self_loops(edge_index, num_nodes=len(z))
        degree = torch.bincount(edges[1], minlength=len(z)).to(z)
        return -(self.along(z, edges).log() / degree[edges[1]]).mean()

    @staticmethod
    def _heard(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q @ (k.mT @ v) / (q @ k.sum(1)[..., None])

    def _noisily_heard(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mean over Gumbel draws, by draw: ``[samples, heads, N, m]`` of keys would not fit a cache."""
        total = torch.zeros_like(v)
        for _ in range(self.samples):
            gumbel = -torch.empty(*k.shape[:2], 1, dtype=k.dtype, device=k.device).exponential_().log()
            total = total + self._heard(q, k * (gumbel / self.tau).exp(), v)
        return total / self.samples

    def _features(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``phi(q)`` and ``phi(k)``, ``[heads, N, m]`` each."""
        return self._phi(self.query(z), (-1,)), self._phi(self.key(z), (-2, -1))

    def _phi(self, u: Tensor, dims: tuple[int, ...]) -> Tensor:
        """``phi`` with the largest exponent taken off: of each row for queries, of all nodes for keys."""
        u = self._split(u) / (math.sqrt(self.tau) * self.size**0.25)
        found = u @ self.projection.T - u.square().sum(-1, keepdim=True) / 2
        largest = (u @ self.projection.T).amax(dims, keepdim=True)
        return ((found - largest).exp() + _SMALL) / math.sqrt(len(self.projection))

    def _split(self, u: Tensor) -> Tensor:
        """``[N, heads size] -> [heads, N, size]``."""
        return u.unflatten(1, (self.heads, -1)).transpose(0, 1)


class NodeFormer(nn.Module):
    """``z' = LayerNorm(z + attention(z))`` from ``elu(LayerNorm(W x))``; linear to classes (Wu et al. 2022).

    Args:
        features: columns of ``x``.
        classes: columns of the logits.
        hidden: columns of ``z``.
        layers: of `KernelAttention`.
        heads: of each.
        orders: see `KernelAttention`.
        projections: see `KernelAttention`, as for the next two.
        samples: Gumbel draws in training.
        tau: the temperature.
        dropout: on ``z`` before each layer and after the last.
        edges: the weight of ``-mean_edges(log weight_ij / degree_j)`` in the loss of training, the paper's lambda.

    >>> NodeFormer(3, 2)(torch.ones(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
    torch.Size([4, 2])
    """

    assumed = MappingProxyType(
        {
            "projection": "the random features of attention are those kept with the weights; the authors' code draws "
            "others for each input, which is another network for each coalition"
        }
    )

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: int = 32,
        layers: int = 2,
        heads: int = 4,
        orders: int = 3,
        projections: int = 30,
        samples: int = 10,
        tau: float = 0.25,
        dropout: float = 0.0,
        edges: float = 1.0,
    ) -> None:
        super().__init__()
        self.orders, self.dropout, self.edges = orders, dropout, edges
        self.first = nn.Linear(features, hidden)
        self.layers = nn.ModuleList(
            KernelAttention(hidden, heads, orders, projections, samples, tau) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers + 1))
        self.last = nn.Linear(hidden, classes)
        self._unlikely: list[Tensor] = []  # of the last call in training mode, by layer

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Features ``[nodes, features]`` and edges ``[2, edges]`` to logits ``[nodes, classes]``."""
        powers = once(self._powers, edge_index, x)
        z = F.elu(self.norms[0](self.first(x)))
        z = dropout(z, self.dropout, self.training)
        self._unlikely = []
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            if self.training and self.edges:
                self._unlikely.append(layer.unlikely(z, edge_index))  # type: ignore[operator] # of a ModuleList
            z = norm(z + layer(z, powers))
            z = dropout(z, self.dropout, self.training)
        return self.last(z)

    def regulariser(self) -> Tensor:
        """What the paper adds to the loss: edges of the graph are to have weight among all pairs."""
        return self.edges * torch.stack(self._unlikely).mean() if self._unlikely else torch.zeros(())

    def _powers(self, edge_index: Tensor, x: Tensor) -> list[Tensor]:
        """``D^-1/2 B D^-1/2`` of ``B`` = A + I and its squares, entries of 1 where there is a walk, sparse."""
        nodes, found = len(x), []
        edges, _ = add_remaining_self_loops(edge_index, num_nodes=nodes)
        for order in range(self.orders):
            if order:
                steps = torch.zeros(nodes, nodes, dtype=x.dtype, device=x.device)
                steps[edges[1], edges[0]] = 1
                edges = (steps @ steps).nonzero().t().flip(0)
            (source, target), weight = gcn_norm(edges, None, nodes, add_self_loops=False, dtype=x.dtype)
            place = torch.stack([target, source])  # a node's row holds those it hears
            found.append(torch.sparse_coo_tensor(place, weight, (nodes, nodes), check_invariants=False).coalesce())
        return found


def orthogonal(rows: int, size: int) -> Tensor:
    """Random vectors ``[rows, size]``, each as long as a normal one, each ``size`` of them orthogonal.

    >>> found = orthogonal(2, 3)
    >>> bool((found[0] @ found[1]).abs() < 1e-5)
    True
    """
    blocks = [torch.linalg.qr(torch.randn(size, size)).Q.T for _ in range(-(-rows // size))]
    return torch.cat(blocks)[:rows] * torch.randn(rows, size).norm(dim=1, keepdim=True)
