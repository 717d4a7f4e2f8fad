"""Pictures as the page holds them: small PNGs that the browser enlarges without smoothing, and outlines of regions."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from itertools import pairwise

import numpy as np
from PIL import Image
from torch import Tensor

from explain.plot.pictures import alike

MOST = 384  # pixels of the longer side; a larger picture is made smaller


def pngs(images: Tensor) -> list[str]:
    """Pictures ``[n, C, H, W]``, all on one scale, as data that an ``<img>`` takes.

    >>> pngs(Tensor([[[[0.0, 1.0]]]]))[0][:22]
    'data:image/png;base64,'
    """
    return [data(picture) for picture in alike(images)] if len(images) else []


def frames(images: Tensor) -> list[str]:
    """Pictures ``[n, C, H, W]``, each on its own scale: the first guesses of a run are far from the last ones.

    >>> first, second = frames(Tensor([[[[0.0, 1.0]]], [[[0.0, 9.0]]]]))
    >>> first == second
    True
    """
    return [picture for image in images for picture in pngs(image[None])]


def data(picture: np.ndarray) -> str:
    """One picture, ``[H, W]`` or ``[H, W, 3]`` from 0 to 1."""
    made = Image.fromarray((picture * 255).round().astype(np.uint8))
    made.thumbnail((MOST, MOST))
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def outlines(labels: Tensor) -> dict[int, str]:
    """Each player's pixels as an SVG path of rectangles, in pixels: runs of a row, joined down equal rows.

    >>> import torch
    >>> outlines(torch.tensor([[0, 0, 1], [0, 0, -1]]))
    {0: 'M0 0h2v2h-2z', 1: 'M2 0h1v1h-1z'}
    """
    height = labels.size(0)
    open_runs: dict[tuple[int, int, int], int] = {}  # (player, start, end): the row where it began
    found: defaultdict[int, list[str]] = defaultdict(list)
    rows = labels.cpu().numpy()
    for y in range(height + 1):
        runs = set(_runs(rows[y])) if y < height else set()
        for run in [run for run in open_runs if run not in runs]:
            player, start, end = run
            top = open_runs.pop(run)
            found[player].append(f"M{start} {top}h{end - start}v{y - top}h-{end - start}z")
        for run in runs:
            open_runs.setdefault(run, y)
    return {player: "".join(paths) for player, paths in sorted(found.items()) if player >= 0}


def _runs(row: np.ndarray) -> list[tuple[int, int, int]]:
    ends = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    return [(int(row[start]), start, end) for start, end in pairwise(ends) if end > start]
