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

    from explain.types import Players, Target


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
    >>> len(why), why["node 7"]
    (2, -2.0)
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

    def equals(self, other: Explanation) -> bool:
        """Whether the other is the same answer to the bit, as one that was saved and loaded is; see `differences`."""
        return not self.differences(other)

    def differences(self, other: Explanation) -> tuple[str, ...]:
        """What differs in another answer, in words: all but the wall time, every number to the bit.

        Raises:
            TypeError: no explanation.

        >>> import torch
        >>> from dataclasses import replace
        >>> from explain.types import Players
        >>> why = Explanation(torch.ones(2), Players("nodes", torch.tensor([4, 7])), value=1.0, seed=0)
        >>> why.differences(replace(why, scores=torch.tensor([1.0, 1.5]), seed=3))
        ('scores: up to 0.5 apart', 'seed: 0 here, 3 there')
        """
        from explain.sameness import differences

        if not isinstance(other, Credit):
            raise TypeError(f"an answer is compared with another, got {type(other).__name__}")
        return tuple(differences(self, other))

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
        """A ``shap.Explanation`` of one row, for ``shap.plots``; its base is NaN where the method has none."""
        from explain.conversion import to_shap

        return to_shap(self)

    @classmethod
    def from_pyg(
        cls,
        found: torch_geometric.explain.Explanation,
        target: Target,
        players: str | Players = "edges",
        method: str = "torch_geometric",
    ) -> Explanation:
        """What torch_geometric's `Explainer` found about the same number, over the target's players.

        ``edge_mask [edges]`` is credit of "edges" (both directions of a pair are summed), ``node_mask [nodes or 1,
        features or 1]`` of "nodes", "features" or "node_features", summed. Edges are found by their ends. Credit of
        what cannot matter to the number, and does not play, is left out: ``checks["left_out"]``, with a doubt.

        Args:
            found: on the whole graph, or on a part whose ``node_id`` says which.
            target: the question; its number is asked again.
            players: a kind or players of the target's own.
            method: what to call it, such as "GNNExplainer".

        Raises:
            ValueError: a mask that is missing, of another graph, node or class, or of groups.
            TypeError: no target.

        >>> import torch, explain
        >>> from torch_geometric import data, nn
        >>> graph = data.Data(torch.eye(3), torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([0, 1, 0]))
        >>> target = explain.wrap(nn.GCN(3, 4, 2, 2), graph).node(2)
        >>> why = explain.Shapley("edges").explain(target)
        >>> (Explanation.from_pyg(why.to_pyg(), target).scores - why.scores).abs().max() < 1e-6
        tensor(True)
        """
        from explain.elsewhere import from_pyg

        return from_pyg(found, target, players, method, cls)

    @classmethod
    def from_captum(
        cls,
        attributions: Tensor,
        target: Target,
        players: str | Players = "features",
        method: str = "captum",
        *,
        label: int | None = None,
        delta: float | Tensor | None = None,
        baseline: float | Tensor = 0.0,
    ) -> Explanation:
        """What one of captum's methods attributed to one input of the model, summed over each player's entries.

        Attributions do not say which class they are of. It is proved where they are complete, as those of integrated
        gradients and DeepLift: ``sum = number(input) - number(baseline) + delta`` of the target's own number, with
        ``checks["completeness_gap"]``; it is doubted where they are not and ``label`` does not say it.

        Args:
            attributions: of the input that the target explains, ``[*input]`` or ``[1, *input]``; on graphs of ``x``,
                ``[nodes, features]``.
            target: the question; its number is asked again.
            players: a kind or players of the target's own.
            method: what to call it, such as "DeepLift".
            label: the class or output they are of, captum's ``target=``.
            delta: what captum returns beside them with ``return_convergence_delta=True``: they must be complete then.
            baseline: from which they lead, captum's ``baselines=``: a number, or a tensor like the input.

        Raises:
            ValueError: attributions of another shape than the input's, of another class, or not complete with delta.
            TypeError: no tensor, or no target.

        Warns:
            UserWarning: nothing tells of which class they are.

        >>> import captum.attr, torch, explain
        >>> net, x = torch.nn.Linear(3, 1), torch.ones(3)
        >>> target = explain.wrap(net, task="regression").example(x)
        >>> found = captum.attr.IntegratedGradients(net).attribute(x[None])
        >>> Explanation.from_captum(found, target, method="IntegratedGradients").players
        Players: 3 features: feature 0, feature 1, feature 2
        """
        from explain.elsewhere import Said, from_captum

        return from_captum(attributions, target, players, method, Said(label, delta, baseline), cls)

    @classmethod
    def from_shap(
        cls, found: shap.Explanation, target: Target | None = None, players: str | Players = "features"
    ) -> Explanation:
        """One row of ``shap`` values. With the target, ``checks["efficiency_gap"]`` is how far they miss its number.

        Args:
            found: one row of one output, ``values [features]``.
            target: the question, if its number is to be asked again; else it is base + the sum of the values.
            players: a kind or players of the target's own; without a target the columns by shap's names.

        Raises:
            ValueError: several rows or outputs, another number of players than the target's, or no base (NaN) and no
                target.
            TypeError: no target.

        >>> import numpy as np, shap
        >>> found = shap.Explanation(np.array([0.5, -2.0]), base_values=1.0, feature_names=["age", "dose"])
        >>> Explanation.from_shap(found)
        SHAP: 2 features, value -0.5, top dose -2, age +0.5
        """
        from explain.elsewhere import from_shap

        return from_shap(found, target, players, cls)

    def plot(self, ax: Axes | None = None, over: Tensor | None = None) -> Axes:
        """The picture that fits the players: a graph, a heat-map, a prompt, an attention map, or bars.

        Args:
            ax: where to draw.
            over: of words, the picture ``[3, H, W]`` to draw with them, such as ``run.picture()``.

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
        from explain.plot.inline import inline
        from explain.summary import html

        return inline(self.plot, repr(self)) + html(self)
