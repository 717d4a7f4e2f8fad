"""Who is asked about by panels of graph networks: a node of Cora, or of the karate club where that is not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data

import explain
from models.checkpoints import trained
from models.datasets import cora, karate_club
from models.demo_graph import bridge
from models.training import Recipe

CLUB = Recipe(epochs=200, lr=0.01, weight_decay=5e-4)
QUICK = replace(CLUB, epochs=100)  # of networks that take longer


class Case(NamedTuple):
    """A trained network, its graph and what that is called, and a node between classes that the network gets right."""

    net: nn.Module
    data: Data
    name: str
    node: int


def case(
    kind: type[nn.Module], paper: Recipe, club: Recipe = CLUB, small: Mapping[str, Any] = MappingProxyType({})
) -> Case:
    """``kind`` trained on Cora as in its paper, or on the karate club, from the cache where it was before.

    Args:
        kind: built as ``kind(features, classes)``, of the paper's sizes.
        paper: the recipe for Cora.
        club: that for the karate club.
        small: other sizes for the karate club.
    """
    try:
        return _case(kind, cora(), "Cora", paper)
    except FileNotFoundError:
        return on_club(kind, club, **small)


def on_club(kind: type[nn.Module], recipe: Recipe = CLUB, *, badges: bool = False, **sizes: Any) -> Case:
    """``kind`` trained on the karate club, whatever else is at hand.

    Args:
        kind: as above.
        recipe: how.
        badges: members say of themselves their community, and noise half as large; else who they are.
        sizes: of the network.
    """
    data, name = karate_club(labelled=3), "the karate club"
    if badges:
        noise = torch.randn(len(data.x), 4, generator=torch.Generator().manual_seed(0))
        data.x = F.one_hot(data.y, 4) + noise / 2
    return _case(kind, data, name, recipe, **sizes)


def _case(kind: type[nn.Module], data: Data, name: str, recipe: Recipe, **sizes: Any) -> Case:
    found = trained(kind, data, recipe, seed=0, progress=False, **sizes)
    return Case(found.module, data, name, bridge(data, {kind.__name__: found}))


def links(players: explain.Players, node: int) -> explain.Players:
    """Of undirected edges those at a node."""
    assert players.groups is not None
    at = (players.geometry["ends"] == node).any(0).nonzero()[:, 0]
    drawn = {name: value if name != "ends" else value[:, at] for name, value in players.geometry.items()}
    names, groups = ([part[i] for i in at.tolist()] for part in (players.names, players.groups))
    return explain.Players("edges", players.index[at], tuple(names), tuple(groups), drawn)
