"""Against players that are known to matter; always beside what chance and plain distance reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from explain.explanation import Explanation
from explain.metrics.selection import count, expect
from explain.types import Players

_DRAWS = 2000  # random scores that stand for chance where there are several truths


def truth_of(players: Players, atoms: Tensor) -> Tensor:
    """Which players are true, bool ``[P]`` or ``[alternatives, P]``: those of which an atom is.

    Args:
        players: nodes, edges, ... of a homogeneous graph.
        atoms: bool ``[atoms]`` or ``[alternatives, atoms]``: by node number for nodes, by position in ``edge_index``
            for edges.

    >>> truth_of(Players("edges", torch.tensor([1, 3])), torch.tensor([True, False, False, True]))
    tensor([False,  True])

    Raises:
        TypeError: no players, or no tensor.
        ValueError: a truth that is shorter than the graph has nodes or edges, or players of types, whose numbers mean
            nothing without their type.
    """
    expect((players, Players), (atoms, Tensor))
    if players.groups is None and players.index.dim() != 1:
        raise ValueError("players of a heterogeneous graph have a type and a number: give the truth [P] itself")
    groups = players.groups or players.index.split(1)
    _check_length(players, groups, atoms)
    return torch.stack([atoms.bool()[..., group].any(-1) for group in groups], -1)


def _check_length(players: Players, groups: Sequence[Tensor], atoms: Tensor) -> None:
    """Check that there is a truth for each atom that players own, and for each node that their edges name.

    Raises:
        ValueError: there is not.
    """
    least = max((int(group.max()) + 1 for group in groups if group.numel()), default=0)
    edges = players.geometry.get("edge_index")
    if players.kind == "nodes" and edges is not None and edges.numel():
        least = max(least, int(edges.max()) + 1)
    if atoms.dim() not in (1, 2) or atoms.shape[-1] < least:
        raise ValueError(
            f"atoms must be bool [{players.kind}] or [alternatives, {players.kind}] of the whole graph, at least "
            f"{least}, got {list(atoms.shape)}; a truth of the {len(players)} players goes to auroc and gea as it is"
        )


def auroc(why: Explanation, truth: Tensor, absolute: bool = False) -> float:
    """The chance that a true player scores above a false one, ties counting half; the best of alternative truths.

    Only players are asked, which are the edges and nodes that can reach the target: ranking those that cannot is easy,
    and with them even random scores look good.

    Args:
        why: the explanation.
        truth: bool ``[P]`` or ``[alternatives, P]``, as `truth_of` gives it.
        absolute: whether the largest absolute scores are the top ones.

    Raises:
        ValueError: no player, or every player, is true.
    """
    expect((why, Explanation), (truth, Tensor))
    scores = (why.scores.abs() if absolute else why.scores).numpy()
    return max(_auroc(scores, row) for row in _alternatives(why.players, truth))


def gea(why: Explanation, truth: Tensor, size: float | None = None, absolute: bool = False) -> float:
    """Graph explanation accuracy, ``|S & truth| / |S | truth|`` (Jaccard; Agarwal et al. 2023), 0 to 1.

    Where players tie at the border of ``S``, such as the zeros of a method that names a few only, it is the mean over
    all ways to choose among them: their order says nothing.

    Args:
        why: the explanation.
        truth: bool ``[P]`` or ``[alternatives, P]``; of alternatives the best counts.
        size: how many top players are ``S``; as many as are true when None.
        absolute: whether the largest absolute scores are the top ones.
    """
    expect((why, Explanation), (truth, Tensor))
    scores = (why.scores.abs() if absolute else why.scores).numpy()
    rows = _alternatives(why.players, truth)
    return max(_jaccard(scores, row, int(row.sum()) if size is None else count(len(row), size)) for row in rows)


def distance(players: Players) -> Tensor | None:
    """Minus the hops to the explained node, float64 ``[P]``: the score of knowing nothing but the graph.

    An edge is as far as its nearer end. None where nothing is drawn around a node: whole graphs, features.

    >>> geometry = {"edge_index": torch.tensor([[0, 1], [1, 2]]), "focus": torch.tensor([2])}
    >>> distance(Players("nodes", torch.arange(2), geometry={**geometry, "node": torch.arange(2)}))
    tensor([-2., -1.], dtype=torch.float64)
    """
    geometry = players.geometry
    if not {"edge_index", "focus"} <= set(geometry) or not len(geometry["focus"]):
        return None
    if {"node", "ends"}.isdisjoint(geometry):
        return None
    hops = _hops(geometry["edge_index"], geometry["focus"])
    far = max(hops.values()) + 1
    if "ends" in geometry:
        return torch.tensor(
            [-min(hops.get(u, far), hops.get(v, far)) for u, v in geometry["ends"].t().tolist()]
        ).double()
    return torch.tensor([-hops.get(node, far) for node in geometry["node"].tolist()]).double()


def ground_truth(explanations: Mapping[str, Explanation], truth: Tensor, absolute: bool = False) -> pd.DataFrame:
    """`auroc` and `gea` of explanations of one target, one row each, and two rows to read them against.

    "random" is what random scores reach on average (exactly for one truth, from 2,000 draws for the best of several);
    "distance" scores a player by its nearness to the target.

    Raises:
        ValueError: no explanations, or of other players.
    """
    expect((explanations, Mapping), (truth, Tensor))
    if not explanations:
        raise ValueError("give at least one explanation")
    first = next(iter(explanations.values()))
    rows = {}
    for name, why in explanations.items():
        if len(why.players) != len(first.players) or not torch.equal(why.players.index, first.players.index):
            raise ValueError(f"{name} has other players than {next(iter(explanations))}: explain the same target")
        rows[name] = (auroc(why, truth, absolute), gea(why, truth, absolute=absolute))
    rows["random"] = _chance(_alternatives(first.players, truth))
    near = distance(first.players)
    if near is not None:
        plain = Explanation(near, first.players, value=0.0)
        rows["distance"] = (auroc(plain, truth), gea(plain, truth))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["auroc", "gea"])


def _alternatives(players: Players, truth: Tensor) -> np.ndarray:
    """The truths that distinguish anybody, bool ``[alternatives, P]``.

    Raises:
        ValueError: another length, or one truth for everybody.
    """
    if truth.dim() not in (1, 2) or truth.shape[-1] != len(players):
        raise ValueError(
            f"truth must be bool [{len(players)}] or [alternatives, {len(players)}], got {list(truth.shape)}"
        )
    rows = np.atleast_2d(truth.bool().numpy())
    rows = rows[rows.any(1) & ~rows.all(1)]
    if not len(rows):
        raise ValueError("truth must hold for some players and not for others: nothing can be ranked")
    return rows


def _auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    ranks, positives = stats.rankdata(scores), int(truth.sum())
    wins = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * (len(truth) - positives)))


def _jaccard(scores: np.ndarray, truth: np.ndarray, size: int) -> float:
    """Expected Jaccard index of the ``size`` highest scores, those that tie at the border drawn at random."""
    border = np.sort(scores)[len(scores) - size] if size else np.inf
    above, tied = scores > border, scores == border
    left = size - int(above.sum())
    if left == tied.sum():
        shared = int((truth & (above | tied)).sum())
        return shared / (size + int(truth.sum()) - shared)
    drawn = np.arange(left + 1)  # how many of those drawn are true
    shared = (above & truth).sum() + drawn
    chance = stats.hypergeom.pmf(drawn, tied.sum(), (tied & truth).sum(), left)
    return float((chance * shared / (size + truth.sum() - shared)).sum())


def _chance(truths: np.ndarray) -> tuple[float, float]:
    """What random scores reach, `auroc` and `gea`, where the best of several truths counts."""
    if len(truths) == 1:
        return 0.5, _jaccard(np.zeros(truths.shape[1]), truths[0], int(truths[0].sum()))
    ranks = np.random.default_rng(0).random((_DRAWS, truths.shape[1])).argsort(1).argsort(1)
    found = []
    for row in truths:
        size, others = int(row.sum()), int((~row).sum())
        wins = ranks[:, row].sum(1) - size * (size - 1) / 2
        shared = (ranks[:, row] >= others).sum(1)
        found.append((wins / (size * others), shared / (2 * size - shared)))
    area, overlap = np.max(found, axis=0).mean(1)
    return float(area), float(overlap)


def _hops(edge_index: Tensor, focus: Tensor) -> dict[int, int]:
    """Hops to each node from the focus, whichever way the edges run: a pair of both is drawn as one of them."""
    beside: dict[int, list[int]] = {}
    for source, target in edge_index.t().tolist():
        beside.setdefault(target, []).append(source)
        beside.setdefault(source, []).append(target)
    found = dict.fromkeys(focus.tolist(), 0)
    queue = deque(found)
    while queue:
        node = queue.popleft()
        for other in beside.get(node, ()):
            if other not in found:
                found[other] = found[node] + 1
                queue.append(other)
    return found
