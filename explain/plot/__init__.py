"""Pictures: one kind a file; each takes ``ax=None`` and returns the Axes it drew on.

But for `film`, a file, and `compare`, a panel an answer.

They take a `Credit`, the data of an `explain.Explanation`, and know nothing of its doors, of models and of methods.
"""

from matplotlib.axes import Axes
from torch import Tensor

from explain.credit import Credit
from explain.plot.agreement import agreement
from explain.plot.attention import attention
from explain.plot.attention_maps import attention_maps
from explain.plot.bars import bars, waterfall
from explain.plot.beeswarm import beeswarm
from explain.plot.costs import costs
from explain.plot.curves import curves
from explain.plot.damping import damping
from explain.plot.forks import forks
from explain.plot.graph import graph
from explain.plot.heatmap import heatmap
from explain.plot.influence import influence, influence_list
from explain.plot.interactions import interactions
from explain.plot.mislabels import mislabels
from explain.plot.network import network
from explain.plot.panels import compare
from explain.plot.positions import positions
from explain.plot.runs import film, run_strip
from explain.plot.scatter import scatter
from explain.plot.steps import steps
from explain.plot.strip import strip
from explain.plot.sweep import sweep
from explain.plot.training_map import training_map
from explain.plot.word_maps import word_maps, word_steps
from explain.plot.words import words

__all__ = [
    "agreement",
    "attention",
    "attention_maps",
    "bars",
    "beeswarm",
    "compare",
    "costs",
    "curves",
    "damping",
    "film",
    "forks",
    "graph",
    "heatmap",
    "influence",
    "influence_list",
    "interactions",
    "mislabels",
    "network",
    "picture",
    "positions",
    "run_strip",
    "scatter",
    "steps",
    "strip",
    "sweep",
    "training_map",
    "waterfall",
    "word_maps",
    "word_steps",
    "words",
]


def picture(explanation: Credit, ax: Axes | None = None, over: Tensor | None = None) -> Axes:
    """The picture that fits the players: on the graph, beside the image, in time, as a matrix of pairs, or as bars.

    Raises:
        ValueError: a picture to draw ``over`` for players that are not words.
    """
    players = explanation.players
    if over is not None and (players.kind != "words" or "interactions" in explanation.parts):
        raise ValueError(f"over= is a picture to draw words over; these players are {players.kind}: leave it out")
    if "interactions" in explanation.parts:
        return interactions(explanation, ax)
    if "labels" in players.geometry and players.geometry["labels"].dim() == 2:
        return heatmap(explanation, ax)
    if players.kind == "train" and "images" in players.geometry:
        return strip(explanation, ax)
    if players.kind == "train" and "ends" not in players.geometry:
        return influence(explanation, ax) if "edge_index" in players.geometry else influence_list(explanation, ax)
    if players.kind in ("nodes", "edges", "motifs", "relations", "train") and "edge_index" in players.geometry:
        return graph(explanation, ax)
    if players.kind == "words":
        return (word_maps if "maps" in explanation.parts else words)(explanation, ax, over)
    if players.kind in ("steps", "guidance"):
        return steps(explanation, ax=ax)
    return bars(explanation, ax)
