"""`ConditionalDiGress` told how many communities a graph is to have, and guided towards it without a classifier."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import networkx as nx
import torch
from torch import Tensor

import models.digress
import models.digress_features
from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.graph_states import GraphNoise
from explain.guard import random_states_kept
from models.checkpoints import Trained, kept, origin
from models.communities import communities
from models.digress import ConditionalDiGress, Recipe, generate, train

PARTS = (2, 3)  # communities; the condition is the place in this list
SIZES = (12, 18)
WEIGHTS = (0.0, 1.0, 2.0, 4.0)
RECIPE = Recipe()


def found_parts(graphs: Sequence[Tensor]) -> list[int]:
    """How many communities greedy modularity finds in each graph of classes ``[n, n]``; isolated nodes are none.

    >>> found_parts(communities(2, SIZES, parts=3))
    [3, 3]
    """
    found = []
    for graph in graphs:
        drawn = nx.from_numpy_array((graph > 0).long().numpy())
        parts = nx.community.greedy_modularity_communities(drawn) if drawn.size() else []
        found.append(sum(len(part) > 1 for part in parts))
    return found


def hits(net: ConditionalDiGress, process: Categorical, weight: float, count: int, seed: int) -> float:
    """The share of generated graphs that have as many communities as they were told to, half of each kind."""
    right = 0
    for told, parts in enumerate(PARTS):
        generator = torch.Generator().manual_seed(seed)
        graphs = generate(net, process, SIZES[0], count // len(PARTS), generator, told, weight)
        right += sum(each == parts for each in found_parts(list(graphs)))
    return right / (count // len(PARTS) * len(PARTS))


def on_parts(
    seed: int,
    recipe: Recipe = RECIPE,
    count: int = 100,
    *,
    judged: int = 64,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> tuple[Trained, GraphNoise]:
    """A `ConditionalDiGress` of graphs of two or three communities, or the same network from the cache, and its noise.

    ``facts``: `hits` at each of `WEIGHTS` of guidance, under ``weights``, and under ``real`` the share of graphs that
    were not trained on in which the judge finds as many as there are.
    """
    graphs = [graph for parts in PARTS for graph in communities(count // len(PARTS), SIZES, seed=parts, parts=parts)]
    conditions = torch.arange(len(PARTS)).repeat_interleave(count // len(PARTS))
    modules = [models.digress_features, models.digress, sys.modules[__name__]]
    config = origin("DiGress told", modules, graphs, recipe=asdict(recipe), seed=seed, judged=judged)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        fitted = train(graphs, recipe, seed=seed, conditions=conditions, progress=progress)
        assert isinstance(fitted.net, ConditionalDiGress)
        real = [
            each == parts
            for parts in PARTS
            for each in found_parts(communities(judged // len(PARTS), (SIZES[0],) * 2, seed=9 + parts, parts=parts))
        ]
        facts = {
            "loss": fitted.loss,
            "real": sum(real) / len(real),
            "weights": {f"{weight:g}": hits(fitted.net, fitted.process, weight, judged, seed) for weight in WEIGHTS},
        }
        return fitted.net.state_dict() | {"kept": fitted.process.kept, "limit": fitted.process.limit}, facts

    found = kept("DiGress told", config, make, folder=folder, fresh=fresh)
    process = Categorical(found.state.pop("kept"), found.state.pop("limit"))
    with random_states_kept():
        net = ConditionalDiGress(len(PARTS), recipe.steps, process.classes, max(len(graph) for graph in graphs))
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached), GraphNoise(process)
