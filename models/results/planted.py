"""Systems whose data are not at hand, held to a law that was planted; and forecasts."""

from __future__ import annotations

from typing import Any

from models import additive_law, chickenpox, likes, relations, variances
from models.results.page import Row


def pairs_gain(seed: int) -> dict[str, Any]:
    """By how much more of the variance pairs explain than one member at a time."""
    pairs, alone = (variances.load_or_train(k, seed=seed).facts for k in (2, 1))
    seconds = pairs["cpu_seconds"] + alone["cpu_seconds"]
    return {"test_accuracy": pairs["test_accuracy"] - alone["test_accuracy"], "cpu_seconds": seconds}


def sight_gain(seed: int) -> dict[str, Any]:
    """By how much a network that knows relations is better than one that takes them for one kind."""
    facts = relations.load_or_train(seed).facts
    return facts | {"test_accuracy": facts["test_accuracy"] - facts["blind"]}


def graph_cost(seed: int) -> dict[str, Any]:
    """By how much the squared error of each county is smaller without the graph than with it."""
    given, alone = (chickenpox.load_or_train(graph, seed=seed).facts for graph in (True, False))
    seconds = given["cpu_seconds"] + alone["cpu_seconds"]
    return {"test_accuracy": 1 - alone["per_node"] / given["per_node"], "cpu_seconds": seconds}


ROWS = [
    Row(
        "R-GCN",
        "planted: the class is which of two relations tells more (AIFB's triples are not at hand)",
        "100, the law; AIFB 95.8 (Schlichtkrull et al. 2018)",
        95.0,
        lambda seed: relations.load_or_train(seed).facts,
    ),
    Row("R-GCN less blind to relations", "the same, in points", "50, chance without relations", 40.0, sight_gain),
    Row(
        "Janossy, two together",
        "planted: variances of sets of 2 to 6, the share that is explained",
        "100, a mean over ordered pairs (Murphy et al. 2019)",
        95.0,
        lambda seed: variances.load_or_train(2, seed=seed).facts,
    ),
    Row("Janossy, two less one", "the same, in points", "better (Murphy et al. 2019)", 0.0, pairs_gain),
    Row(
        "LightGCN",
        "planted groups: recall@20, from that of what is popular (0) to that of the law (100)",
        "none on these (He et al. 2020)",
        50.0,
        lambda seed: likes.load_or_train(seed).facts,
    ),
    Row(
        "Additive glass box",
        "planted sum: the share of its terms, by feature and by edge, that the network's own explain",
        "100, the law (Hastie and Tibshirani 1986)",
        95.0,
        lambda seed: additive_law.load_or_train(seed).facts,
    ),
    Row(
        "Forecaster without the graph",
        "chickenpox, last three fifths of the weeks: by how much each county's error is smaller than with it",
        "often better (Wu et al. 2023)",
        0.0,
        graph_cost,
        seeds=5,
    ),
]
