"""Pictures: one kind a file; each takes ``ax=None`` and returns the Axes it drew on.

They take a `Credit`, the data of an `explain.Explanation`, and know nothing of its doors, of models and of methods.
"""

from matplotlib.axes import Axes

from explain.credit import Credit
from explain.plot.agreement import agreement
from explain.plot.attention import attention
from explain.plot.attention_maps import attention_maps
from explain.plot.bars import bars
from explain.plot.costs import costs
from explain.plot.damping import damping
from explain.plot.graph import graph
from explain.plot.heatmap import heatmap
from explain.plot.influence import influence, influence_list
from explain.plot.interactions import interactions
from explain.plot.mislabels import mislabels
from explain.plot.scatter import scatter
from explain.plot.steps import steps
from explain.plot.strip import strip
from explain.plot.training_map import training_map

__all__ = [
    "agreement",
    "attention",
    "attention_maps",
    "bars",
    "costs",
    "damping",
    "graph",
    "heatmap",
    "influence",
    "influence_list",
    "interactions",
    "mislabels",
    "picture",
    "scatter",
    "steps",
    "strip",
    "training_map",
]


def picture(explanation: Credit, ax: Axes | None = None) -> Axes:
    """The picture that fits the players: on the graph, over the image, in time, as a matrix of pairs, or as bars."""
    players = explanation.players
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
    if players.kind in ("steps", "guidance"):
        return steps(explanation, ax=ax)
    return bars(explanation, ax)
