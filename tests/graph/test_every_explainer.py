"""Each public explainer on one small graph: many targets, files, pictures, one line, and comparison with itself."""

import inspect

import matplotlib as mpl

mpl.use("Agg")

import pytest
import torch
from explanations import assert_same
from graph_cases import network, random_graph

import explain
from explain import (
    Attention,
    Banzhaf,
    Counterfactual,
    GlobalSurrogate,
    Gradient,
    GraphLime,
    Influence,
    Interactions,
    Lime,
    Mask,
    Occlusion,
    SelfInfluence,
    Shapley,
    SubgraphX,
    TracIn,
    Trak,
)
from explain.explanation import Explanation

pytestmark = pytest.mark.filterwarnings(
    # the network is not trained, and what each method says of that has tests of its own
    "ignore:the model is not at:UserWarning",
    "ignore:no .* or fewer:UserWarning",
    "ignore:the surrogate names:UserWarning",
    "ignore:the loss is not convex:UserWarning",
    "ignore:the standard errors are over half:UserWarning",
)


@pytest.fixture(scope="module")
def model():
    return explain.wrap(network("gat", seed=2), random_graph(nodes=16, edges=20), weight_decay=0.1)


EXPLAINERS = {
    "Shapley": lambda model: Shapley("edges", samples=128, seed=0),
    "Banzhaf": lambda model: Banzhaf("nodes", samples=128, seed=0),
    "Interactions": lambda model: Interactions("nodes", samples=256, seed=0),
    "Lime": lambda model: Lime("edges", samples=128, seed=0),
    "Occlusion": lambda model: Occlusion("motifs"),
    "Gradient": lambda model: Gradient("edges"),
    "Mask": lambda model: Mask("edges", epochs=3, repeats=2, seed=0),
    "FittedMask": lambda model: Mask("edges", method="pg_explainer", epochs=2, repeats=1, seed=0).fit(
        [model.node(i) for i in (1, 2)]
    ),
    "Attention": lambda model: Attention(),
    "GraphLime": lambda model: GraphLime(seed=0),
    "SubgraphX": lambda model: SubgraphX(size=2, rollouts=2, samples=8, seed=0),
    "Counterfactual": lambda model: Counterfactual("edges", limit=2, budget=200),
    "FittedSurrogate": lambda model: GlobalSurrogate(Occlusion("features"), depth=1, seed=0).fit(
        [model.node(i) for i in range(12)]
    ),
    "Influence": lambda model: Influence(solver="cg", curvature="ggn", damping=0.1, seed=0),
    "SelfInfluence": lambda model: SelfInfluence(Influence(solver="cg", curvature="ggn", damping=0.1, seed=0)),
    "TracIn": lambda model: TracIn([model.module.state_dict()]),
    "Trak": lambda model: Trak(seed=0),
}
ELSEWHERE = {  # of training data only: tests/influence
    "DTrak",
    "Perturbation",
    "Relabelling",
}


def test_no_explainer_is_forgotten():
    public = {name for name in explain.__all__ if inspect.isclass(getattr(explain, name))}
    explainers = {name for name in public if issubclass(getattr(explain, name), explain.Explainer)} - {"Explainer"}
    assert explainers == set(EXPLAINERS) | ELSEWHERE


@pytest.mark.parametrize("name", EXPLAINERS)
def test_it_works_with_all_that_takes_explanations(name, model, tmp_path):
    explainer = EXPLAINERS[name](model)
    targets = [model.node(1), model.node(2)]
    found = explain.parallel.explain_many(explainer, targets, tmp_path / "many")
    alone = explainer.explain(model.node(1))
    assert torch.equal(found[0].scores, alone.scores)
    again = explain.parallel.explain_many(explainer, targets, tmp_path / "many")
    for one, other in zip(found, again, strict=True):
        assert_same(other, one)
    alone.save(tmp_path / "why.safetensors")
    assert_same(Explanation.load(tmp_path / "why.safetensors"), alone)
    assert repr(alone).startswith(f"{name}: {len(alone.players)} ")
    assert alone.method == name
    assert "<table>" in alone._repr_html_()
    assert list(alone.to_pandas()["score"]) == alone.scores.tolist()
    axes = alone.plot()
    assert axes.has_data() or axes.texts
    same = explain.compare(alone, found[0])
    assert (same.pairs[0].spearman == pytest.approx(1)) or not alone.scores.unique().numel() > 1
