"""Why did the model say this? Credit for one number, handed out to players."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explain import analysis, metrics, parallel, plot, report
    from explain.attention import Attention, capture
    from explain.comparison import Comparison, compare
    from explain.counterfactual import Counterfactual
    from explain.discovery import explainers
    from explain.explainer import Explainer
    from explain.explanation import Explanation
    from explain.gradient import Gradient
    from explain.graph_lime import GraphLime
    from explain.influence import (
        DTrak,
        Influence,
        Perturbation,
        Relabelling,
        SelfInfluence,
        TracIn,
        Training,
        Trak,
        recorded,
    )
    from explain.lime import Lime
    from explain.mask import FittedMask, Mask
    from explain.occlusion import Occlusion
    from explain.shapley import Banzhaf, Interactions, Shapley
    from explain.subgraphx import SubgraphX
    from explain.surrogate import FittedSurrogate, GlobalSurrogate
    from explain.types import Game, NonFinite, Objective, Players, Target, Unsupported
    from explain.wrapping import wrap

__all__ = [
    "Attention",
    "Banzhaf",
    "Comparison",
    "Counterfactual",
    "DTrak",
    "Explainer",
    "Explanation",
    "FittedMask",
    "FittedSurrogate",
    "Game",
    "GlobalSurrogate",
    "Gradient",
    "GraphLime",
    "Influence",
    "Interactions",
    "Lime",
    "Mask",
    "NonFinite",
    "Objective",
    "Occlusion",
    "Perturbation",
    "Players",
    "Relabelling",
    "SelfInfluence",
    "Shapley",
    "SubgraphX",
    "Target",
    "TracIn",
    "Training",
    "Trak",
    "Unsupported",
    "analysis",
    "capture",
    "compare",
    "explainers",
    "metrics",
    "parallel",
    "plot",
    "recorded",
    "report",
    "wrap",
]

_HOMES = {
    "explain.attention": ("Attention", "capture"),
    "explain.comparison": ("Comparison", "compare"),
    "explain.counterfactual": ("Counterfactual",),
    "explain.discovery": ("explainers",),
    "explain.explainer": ("Explainer",),
    "explain.explanation": ("Explanation",),
    "explain.gradient": ("Gradient",),
    "explain.graph_lime": ("GraphLime",),
    "explain.influence": (
        *("DTrak", "Influence", "Perturbation", "Relabelling", "SelfInfluence", "TracIn", "Training", "Trak"),
        "recorded",
    ),
    "explain.lime": ("Lime",),
    "explain.mask": ("FittedMask", "Mask"),
    "explain.occlusion": ("Occlusion",),
    "explain.shapley": ("Banzhaf", "Interactions", "Shapley"),
    "explain.subgraphx": ("SubgraphX",),
    "explain.surrogate": ("FittedSurrogate", "GlobalSurrogate"),
    "explain.types": ("Game", "NonFinite", "Objective", "Players", "Target", "Unsupported"),
    "explain.wrapping": ("wrap",),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when first asked for: captum, matplotlib and torch_geometric take seconds each.

    Raises:
        AttributeError: there is no such name.
    """
    if name in ("analysis", "metrics", "parallel", "plot", "report"):
        return importlib.import_module(f"explain.{name}")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        from explain.spelling import there_is

        raise AttributeError(f"module 'explain' has no attribute {name!r}{there_is(name, __all__)}")
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
