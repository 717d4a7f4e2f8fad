"""Warnings: where they point, and what each advises."""

import warnings
from dataclasses import replace

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic
from torch import nn

from explain.influence import Arnoldi, ConjugateGradient, Influence, SelfInfluence, group_influence, poison
from explain.influence.spectrum import Indefinite
from explain.supervised import SupervisedModel


def heard(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return found


def test_they_point_at_the_line_that_asked():
    target = ObjectiveTarget(half_trained())
    few = ConjugateGradient(max_iterations=1)
    line = SupervisedModel(nn.Linear(1, 1), task="regression", train=(torch.ones(2, 1), torch.ones(2, 1)))
    calls = [
        lambda: Influence(seed=0).explain(target),
        lambda: Influence(seed=0).explain_all([target]),
        lambda: SelfInfluence(Influence(solver=few, damping=0.5, curvature="ggn", seed=0)).explain(target),
        lambda: group_influence(target, [0], Influence(seed=0)),
        lambda: poison(line.example(torch.ones(1)), 0),
    ]
    for call in calls:
        found = heard(call)
        assert found
        assert {warning.filename for warning in found} == {__file__}


@pytest.mark.parametrize(
    ("solver", "advice"),
    [
        (ConjugateGradient(max_iterations=1), "after 1 steps of cg. Allow more steps"),
        (Arnoldi(rank=5), "of arnoldi. Keep more directions"),
        ("dot", "by dot. It takes the curvature for the identity: read the order"),
    ],
    ids=repr,
)
def test_the_advice_is_for_the_solver_that_was_used(solver, advice):
    target = ObjectiveTarget(logistic())
    for call in (Influence(solver=solver, seed=0).explain, lambda t: group_influence(t, [1], Influence(solver=solver))):
        messages = [str(warning.message) for warning in heard(lambda call=call: call(target))]
        assert any(advice.split(". ")[1] in message for message in messages)
    assert any(advice in str(w.message) for w in heard(lambda: Influence(solver=solver, seed=0).explain(target)))


def test_a_model_far_from_a_minimum_hears_of_its_gradient():
    objective = logistic()
    early = replace(objective, params={name: p * 0.5 for name, p in objective.params.items()})
    with pytest.warns(UserWarning, match=r"not at a minimum of its training loss \(gradient norm 0\.\d+\)"):
        found = Influence(seed=0).explain(ObjectiveTarget(early))
    assert found.checks["gradient_norm"] > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_ill_conditioned_matrix_is_no_sign_of_unfinished_training(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 1e-7])
    y = x[:, :1] + torch.randn(40, 1, generator=generator, dtype=torch.float64)
    best = torch.linalg.lstsq(torch.cat([x, torch.ones(40, 1).double()], 1), y).solution
    net = nn.Linear(3, 1).double()
    with torch.no_grad():
        net.weight.copy_(best[:3].T), net.bias.copy_(best[3])
    train = (x.to(dtype), y.to(dtype))
    asked = SupervisedModel(net.to(dtype), task="regression", train=train).example(train[0][0])
    (warning,) = heard(lambda: Influence(seed=0).explain(asked))
    assert "zero within rounding" in str(warning.message)
    assert "very different sizes" in str(warning.message)
    with pytest.raises(Indefinite, match=r"very different sizes.*a weight_decay, or inputs of one scale"):
        Influence(curvature="hessian", damping=0).explain(asked)
