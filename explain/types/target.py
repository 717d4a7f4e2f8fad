"""Targets: one number that a trained model says, and the ways to question it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from explain.types.errors import Unsupported
from explain.types.game import Game
from explain.types.objective import Objective, Questions
from explain.types.players import Players
from explain.types.readings import Call, Differentiable, Neighbourhood, TypedEdges

EXPLAINERS = {  # by the verb that they ask
    "game": ("Shapley", "Banzhaf", "Interactions", "Lime", "Occlusion", "Counterfactual"),
    "differentiable": ("Gradient",),
    "module_copy": ("Mask",),
    "rows": ("Attention",),
    "pixels": ("Attention",),
    "objective": ("Influence", "TracIn", "Trak"),
}


class Target:
    """One number that a trained model says, and the ways to question it.

    A family's target overrides the verbs it can answer; the others raise `Unsupported` and name what is offered.
    ``module`` is the user's model, as it was given; ``label`` the class the number belongs to, if any; ``told`` what
    was found out about the question while it was answered, such as the trained loss: written into the answer's target;
    ``instead``, by a verb that it does not answer, what to ask in its place.
    """

    module: nn.Module
    told: Mapping[str, Any] = MappingProxyType({})
    found: ClassVar[tuple[str, ...]] = ("told",)  # follows from the rest
    instead: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of players that it may be asked about, the usual ones first; none where it does not say."""
        return ()

    def explainers(self, *kinds: str, patience: float = 10.0) -> Any:
        """Which explainers fit this question, over which players, at what cost: what `explain.explainers` says."""
        from explain.discovery import explainers

        return explainers(self, *kinds, patience=patience)

    @property
    def trained(self) -> nn.Module:
        """What was trained, its parameters by the user's own names: the module, but for what a family puts around."""
        return self.module

    def value(self) -> float:
        """The number itself."""
        self._cannot("value")

    def players(self, kind: str, **options: Any) -> Players:
        """The players of a kind."""
        self._cannot("players")

    def game(self, players: str | Players) -> Game:
        """The number for every coalition of these players."""
        self._cannot("game")

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a differentiable function of the players' atoms."""
        self._cannot("differentiable")

    def module_copy(self) -> Call:
        """A copy of the module with the arguments of its call, to train masks on."""
        self._cannot("module_copy")

    def draw_by_draw(self) -> tuple[Callable[[], Any], ...]:
        """`run` of each draw by itself, where the number is a mean of draws."""
        return (self.run,)

    def run(self) -> Tensor:
        """One plain forward pass of the user's module, as `Attention` watches it."""
        self._cannot("run")

    @property
    def has_classes(self) -> bool:
        """Whether the number belongs to a class, rather than being a value such as a regressor's or a denoiser's."""
        return False

    def predicted(self) -> int:
        """The class that the model predicts: the largest output, or on which side of even odds a single one is.

        Raises:
            Unsupported: the number does not belong to a class.
        """
        self._expect_classes()
        self._cannot("predicted")

    def decision(self) -> tuple[int, Callable[[Tensor], Tensor]]:
        """The class that is decided on, and its margin: ``outputs -> [rows]``, above zero as long as that stands.

        Raises:
            Unsupported: the number does not belong to a class.
        """
        self._expect_classes()
        self._cannot("decision")

    def decides(self, outputs: Tensor) -> Tensor:
        """In which of these outputs of the model the class of the number is the predicted one, bool ``[rows]``.

        Raises:
            Unsupported: the number does not belong to a class.
        """
        self._expect_classes()
        self._cannot("decides")

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """``log p`` of every class in these outputs of the model, ``[rows, outputs] -> [rows, classes]``.

        Raises:
            Unsupported: the number does not belong to a class.
        """
        self._expect_classes()
        self._cannot("log_probabilities")

    def divergence(self, outputs: Tensor) -> Tensor:
        """``KL(p || q)`` of what the model says, ``p``, from each of these outputs, ``[rows, outputs] -> [rows]``.

        Raises:
            Unsupported: the number does not belong to a class.
        """
        self._expect_classes()
        self._cannot("divergence")

    def tell(self, told: Mapping[str, Any]) -> None:
        """Keep what was found out; also for targets that are frozen otherwise."""
        object.__setattr__(self, "told", told)

    def forget(self) -> None:
        """Drop what was found out: each answer begins so, and says only what bears on it."""
        vars(self).pop("told", None)

    def _expect_classes(self) -> None:
        if not self.has_classes:
            raise Unsupported(f"this asks for the predicted class, and this {type(self).__name__} has no classes")

    def rows(self) -> Tensor:
        """Which query rows of an attention map the number is read from, int64."""
        self._cannot("rows")

    def pixels(self) -> Tensor:
        """Which pixels of an image ``[H, W]`` the number is read from, as positions in ``[H * W]``, int64."""
        self._cannot("pixels")

    def tokens(self, players: Players, negative: bool = False) -> Mapping[int, Sequence[Tensor]]:
        """By the number of text tokens that the network is given, the positions of each player's among them, int64.

        In the text of the prompt, or of the negative prompt.
        """
        self._cannot("tokens")

    def typed_edges(self, players: Players) -> TypedEdges | None:
        """The edges of a graph whose nodes or edges have types, and who owns them; None of all others.

        Raises:
            Unsupported: players that own neither edges nor nodes.
        """
        return None

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training examples, whose players are what ``remove`` says."""
        self._cannot("objective")

    def questions(self, targets: Sequence[Target]) -> Questions | None:
        """These numbers of this target's model in one pass, all of one training set; None: only one by one."""
        return None

    def neighbourhood(self) -> Neighbourhood:
        """The examples around the explained one and what the model says about each."""
        self._cannot("neighbourhood")

    def asking(self, payoff: Any) -> Target:
        """The same question about another number, such as the probability of the same class."""
        self._cannot("asking")

    def perturbed(self, generator: torch.Generator, scale: float = 0.05) -> Target:
        """The same question of an input with a little noise, ``scale`` times the spread of each feature."""
        self._cannot("perturbed")

    def randomised(self, generator: torch.Generator) -> Target:
        """The same question of a copy of the model whose parameters are shuffled: one that has learned nothing."""
        self._cannot("randomised")

    def describe(self) -> dict[str, Any]:
        """What was asked, as plain JSON values: written into every Explanation."""
        self._cannot("describe")

    def __repr__(self) -> str:
        if type(self).describe is Target.describe:
            return object.__repr__(self)
        asked = [(name, value) for name, value in self.describe().items() if name != "assumed"]
        return f"{type(self).__name__}: {', '.join(f'{name} {value}' for name, value in asked)}"

    def _cannot(self, verb: str) -> NoReturn:
        raise Unsupported(refusal(self, verb))


def offers(target: Target, verb: str) -> bool:
    """Whether this target answers a verb."""
    return getattr(type(target), verb) is not getattr(Target, verb)


def refusal(target: Target, verb: str) -> str:
    """What is said where a target does not offer a verb: who would ask it, and what to ask instead."""
    asking = f", for {_listed(EXPLAINERS[verb])}" if verb in EXPLAINERS else ""
    return f"{type(target).__name__} does not offer {verb}(){asking}: {_remedy(target, verb)}"


def explained_by(target: Target) -> str:
    """The explainers whose verbs this target answers."""
    offered = [verb for verb in EXPLAINERS if offers(target, verb)]
    return _listed(list(dict.fromkeys(name for verb in offered for name in EXPLAINERS[verb]))) or "none"


def _remedy(target: Target, verb: str) -> str:
    """What to ask in place of a verb that is not offered."""
    return target.instead.get(verb, f"it is explained by {explained_by(target)}")


def _listed(names: Sequence[str]) -> str:
    *others, end = [*names] or [""]
    return f"{', '.join(others)} and {end}" if others else end


def expect_graph(target: Target, verb: str, what: str) -> None:
    """Check that a target offers what only graphs do; ``what`` says what needs it.

    Raises:
        Unsupported: it does not.
    """
    if not offers(target, verb):
        raise Unsupported(f"{what}, and {type(target).__name__} asks about none: {_remedy(target, verb)}")
