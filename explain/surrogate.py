"""A global surrogate: one small decision tree over many explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.tree import DecisionTreeClassifier, export_text

from explain.doubts import doubt
from explain.explainer import Answer, Explainer, seeded
from explain.explanation import Explanation
from explain.progress import in_sight
from explain.types import Players, Target, Unsupported, explained_by

POOR = 0.05  # a surrogate that beats the largest class by less than this says nothing


@dataclass(frozen=True)
class GlobalSurrogate:
    """A decision tree from what got credit to the predicted class: which credit goes with which answer of the model.

    Each target is one row; its columns are the scores of an explainer, aligned by the players' index (features,
    relations, groups of your own). A player that an answer leaves out cannot matter there and has zero. The tree's
    depth keeps it readable; its agreement with the model is measured on rows that it was not grown on.

    Not for: one prediction, or a handful of targets, on which any tree fits.

    Args:
        explainer: gives the scores, such as ``Shapley("features", seed=0)``.
        depth: of the tree.
        leaf: the fewest rows in a leaf.
        holdout: the share of rows kept for measuring.
        seed: of that choice, and of ties in the tree.
        progress: a bar where it takes more than five seconds.

    Raises:
        ValueError: a setting out of range.

    >>> import explain
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    >>> model, draws = explain.wrap(net, task="classification"), torch.Generator().manual_seed(0)
    >>> targets = [model.example(torch.randn(2, generator=draws), 0) for _ in range(40)]
    >>> tree = GlobalSurrogate(explain.Shapley("features"), depth=1, seed=0).fit(targets)
    >>> tree.accuracy, tree.rules().splitlines()[0].split("<=")[0]
    (1.0, '|--- feature 0 ')
    """

    explainer: Explainer
    depth: int = 3
    leaf: int = 2
    holdout: float = 0.25
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.explainer, Explainer):
            raise TypeError(f"explainer must be one such as Shapley('features'), got {type(self.explainer).__name__}")
        if self.depth < 1 or self.leaf < 1 or not 0 < self.holdout < 1:
            raise ValueError(f"need depth >= 1, leaf >= 1 and 0 < holdout < 1, got {self}")

    def fit(self, targets: Sequence[Target]) -> FittedSurrogate:
        """Explain every target and grow the tree.

        Raises:
            ValueError: fewer than 8 targets, one predicted class only, or no players.
            Unsupported: numbers that belong to no class.

        Warns:
            UserWarning: the tree knows the class of held-out rows hardly better than always naming the largest one.
        """
        if len(targets) < 8:
            raise ValueError(f"a surrogate needs at least 8 targets to be grown on and measured, got {len(targets)}")
        for target in targets:
            if not target.has_classes:
                raise Unsupported(
                    f"a surrogate tells predicted classes apart, and this {type(target).__name__} has no classes: its "
                    f"number is explained by {explained_by(target)}"
                )
        seed, generator = seeded(self.seed)
        bar = in_sight(targets, desc="explained", progress=self.progress)
        explanations = [self.explainer.explain(target) for target in bar]
        players = _together(explanations)
        rows = np.stack([_row(why, players) for why in explanations])
        classes = np.array([target.predicted() for target in targets])
        if len(np.unique(classes)) < 2 or not len(players):
            raise ValueError(
                f"all {len(targets)} targets have the same predicted class, or no players: give targets of several"
            )
        order = torch.randperm(len(rows), generator=generator).numpy()
        held, grown = np.split(order, [max(1, round(self.holdout * len(rows)))])
        tree = DecisionTreeClassifier(max_depth=self.depth, min_samples_leaf=self.leaf, random_state=seed % 2**32)
        tree.fit(rows[grown], classes[grown])
        accuracy = float((tree.predict(rows[held]) == classes[held]).mean())
        majority = float((classes[held] == np.bincount(classes[grown]).argmax()).mean())
        if accuracy < majority + POOR:
            doubt(
                f"the surrogate names the class of {accuracy:.0%} of held-out targets, the largest class alone "
                f"{majority:.0%}: these scores do not tell the classes apart, or depth={self.depth} is too little"
            )
        return FittedSurrogate(self.explainer, players, tree, accuracy, majority, len(grown), len(held), seed)


@dataclass(frozen=True)
class FittedSurrogate(Explainer):
    """A surrogate tree, ready to be read (`rules`) or to explain a target through it.

    ``explain`` shares the *tree's* probability of the target's class among the players by TreeSHAP (Lundberg et al.
    2020). ``accuracy``: agreement with the model on held-out targets; ``majority``: that of always naming the largest
    class. ``checks`` repeat both and say whether the tree ``agrees`` with the model on this target.
    """

    explainer: Explainer
    players: Players = field(repr=False)
    tree: DecisionTreeClassifier = field(repr=False)
    accuracy: float
    majority: float
    grown_on: int
    measured_on: int
    seed: int | torch.Generator | None = None

    def rules(self) -> str:
        """The tree as text, one condition a line."""
        return export_text(self.tree, feature_names=list(self.players.names))

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        import shap  # seconds of import, for this alone

        label = target.predicted()
        if label not in self.tree.classes_:
            raise ValueError(f"the tree has seen the classes {self.tree.classes_.tolist()}, this target's is {label}")
        column = self.tree.classes_.tolist().index(label)
        why = self.explainer.explain(target)
        row = _row(why, self.players)[None]
        explainer = shap.TreeExplainer(self.tree)
        scores = np.asarray(explainer.shap_values(row))[0, :, column]
        probability = float(self.tree.predict_proba(row)[0, column])
        return Answer(
            scores=torch.from_numpy(scores.copy()),
            players=self.players,
            value=probability,
            base=float(np.asarray(explainer.expected_value)[column]),
            checks={
                "agrees": int(self.tree.predict(row)[0]) == label,
                "accuracy": self.accuracy,
                "majority": self.majority,
                "efficiency_gap": abs(float(scores.sum() + explainer.expected_value[column]) - probability),
                "depth": int(self.tree.get_depth()),
                "leaves": int(self.tree.get_n_leaves()),
            },
            calls=why.calls,
        )


def _together(explanations: Sequence[Explanation]) -> Players:
    """Everyone who plays in any of the explanations, in order of index.

    Raises:
        ValueError: players of different kinds.
    """
    kinds = {why.players.kind for why in explanations}
    if len(kinds) > 1:
        raise ValueError(f"explanations must be over players of one kind, got {', '.join(sorted(kinds))}")
    named = {key: name for why in explanations for key, name in zip(_keys(why.players), why.players.names, strict=True)}
    keys = sorted(named)
    index = torch.tensor(keys, dtype=torch.long)
    return Players(
        kinds.pop(),
        index.squeeze(1) if index.dim() == 2 and index.size(1) == 1 else index,
        tuple(named[key] for key in keys),
    )


def _keys(players: Players) -> list[tuple[int, ...]]:
    return [tuple(row) for row in players.index.reshape(len(players), -1).tolist()] if len(players) else []


def _row(why: Explanation, players: Players) -> np.ndarray:
    """The scores in the order of these players, zero for those who are not in the answer."""
    scores = dict(zip(_keys(why.players), why.scores.tolist(), strict=True))
    return np.array([scores.get(key, 0.0) for key in _keys(players)])
