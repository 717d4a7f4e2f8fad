"""The two-row ladder: labels that features say nothing of, and one known label says everything of."""

from __future__ import annotations

import torch
from torch_geometric.data import Data


def ladder(columns: int = 100, known: float = 0.3, seed: int = 0, localized: bool = False) -> Data:
    """``2 x columns`` nodes whose label, 0 or 1, is another than each neighbour's; one constant feature.

    Node ``row * columns + column`` stands beside its neighbours in the row and across the rung. A network that sees
    features alone is at chance: all nodes but the four corners look alike.

    Args:
        columns: length.
        known: share of labels in ``train_mask``; half of the others are in ``val_mask``, the rest in ``test_mask``.
        seed: of who is known.
        localized: the first columns are known, in place of nodes at random.

    Raises:
        ValueError: fewer than two columns, or a share that leaves nobody known or nobody unknown.

    >>> data = ladder(columns=10)
    >>> bool((data.y[data.edge_index[0]] != data.y[data.edge_index[1]]).all()), int(data.train_mask.sum())
    (True, 6)
    """
    count = round(2 * columns * known)
    if columns < 2 or not 0 < count < 2 * columns:
        raise ValueError(f"columns must be at least 2 and known leave somebody on each side, got {columns}, {known}")
    place = torch.arange(columns)
    along = torch.stack([place[:-1], place[1:]])
    one_way = torch.cat([along, along + columns, torch.stack([place, place + columns])], 1)
    y = (torch.arange(2)[:, None] + place) % 2
    order = torch.randperm(2 * columns, generator=torch.Generator().manual_seed(seed))
    if localized:
        first = torch.stack([place, place + columns], 1).view(-1)[:count]
        order = torch.cat([first, order[~torch.isin(order, first)]])
    masks = torch.zeros(3, 2 * columns, dtype=torch.bool)
    rest = order[count:]
    for mask, own in zip(masks, (order[:count], rest[: len(rest) // 2], rest[len(rest) // 2 :]), strict=True):
        mask[own] = True
    return Data(
        x=torch.ones(2 * columns, 1),
        edge_index=torch.cat([one_way, one_way.flip(0)], 1),
        y=y.reshape(-1),
        train_mask=masks[0],
        val_mask=masks[1],
        test_mask=masks[2],
    )
