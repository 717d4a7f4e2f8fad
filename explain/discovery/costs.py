"""What each way to play a game costs by default, in evaluations of the model, and what its answer is worth."""

from __future__ import annotations

from explain.shapley.settings import chosen

_LIME = 1000  # its default samples


def calls_of(method: str, players: int) -> int:
    """Evaluations of the model by default, at most, of the explainers that play a game.

    >>> calls_of("Shapley", 6), calls_of("Shapley", 34), calls_of("Occlusion", 34)
    (64, 2048, 36)
    """
    if method == "Occlusion":
        return players + 2
    if method == "Lime":
        return min(2**players, _LIME) + 1 if players > 1 else 2
    if is_exact(players):
        return 2**players
    pairs = 2 * min(players, 100) ** 2 if method == "Interactions" else 0
    return max(2048, pairs, 8 * players)


def is_exact(players: int) -> bool:
    """Whether all coalitions are evaluated by default."""
    return chosen("auto", players, None, "sampled") == "exact"


def worth(method: str, players: int) -> str:
    """What an answer is good for, and what it leaves out."""
    how = "exact, over all coalitions" if is_exact(players) else "an estimate with its standard errors"
    return _WORTH[method].format(how=how)


_WORTH = {
    "Shapley": "shares that add up to the number; {how}",
    "Banzhaf": "the order that noise disturbs least; {how}",
    "Interactions": "who needs whom, and who stands in for whom; {how}",
    "Lime": "a linear fit, whose R² says how far it holds",
    "Occlusion": "one evaluation a player; who can be stood in for gets nothing",
    "Counterfactual": "the fewest deletions that change the answer",
    "SubgraphX": "the one connected subgraph that is worth most",
    "GraphLime": "features that go with the predictions around; no sign",
    "Gradient": "by derivatives, many players at once; holds as far as the model is smooth",
    "Mask": "learned masks; another start may find others, and checks say how far they agree",
    "Attention": "where the model looks, which need not be what matters",
    "Influence": "what leaving training examples out would do, first order",
    "SelfInfluence": "which training examples hold themselves up: mislabelled ones",
    "TracIn": "which training examples pushed the number, at the end of training",
    "Trak": "influence through random projections: for large models",
    "DTrak": "influence for losses of denoisers",
}
