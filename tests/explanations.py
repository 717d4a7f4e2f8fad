"""Explanations of every shape that files, tables and pictures must cope with."""

from __future__ import annotations

import torch

from explain.explanation import Explanation
from explain.types import Players

# a path 10-11-12-13 with both directions, and a chord 10 -> 12
CONTEXT = torch.tensor([[10, 11, 11, 12, 12, 13, 10], [11, 10, 12, 11, 13, 12, 12]])


def edges(scores: list[float] | None = None, error: bool = True, **changes) -> Explanation:
    scores = [0.5, -0.1, 1.5, 0.0, -2.0, 0.25, 0.75] if scores is None else scores
    players = Players(
        "edges",
        torch.arange(100, 107),
        names=tuple(f"{a}→{b}" for a, b in CONTEXT.t().tolist()),
        geometry={"edge_index": CONTEXT, "ends": CONTEXT, "focus": torch.tensor([12])},
    )
    made = {
        "value": 1.4,
        "base": 0.5,
        "error": torch.full((7,), 0.125) if error else None,
        "parts": {"attention": torch.rand(2, 3), "kept": torch.tensor([True, False])},
        "checks": {"efficiency_gap": 1e-17, "exact": True, "note": None, "many": [1, 2.5, "three", [None, False]]},
        "method": "Shapley",
        "settings": {"samples": 64, "players": "edges"},
        "target": {"node": 12, "label": 1, "payoff": "logit", "removal": "delete"},
        "seed": 2**40 + 1,
        "versions": {"torch": "2"},
        "seconds": 0.1,
        "calls": 128,
    }
    return Explanation(torch.tensor(scores, dtype=torch.float64), players, **(made | changes))


def undirected_edges() -> Explanation:
    players = Players(
        "edges",
        torch.tensor([0, 2, 4]),
        groups=(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])),
        geometry={"edge_index": CONTEXT, "ends": CONTEXT[:, [0, 2, 4]], "focus": torch.tensor([12])},
    )
    return Explanation(torch.tensor([1.0, -2.0, 0.5]), players, value=1.0, method="Shapley")


def nodes() -> Explanation:
    players = Players(
        "nodes", torch.tensor([10, 11, 13]), geometry={"edge_index": CONTEXT, "focus": torch.tensor([12])}
    )
    return Explanation(
        torch.tensor([1.0, -2.0, 0.5]), players, value=0.25, base=0.75, method="Lime", checks={"r2": 0.9}
    )


def features() -> Explanation:
    return Explanation(
        torch.tensor([1.0, -2.0, 0.5]), Players("features", torch.tensor([0, 3, 5])), value=0.0, method="Gradient"
    )


def patches() -> Explanation:
    labels = torch.arange(4).reshape(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
    labels[0, 0] = -1
    geometry = {"labels": labels, "image": torch.linspace(0, 1, 64).reshape(1, 8, 8)}
    players = Players("patches", torch.arange(4), geometry=geometry)
    return Explanation(torch.tensor([1.0, -3.0, 0.0, 2.0]), players, value=0.0, method="Shapley")


def train(graph: bool = True) -> Explanation:
    geometry = {"node": torch.tensor([10, 11, 13]), "edge_index": CONTEXT, "focus": torch.tensor([12])} if graph else {}
    players = Players("train", torch.arange(3), names=("node 10", "node 11", "node 13"), geometry=geometry)
    return Explanation(
        torch.tensor([0.3, -0.2, 0.1]), players, value=0.9, method="Influence", target={"payoff": "probability"}
    )


def empty() -> Explanation:
    geometry = {
        "edge_index": torch.zeros(2, 0, dtype=torch.int64),
        "ends": torch.zeros(2, 0, dtype=torch.int64),
        "focus": torch.tensor([3]),
    }
    players = Players("edges", torch.zeros(0, dtype=torch.int64), groups=(), geometry=geometry)
    return Explanation(torch.zeros(0), players, value=0.25, base=0.25, method="Shapley")


EVERY = {
    "edges": edges,
    "undirected": undirected_edges,
    "nodes": nodes,
    "features": features,
    "patches": patches,
    "train": train,
    "empty": empty,
}


def assert_same(found: Explanation, expected: Explanation) -> None:
    """Equal in every bit: tensors with their dtype and shape, everything else with its type."""
    for name in ("value", "base", "checks", "method", "settings", "target", "seed", "versions", "seconds", "calls"):
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name
    assert found.players.kind == expected.players.kind
    assert found.players.names == expected.players.names
    for name in ("groups", "geometry", "index"):
        _assert_equal(getattr(found.players, name), getattr(expected.players, name))
    for name in ("scores", "error", "parts"):
        _assert_equal(getattr(found, name), getattr(expected, name))


def _assert_equal(found, expected) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for name in expected:
            _assert_equal(found[name], expected[name])
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_equal(one, other)
    elif expected is not None:
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert torch.equal(found, expected)


class Run:
    """A run of three steps, as a family gives it."""

    def __init__(self, **asked):
        self.asked = {"question": "trajectory", "steps": 3, **asked}

    def describe(self):
        return self.asked

    def images(self):
        return torch.rand(3, 1, 4, 4)

    def states(self):
        return torch.rand(3, 1, 4, 4)

    def timesteps(self):
        return [900.0, 500.0, 100.0]
