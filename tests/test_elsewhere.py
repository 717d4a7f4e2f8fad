"""Answers of torch_geometric, captum and shap become ours: exact both ways, over the same players, or refused."""

import warnings

import captum.attr
import numpy as np
import pytest
import shap
import torch
from torch_geometric import explain as pyg
from torch_geometric import nn
from torch_geometric.data import Data

import explain
from explain import Explanation


@pytest.fixture
def ring():
    """Six nodes in a ring, both ways, and a seventh that reaches nobody."""
    around = torch.arange(6)
    there = torch.stack([around, around.roll(-1)])
    torch.manual_seed(0)
    data = Data(torch.randn(7, 3), torch.cat([there, there.flip(0)], 1), y=torch.tensor([0, 1, 0, 1, 0, 1, 0]))
    return nn.GCN(3, 4, 2, 2).eval(), data


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_there_and_back_on_a_graph(ring, kind):
    target = explain.wrap(*ring).node(0)
    why = explain.Shapley(kind).explain(target)
    back = Explanation.from_pyg(why.to_pyg(), target, kind, method="Shapley")
    assert torch.equal(back.scores, why.scores.float().double())
    assert back.players.names == why.players.names
    assert (back.value, back.method) == (why.value, "Shapley")
    assert not back.doubts


def test_there_and_back_of_pairs(ring):
    target = explain.wrap(*ring).node(0)
    why = explain.Shapley(target.players("edges", undirected=True)).explain(target)
    back = Explanation.from_pyg(why.to_pyg(), target, why.players)
    assert torch.equal(back.scores, why.scores.float().double())


def test_there_and_back_of_a_row():
    net = torch.nn.Linear(3, 1)
    target = explain.wrap(net, task="regression", feature_names=("a", "b", "c")).example(torch.randn(3))
    why = explain.Shapley("features").explain(target)
    for back in (Explanation.from_shap(why.to_shap()), Explanation.from_shap(why.to_shap(), target)):
        assert torch.equal(back.scores, why.scores)
        assert back.players.names == ("a", "b", "c")
        assert (back.base, back.value) == (why.base, pytest.approx(why.value))
    assert back.checks["efficiency_gap"] < 1e-6


def test_an_explainer_of_torch_geometric_is_compared_with_ours(ring):
    net, data = ring
    explainer = pyg.Explainer(
        net,
        pyg.CaptumExplainer("Saliency"),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
    )
    with warnings.catch_warnings(action="ignore"):  # captum, of inputs that torch_geometric gives it
        found = explainer(data.x, data.edge_index, index=0)
    target = explain.wrap(net, data).node(0)
    for other, message in (
        (explain.wrap(net, data).node(1), "of node 0 was given, and the target asks about node 1"),
        (explain.wrap(net, data).node(0, label=1 - target.label), f"of class {target.label} was given"),
    ):
        with pytest.raises(ValueError, match=message):
            Explanation.from_pyg(found, other, "edges")
    why = Explanation.from_pyg(found, target, "edges", method="Saliency")
    by_ends = {(a, b): s for (a, b), s in zip(data.edge_index.t().tolist(), found.edge_mask.tolist(), strict=True)}
    for (a, b), score in zip(why.players.geometry["ends"].t().tolist(), why.scores.tolist(), strict=True):
        assert score == pytest.approx(by_ends[a, b])
    assert why.scores.abs().max() > 0
    compared = explain.compare(why, explain.Occlusion("edges").explain(target))
    assert len(compared.labels) == 2
    columns = Explanation.from_pyg(found, target, "features")
    assert columns.scores.tolist() == pytest.approx(found.node_mask.sum(0).tolist(), rel=1e-5)
    entries = Explanation.from_pyg(found, target, "node_features")
    assert entries.scores.tolist() == pytest.approx(found.node_mask[tuple(entries.players.index.t())].tolist())
    pairs = Explanation.from_pyg(found, target, target.players("edges", undirected=True))
    a, b = pairs.players.geometry["ends"][:, 0].tolist()
    assert pairs.scores[0] == pytest.approx(by_ends[a, b] + by_ends[b, a])


def test_credit_of_what_does_not_play_is_told(ring):
    net, data = ring
    target = explain.wrap(net, data).node(0)
    mask = torch.ones(7, 1)
    with pytest.warns(UserWarning, match="no player of this target"):
        why = Explanation.from_pyg(pyg.Explanation(node_mask=mask, edge_index=data.edge_index), target, "nodes")
    assert why.checks["left_out"] == 7 - len(why.players)
    assert why.doubts


def test_captum_on_an_image_is_summed_over_patches():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    x = torch.rand(1, 4, 4)
    target = explain.wrap(net, task="classification").example(x, label=1)
    found = captum.attr.InputXGradient(net).attribute(x[None].requires_grad_(), target=1)
    why = Explanation.from_captum(found, target, target.players("patches", size=2), method="InputXGradient")
    blocks = found[0, 0].reshape(2, 2, 2, 2).sum((1, 3)).reshape(-1)
    assert why.scores.tolist() == pytest.approx(blocks.tolist(), rel=1e-5)
    assert why.checks == {"made_by": "captum", "left_out": 0.0, "completeness_gap": pytest.approx(0, abs=1e-6)}


def test_captum_on_features_of_nodes(ring):
    net, data = ring
    target = explain.wrap(net, data).node(0)
    credit = torch.arange(21.0).reshape(7, 3)
    why = Explanation.from_captum(credit, target, "features", label=target.label)
    assert why.scores.tolist() == credit.sum(0).tolist()


def curved(outputs=3):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, outputs)).eval()
    return net, torch.tensor([0.5, -1.0, 2.0, 0.3])


@pytest.mark.parametrize("baseline", [0.0, torch.tensor([0.1, 0.2, -0.3, 0.4])])
@pytest.mark.parametrize("steps", [5, 60])
def test_the_class_of_complete_attributions_is_proved(baseline, steps):
    """Few steps are not complete by themselves, and are with what captum says is missing."""
    net, x = curved()
    model = explain.wrap(net, task="classification")
    method = captum.attr.IntegratedGradients(net, multiply_by_inputs=True)
    base = baseline if isinstance(baseline, float) else baseline[None]
    found, delta = method.attribute(
        x[None], base, target=2, n_steps=steps, method="riemann_left" if steps == 5 else "gausslegendre",
        return_convergence_delta=True,
    )  # fmt: skip
    why = Explanation.from_captum(found, model.example(x, label=2), delta=delta, baseline=baseline)
    number = net(torch.stack([x, torch.zeros(4) + baseline]))[:, 2].tolist()
    exact = abs(found.sum().item() - delta.item() - number[0] + number[1])
    assert why.checks["completeness_gap"] == pytest.approx(exact, abs=1e-6)
    assert why.checks["completeness_gap"] < 1e-5
    assert not why.doubts
    if steps == 60:
        assert not Explanation.from_captum(found, model.example(x, label=2), baseline=baseline).doubts
    for other in (model.example(x, label=1), model.example(x, label=2, payoff="probability")):
        with pytest.raises(ValueError, match="they are of another class or number, or from another baseline="):
            Explanation.from_captum(found, other, delta=delta, baseline=baseline)
        with pytest.warns(UserWarning, match=f"nothing tells that these attributions are of class {other.label}"):
            doubted = Explanation.from_captum(found, other, baseline=baseline)
        assert doubted.doubts


def test_attributions_that_are_not_complete_are_of_the_class_that_is_said():
    net, x = curved()
    model = explain.wrap(net, task="classification")
    found = captum.attr.Saliency(net).attribute(x[None].requires_grad_(), target=1)
    assert not Explanation.from_captum(found, model.example(x, label=1), label=1).doubts
    with pytest.raises(ValueError, match="of class 1 were given, and the target asks about class 2"):
        Explanation.from_captum(found, model.example(x, label=2), label=1)
    with pytest.raises(ValueError, match=r"baseline must be a number or like the input, \[4\], got \[3\]"):
        Explanation.from_captum(found, model.example(x, label=1), baseline=torch.zeros(3))
    one, x = curved(outputs=1)
    only = explain.wrap(one, task="regression").example(x)
    assert not Explanation.from_captum(captum.attr.Saliency(one).attribute(x[None].requires_grad_()), only).doubts


def test_the_class_of_complete_attributions_is_proved_on_a_graph(ring):
    net, data = ring
    method = captum.attr.IntegratedGradients(lambda x: net(x[0], data.edge_index)[:1])
    with warnings.catch_warnings(action="ignore"):
        found, delta = method.attribute(data.x[None], target=1, return_convergence_delta=True, internal_batch_size=1)
    model = explain.wrap(net, data)
    why = Explanation.from_captum(found, model.node(0, label=1), "features", delta=delta)
    assert why.checks["completeness_gap"] < 1e-4
    assert not why.doubts
    with pytest.raises(ValueError, match="of another class or number"):
        Explanation.from_captum(found, model.node(0, label=0), "features", delta=delta)


def test_a_base_that_no_method_has_is_not_made_up():
    net, x = curved()
    target = explain.wrap(net, task="classification").example(x)
    why = explain.Gradient("features", "saliency").explain(target)
    assert why.base is None
    there = why.to_shap()
    assert np.isnan(there.base_values)
    back = Explanation.from_shap(there, target)
    assert torch.equal(back.scores, why.scores)
    assert (back.base, back.value) == (None, why.value)
    assert "efficiency_gap" not in back.checks
    with pytest.raises(ValueError, match="without a base the values do not tell the number"):
        Explanation.from_shap(there)


def test_what_is_of_another_question_is_refused(ring):
    net, data = ring
    target = explain.wrap(net, data).node(0)
    other = pyg.Explanation(edge_mask=torch.ones(2), edge_index=torch.tensor([[0, 1], [1, 0]]))
    for wrong, message in (
        (lambda: Explanation.from_pyg(other, target), "the explanation's edge_index does not have it"),
        (lambda: Explanation.from_pyg(other, target, "nodes"), "node_mask, and this explanation has edge_mask"),
        (lambda: Explanation.from_captum(torch.ones(12), target, "edges"), "says which edges they are"),
        (lambda: Explanation.from_captum(torch.ones(2, 3), target, "nodes"), r"got \[2, 3\]"),
        (lambda: Explanation.from_shap(shap.Explanation(np.ones((2, 3)), np.ones(2))), r"give found\[0\]"),
        (lambda: Explanation.from_shap(shap.Explanation(np.ones(5), 0.0), target), "the target has 3 features"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    for wrong in (lambda: Explanation.from_captum((torch.ones(1),), target), lambda: Explanation.from_pyg(other, net)):
        with pytest.raises(TypeError, match="was expected"):
            wrong()
