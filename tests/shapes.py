"""What is asked for and given between families and explainers, with its shapes; held to in every test.

Each declaration has the name, the arguments and the result of a method. It is read by jaxtyping, checked by beartype
after the method itself has spoken (so that its own refusal of another shape comes first), and knows nothing else of it.
"""

import functools
import inspect
import re
import threading
import types

import numpy as np
from beartype import beartype
from jaxtyping import Bool, Float, Float64, Int, Shaped, jaxtyped
from torch import Tensor

from explain.analysis.diffusivity import Diffusivity
from explain.graph.games.coalitions import Coalitions
from explain.graph.games.graph_game import GraphGame
from explain.graph.training.edited_loss import GraphRemoval
from explain.influence.curvature import Curvature
from explain.influence.inverse import Inverse
from explain.influence.solvers.choice import SOLVERS
from explain.influence.solvers.low_rank import LowRank
from explain.influence.solvers.solution import Solution
from explain.training import TrainingObjective
from explain.types import Differentiable, Game, Neighbourhood, Players

DECLARED = []  # (class, declaration, which part of the result it speaks of)


def of(*kinds, part=None):
    """Declares a method of these classes; ``part`` takes from the result what the annotation is of."""

    def declare(declaration):
        DECLARED.extend((kind, declaration, part) for kind in kinds)
        return declaration

    return declare


# --- types.py ---

Table = Tensor | np.ndarray


@of(Players)
def __init__(
    self,
    kind,
    index: Int[Tensor, " players"] | Int[Tensor, "players k"],
    names=(),
    groups=None,  # beartype looks at one of many by chance, and would move the global random state
    geometry=None,
): ...


@of(Game)
def __call__(
    self, masks: Shaped[Table, "coalitions {len(self.players)}"], progress=False
) -> Float64[Table, " coalitions"]: ...


@of(Differentiable)
def __new__(
    cls,
    inputs: Float[Tensor, "1 *atoms"],
    baseline: Float[Tensor, "1 *atoms"],
    f,
    owner: Int[Tensor, "*atoms"],
    removal="",
    checks=None,
    doubt="",
): ...


@of(Neighbourhood)
def __new__(cls, x: Shaped[Tensor, "examples features"], outputs: Float[Tensor, "examples outputs"], row, players): ...


@of(TrainingObjective)
def outputs(self, params, batch: Int[Tensor, " examples"]) -> Float[Tensor, "examples *outputs"]: ...


@of(TrainingObjective)
def loss(
    self, outputs: Float[Tensor, "examples *outputs"], batch: Int[Tensor, " examples"]
) -> Float[Tensor, " examples"]: ...


@of(TrainingObjective)
def train_loss(self, params, batch: Int[Tensor, " examples"]) -> Float[Tensor, " examples"]: ...


@of(TrainingObjective)
def measurement(self, params) -> Float[Tensor, ""]: ...


@of(GraphRemoval)
def moving(self) -> Bool[Tensor, "{len(self.players)}"]: ...


@of(GraphRemoval)
def dropped(self) -> Int[Tensor, "2 m"]: ...


@of(GraphRemoval)
def numbers(self, params, players: Int[Tensor, " k"]) -> Float[Tensor, " k"]: ...


# --- games ---


@of(GraphGame)
def __call__(self, masks: Bool[Tensor, "coalitions {len(self.players)}"]) -> Float[Tensor, " coalitions"]: ...


@of(Coalitions)
def outputs(
    self, masks: Bool[Tensor, "coalitions {len(self.players)}"], draw=0
) -> Float[Tensor, "coalitions outputs"]: ...


# --- analysis ---


@of(Diffusivity)
def class_means(self) -> Float64[Tensor, "classes classes"]: ...


# --- curvature ---


@of(Curvature)
def __matmul__(self, v: Float[Tensor, "{self.size} *columns"]) -> Float64[Tensor, "{self.size} *columns"]: ...


@of(Curvature)
def dense(self, progress=False) -> Float64[Tensor, "{self.size} {self.size}"]: ...


@of(Curvature)
def sampled(
    self, batches: Int[Tensor, "repeats examples"], block: Float64[Tensor, "repeats {self.size} k"]
) -> Float64[Tensor, "repeats {self.size} k"]: ...


@of(LowRank)
def __call__(self, v: Float64[Tensor, "{len(self.U)} *columns"]) -> Float64[Tensor, "{len(self.U)} *columns"]: ...


# --- solvers ---


@of(Solution)
def __init__(
    self,
    x: Float64[Tensor, "p *columns"],
    residual,
    iterations,
    samples: Float64[Tensor, "repeats p *columns"] | None = None,
    remaining: Float64[Tensor, "p *columns"] | None = None,
    residuals: Float64[Tensor, " k"] | None = None,
    checks=None,
): ...


@of(*SOLVERS.values(), part=lambda solution: solution.x)
def solve(
    self, A, b: Float[Tensor, "{A.size} *columns"], spectrum, generator, progress=False
) -> Float64[Tensor, "{A.size} *columns"]: ...


@of(Inverse)
def __matmul__(self, b: Float[Tensor, "{self.A.size} *columns"]) -> Float64[Tensor, "{self.A.size} *columns"]: ...


@of(Inverse)
def quadratic(self, rows: Float[Tensor, "k {self.A.size}"]) -> Float64[Tensor, " k"]: ...


# --- held to ---


def held(real, declaration, part=None):
    """The method; where it answers, the answer and what it was asked are as declared."""
    answers, seen = threading.local(), set()
    names = tuple(inspect.signature(declaration).parameters)
    annotations = " ".join(map(str, declaration.__annotations__.values()))
    sizes = [compile(size, "size", "eval") for size in sorted(set(re.findall(r"{(.+?)}", annotations)))]

    @functools.wraps(declaration)
    def answer(*_, **__):
        return answers.last

    check = jaxtyped(answer, typechecker=beartype)

    def method(*args, **kwargs):
        found = real(*args, **kwargs)
        answers.last = part(found) if part else found
        given = dict(zip(names, args, strict=False)) | kwargs
        layout = (*map(_layout, (*given.items(), ("return", answers.last))), *(eval(size, given) for size in sizes))
        if layout not in seen:  # a check takes longer than many a product
            check(*args, **kwargs)
            seen.add(layout)
        return found

    # a warning points at the first line outside of explain, and this one no user wrote
    inside = types.FunctionType(method.__code__, globals() | {"__name__": real.__module__}, closure=method.__closure__)
    return functools.wraps(real)(inside)


def _layout(item):
    name, value = item
    return name, type(value), getattr(value, "shape", None), getattr(value, "dtype", None)


def hold(patch):
    """Every method that is declared, from now on; ``patch`` is pytest's, which takes it back."""
    for kind, declaration, part in DECLARED:
        name = declaration.__name__
        if name in vars(kind):  # else it is its parent's, which is declared too
            real = vars(kind)[name]
            method = held(getattr(real, "__func__", real), declaration, part)
            patch.setattr(kind, name, staticmethod(method) if name == "__new__" else method)
