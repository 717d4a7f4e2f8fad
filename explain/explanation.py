"""Explanation: the answer that a user holds, with its doors to files, tables, pictures and words.

The data are those of `Credit`, and each door is one call. A door imports what stands behind it only when it is opened:
pandas, matplotlib and torch_geometric take seconds each. The doors are methods, declared here, and not attached when
the package is imported: type checkers and editors see them. What stands behind them knows `Credit` alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from explain.credit import Credit

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd
    import shap
    import torch_geometric.explain
    from matplotlib.axes import Axes
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Explanation(Credit):
    """Credit for one number, handed out to players, with the method's own proof.

    Args:
        scores: float64 ``[P]``, in the number's own units; positive pushes the number up.
        players: who they are.
        value: the number with every player.
        base: the number with none, or None where there is no such thing.
        error: float64 ``[P]``, one standard error of each score, or None where the scores are exact or it is unknown.
        parts: named tensors: attention maps, structural and learned influence, ...
        checks: the method's own proof as plain JSON values: efficiency gap, surrogate R2, solver residual, ...
        method: the explainer's name; with the next four enough to make it again.
        settings: the explainer's, as plain JSON values.
        target: what was asked, as the target describes it.
        seed: where the explainer's randomness began.
        versions: of explain and of what it computes with.
        seconds: wall time.
        calls: evaluations of the model.
        doubts: what was warned of while it was made, a sentence each.

    Raises:
        ValueError: scores or errors that are not one a player, negative errors, or text that is not Unicode.
        NonFinite: NaN or infinity in scores, errors, parts, value or base.
        TypeError: checks, settings or target that are not JSON values, or doubts that are no sentences.

    >>> import torch
    >>> from explain.types import Players
    >>> players = Players("nodes", torch.tensor([4, 7]))
    >>> why = Explanation(torch.tensor([0.5, -2.0]), players, value=1.0, method="Shapley")
    >>> why
    Shapley: 2 nodes, value 1, top node 7 -2, node 4 +0.5
    >>> why.to_pandas()[["score", "rank"]]
            score  rank
    node 4    0.5     2
    node 7   -2.0     1
    """

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; see `explain.storage`."""
        from explain.storage import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read a file that `save` wrote; see `explain.storage` for the errors."""
        from explain.storage import load

        return load(path, cls)

    def to_pandas(self) -> pd.DataFrame:
        """A table with one row a player: score, error, rank, ids."""
        from explain.conversion import to_pandas

        return to_pandas(self)

    def to_networkx(self) -> nx.MultiDiGraph:
        """The drawn graph context, scores on its nodes or edges."""
        from explain.conversion import to_networkx

        return to_networkx(self)

    def to_pyg(self) -> torch_geometric.explain.Explanation:
        """A ``torch_geometric.explain.Explanation`` over the graph context."""
        from explain.conversion import to_pyg

        return to_pyg(self)

    def to_shap(self) -> shap.Explanation:
        """A ``shap.Explanation`` of one row, for ``shap.plots``."""
        from explain.conversion import to_shap

        return to_shap(self)

    def plot(self, ax: Axes | None = None, over: Tensor | None = None) -> Axes:
        """The picture that fits the players: a graph, a heat-map, a prompt, an attention map, or bars.

        Args:
            ax: where to draw.
            over: of words, the picture ``[3, H, W]`` to draw them over, such as ``run.picture()``.

        Raises:
            ValueError: a picture to draw over for players that are not words.
        """
        from explain.plot import picture

        return picture(self, ax, over)

    def __repr__(self) -> str:
        from explain.summary import line

        return line(self)

    def __str__(self) -> str:
        from explain.summary import text

        return text(self)

    def _repr_html_(self) -> str:
        from explain.summary import html

        return html(self)
