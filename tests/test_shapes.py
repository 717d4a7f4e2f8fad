"""Declared shapes are held to wherever a test passes a tensor, and another shape is found."""

import inspect

import pytest
import torch
from jaxtyping import TypeCheckError
from shapes import DECLARED

from explain.influence.curvature import Hessian
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.solution import Solution
from explain.training import TrainingObjective
from explain.types import Differentiable, Game, Players

THREE = Players("features", torch.arange(3))


def objective(**changes):
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    given = {
        "params": {"w": torch.zeros(1, 1)},
        "players": Players("train", torch.arange(2)),
        "predict": lambda p, at: x[at] @ p["w"],
        "labels": y,
        "number": lambda p: p["w"].sum(),
        "weight_decay": 0.5,
    }
    return TrainingObjective(**(given | changes))


def column_of_values():
    Game(THREE, lambda masks: masks.double().sum(1, keepdim=True))(torch.ones(2, 3).bool())


def a_value_too_few():
    Game(THREE, lambda masks: masks.double().sum(1)[1:])(torch.ones(2, 3).bool())


def players_of_real_numbers():
    Players("features", torch.rand(3))


def owners_of_other_atoms():
    Differentiable(torch.ones(1, 3), torch.zeros(1, 3), lambda x: x.sum(1), torch.arange(2))


def an_output_too_few():
    objective(predict=lambda p, at: p["w"]).outputs({"w": torch.zeros(1, 1)}, torch.arange(2))


def a_matrix_that_is_not_square():
    class Wide(Hessian):
        def _assembled(self):
            return torch.zeros(1, 2).double()

    Wide(objective()).dense()


def solution_of_another_width():
    Solution(torch.zeros(3, 2).double(), 0.0, 1, remaining=torch.zeros(3).double())


@pytest.mark.parametrize(
    "wrong",
    [
        column_of_values,
        a_value_too_few,
        players_of_real_numbers,
        owners_of_other_atoms,
        an_output_too_few,
        a_matrix_that_is_not_square,
        solution_of_another_width,
    ],
)
def test_another_shape_is_found(wrong):
    with pytest.raises(TypeCheckError):
        wrong()


def test_the_functions_own_refusal_comes_first():
    with pytest.raises(ValueError, match="one column a player"):
        Game(THREE, lambda masks: masks.double().sum(1))(torch.ones(2, 4).bool())
    with pytest.raises(ValueError, match=r"A @ v needs \[1\]"):
        Hessian(objective()) @ torch.ones(2)


def test_the_right_shapes_pass():
    A = Hessian(objective())
    assert (A @ torch.ones(1)).shape == (1,)
    assert (A @ torch.ones(1, 4)).shape == (1, 4)
    found = Exact().solve(A, torch.ones(1, 4).double(), None, None)
    assert found.x.shape == (1, 4)


@pytest.mark.parametrize(("kind", "declaration", "part"), DECLARED)
def test_every_declaration_is_of_a_method_and_its_arguments(kind, declaration, part):
    name = declaration.__name__
    asked, real = (list(inspect.signature(one).parameters) for one in (declaration, getattr(kind, name)))
    assert asked[1:] == real[1:]
    declared = {one for one, other, _ in DECLARED if other.__name__ == name}
    assert {child for child in subclasses(kind) if name in vars(child) and name != "__init__"} <= declared


def subclasses(kind):
    ours = (child for child in kind.__subclasses__() if child.__module__.startswith("explain."))
    return {one for child in ours for one in {child, *subclasses(child)}}
