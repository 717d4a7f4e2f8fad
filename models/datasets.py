"""The data of the examples: Zachary's karate club (inside torch_geometric) and Cora (from ``EXPLAIN_DATA``)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub, Planetoid
from torch_geometric.transforms import NormalizeFeatures


def karate_club(labelled: int | None = None) -> Data:
    """Zachary's karate club (Zachary 1977): 34 members, 78 friendships, 4 communities; every other node is tested.

    Args:
        labelled: training nodes in each community, the first ones by number; torch_geometric's one each when None.

    >>> data = karate_club(labelled=3)
    >>> data.num_nodes, data.num_edges, int(data.train_mask.sum())
    (34, 156, 12)
    """
    data = KarateClub()[0]
    if labelled is not None:
        if not 1 <= labelled <= 4:
            raise ValueError(f"labelled must be from 1 to 4 (the smallest community has 4 members), got {labelled}")
        first = [(data.y == community).nonzero().view(-1)[:labelled] for community in range(4)]
        data.train_mask = torch.zeros_like(data.train_mask).index_fill(0, torch.cat(first), True)
    data.test_mask = ~data.train_mask
    return data


def cora(root: str | os.PathLike[str] | None = None) -> Data:
    """Cora, the public split (Yang et al. 2016): 2708 papers, 10556 citations, 1433 words, 7 classes, 140/500/1000.

    Rows of ``x`` sum to one. ``root/Planetoid/Cora/raw`` is only read: it may be write-protected.

    Args:
        root: the data folder; the environment's ``EXPLAIN_DATA`` when None.

    Raises:
        FileNotFoundError: no such folder, or files of Cora are missing in it.
    """
    raw = _raw_folder(root)
    with tempfile.TemporaryDirectory() as beside:  # the loader writes what it processed next to the raw files
        shutil.copytree(raw, Path(beside, "Cora", "raw"))
        return Planetoid(beside, "Cora", transform=NormalizeFeatures())[0]


def _raw_folder(root: str | os.PathLike[str] | None) -> Path:
    remedy = (
        "set EXPLAIN_DATA to a folder that holds Planetoid/Cora/raw with the eight files ind.cora.* of "
        "https://github.com/kimiyoung/planetoid (MIT licence)"
    )
    root = root or os.environ.get("EXPLAIN_DATA")
    if not root:
        raise FileNotFoundError(f"Cora is not part of this project: {remedy}")
    raw = Path(root, "Planetoid", "Cora", "raw")
    missing = [name for name in _FILES if not (raw / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{raw} lacks {', '.join(missing)}: {remedy}")
    return raw


_FILES = [f"ind.cora.{part}" for part in ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")]
