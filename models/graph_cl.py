"""GraphCL (You et al. 2020): an encoder of graphs, trained so that two augmentations of a graph look alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GINConv, global_mean_pool

Augmentation = Callable[[Data, torch.Generator], Data]


class GraphEncoder(nn.Module):
    """``[mean_i h_i^1, ..., mean_i h_i^L]``, ``h`` from GIN layers with BatchNorm (Xu et al. 2019), all layers joined.

    Args:
        features: columns of ``x``.
        hidden: columns of each layer.
        layers: how many.

    >>> from models.content_style import content_style
    >>> GraphEncoder(10, hidden=8, layers=2)(content_style(3)).shape
    torch.Size([3, 16])
    """

    def __init__(self, features: int, hidden: int = 32, layers: int = 5) -> None:
        super().__init__()
        sizes = [features, *[hidden] * layers]
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(a, hidden), nn.ReLU(), nn.Linear(hidden, hidden))) for a in sizes[:-1]
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.size = hidden * layers

    def forward(self, graphs: Sequence[Data] | Batch) -> Tensor:
        """Graphs to representations ``[graphs, hidden * layers]``."""
        batch = graphs if isinstance(graphs, Batch) else Batch.from_data_list(list(graphs))
        x, pooled = batch.x, []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, batch.edge_index)).relu()
            pooled.append(global_mean_pool(x, batch.batch, batch.num_graphs))
        return torch.cat(pooled, 1)


def contrast(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent: of all second views the own one must be the nearest, and the other way round; a scalar."""
    near = normalize(first, dim=1) @ normalize(second, dim=1).T / temperature
    own = torch.arange(len(near))
    return (cross_entropy(near, own) + cross_entropy(near.T, own)) / 2


def pretrain(
    graphs: Sequence[Data],
    augmentation: Augmentation,
    encoder: GraphEncoder,
    epochs: int = 20,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
) -> GraphEncoder:
    """The encoder, trained on two views of each graph through a projection that is thrown away, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Sequential(nn.Linear(encoder.size, encoder.size), nn.ReLU(), nn.Linear(encoder.size, encoder.size))
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=lr)
    encoder.train()
    for _ in range(epochs):
        for some in torch.randperm(len(graphs), generator=generator).split(batch_size):
            batch = Batch.from_data_list([graphs[i] for i in some.tolist()])
            loss = contrast(*(head(encoder(augmentation(batch, generator))) for _ in range(2)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return encoder.eval()
