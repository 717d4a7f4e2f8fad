"""The data of the examples: Zachary's karate club (inside torch_geometric) and Cora (from ``EXPLAIN_DATA``)."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub, Planetoid
from torch_geometric.transforms import NormalizeFeatures

from models.words import every_dress


def karate_club(labelled: int | None = None) -> Data:
    """Zachary's karate club (Zachary 1977): 34 members, 78 friendships, 4 communities; every other node is tested.

    Args:
        labelled: training nodes in each community, the first ones by number; torch_geometric's one each when None.

    Raises:
        ValueError: as many are not there.

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
    raw = raw_folder(root, "Planetoid/Cora", _CORA, _PLANETOID)
    with tempfile.TemporaryDirectory() as beside:  # the loader writes what it processed next to the raw files
        shutil.copytree(raw, Path(beside, "Cora", "raw"))
        return Planetoid(beside, "Cora", transform=NormalizeFeatures())[0]


class Images(NamedTuple):
    """Images ``[n, C, H, W]`` in [-1, 1] and their classes ``[n]``."""

    images: Tensor
    labels: Tensor


def images(data: str) -> tuple[Images, Images]:
    """`digits`, `mnist` or `worded`: the part that generators learn from, and the part held out from them.

    Raises:
        ValueError: other data.
        FileNotFoundError: MNIST is not at hand.
    """
    known = {"digits": digits, "mnist": mnist, "worded": worded}
    if data not in known:
        raise ValueError(f"data must be one of {', '.join(known)}, got {data!r}")
    return known[data]()


def digits() -> tuple[Images, Images]:
    """Handwritten digits, 8 x 8 (Alpaydin and Kaynak 1998): 1198 to learn from, and 599 others held out.

    >>> train, held_out = digits()
    >>> train.images.shape, held_out.images.shape
    (torch.Size([1198, 1, 8, 8]), torch.Size([599, 1, 8, 8]))
    """
    pixels, labels = load_digits(return_X_y=True)
    return _split(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels))


def worded() -> tuple[Images, Images]:
    """`digits`, each of them in all dresses that words give it (`models.words`)."""
    learned, held_out = (Images(*every_dress(*part)) for part in digits())
    return learned, held_out


def mnist(root: str | os.PathLike[str] | None = None) -> tuple[Images, Images]:
    """The 10000 test digits of MNIST, 28 x 28 (LeCun et al. 1998): 6667 to learn from, and 3333 others held out.

    Args:
        root: the data folder; the environment's ``EXPLAIN_DATA`` when None.

    Raises:
        FileNotFoundError: no such folder, or files of MNIST are missing in it.
        ValueError: files that are not MNIST's.
    """
    names = [f"t10k-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1")]
    raw = raw_folder(root, "MNIST", names, _LECUN)
    found, labels = (_idx(raw / name) for name in names)
    if found.shape != (10_000, 28, 28) or labels.shape != (10_000,):
        raise ValueError(f"{raw} must hold 10000 digits of 28 x 28, got {found.shape} and {labels.shape}")
    return _split(torch.tensor(found[:, None], dtype=torch.float32) / 255, torch.tensor(labels).long())


def _split(brightness: Tensor, labels: Tensor) -> tuple[Images, Images]:
    """Brightness from 0 to 1 as images, in a fixed random order: two thirds, and the rest."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    scaled, labels, count = (2 * brightness - 1)[order], labels[order], round(len(order) * 2 / 3)
    return Images(scaled[:count], labels[:count]), Images(scaled[count:], labels[count:])


def _idx(path: Path) -> np.ndarray:
    """An idx file of bytes: two zeros, 8 for "unsigned byte", the dimensions, their sizes as big-endian int32.

    Raises:
        ValueError: it is none.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        if data[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as an idx file of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise ValueError(f"{path} is not a whole idx file ({error}): fetch it again") from error


def raw_folder(
    root: str | os.PathLike[str] | None, name: str, files: Sequence[str], source: str, inside: str = "raw"
) -> Path:
    """``root/name/inside``, once all its files are there.

    Raises:
        FileNotFoundError: no such folder, or one of the files is missing in it.
    """
    what = name.split("/")[-1]
    remedy = f"set EXPLAIN_DATA to a folder that holds {Path(name, inside)} with {source}"
    root = root or os.environ.get("EXPLAIN_DATA")
    if not root:
        raise FileNotFoundError(f"{what} is not part of this project: {remedy}")
    raw = Path(root, name, inside)
    missing = [file for file in files if not (raw / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{raw} lacks {', '.join(missing)}: {remedy}")
    return raw


_CORA = [f"ind.cora.{part}" for part in ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")]
_PLANETOID = "the eight files ind.cora.* of https://github.com/kimiyoung/planetoid (MIT licence)"
_LECUN = "t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz of the MNIST database (CC BY-SA 3.0)"
