"""The four ideas that everything else shares: players, games, targets, objectives.

A *target* is one number that a trained model says. *Players* are whatever may deserve credit for it. A *game* says
what the number would be with only some of the players; an *objective* says how the number hangs on the training data.
Explainers know nothing but this file; families (graph, supervised, ...) know nothing but this file either.

Array kinds, named once:

=========  =======================  ==================================================
``Masks``  bool [coalitions, P]     True where the player is present
``Values``  float64 [coalitions]    the number for each coalition
``Scores``  float64 [P]             credit, in the number's own units
=========  =======================  ==================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, Self, TypeAlias, overload, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

Masks: TypeAlias = Tensor
Values: TypeAlias = Tensor
Scores: TypeAlias = Tensor
Parameters: TypeAlias = dict[str, Tensor]


class Unsupported(TypeError):
    """The target cannot answer this kind of question; the message names the ones it can."""


class NonFinite(ValueError):
    """NaN or infinity where a number was needed."""


def check_text(text: str, where: str) -> None:
    """Check that text can be written to files and pictures.

    Raises:
        ValueError: it holds half a character, as text does that was cut between the two or read from bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end]
        raise ValueError(
            f"{where} must be Unicode text, got {text[error.start]!r} in {around!r}: "
            "half a character; put text.encode('utf-8', 'replace').decode() in its place"
        ) from error


@lru_cache(maxsize=32)
def _named(stem: str, labels: tuple[int | str, ...]) -> tuple[str, ...]:
    """Remembered: every question about one training set has the same thousands of names."""
    return tuple([f"{stem} {label}" for label in labels])


@dataclass(frozen=True, eq=False)
class Players:
    """Who may deserve credit: ``P`` groups of atoms.

    Args:
        kind: "nodes", "edges", "features", "patches", "train", ...
        index: int64 ``[P]`` or ``[P, k]``: node ids, positions in ``edge_index``, feature columns, ...
        names: one label a player; made from ``kind`` and ``index`` when left out.
        groups: the atoms each player owns, where it owns more than ``index`` says (``int64`` tensors).
        geometry: what pictures need. Graphs: ``edge_index [2, C]`` (the drawn context, node ids), ``focus [f]`` (the
            explained nodes), for edges ``ends [2, P]``, for nodes and training nodes ``node [P]``. Images: ``labels
            [H, W]`` (the player of each pixel, -1 for none), ``image [C, H, W]``.

    >>> players = Players("features", torch.arange(3))
    >>> len(players), players.names
    (3, ('feature 0', 'feature 1', 'feature 2'))
    """

    kind: str
    index: Tensor
    names: tuple[str, ...] = ()
    groups: tuple[Tensor, ...] | None = None
    geometry: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            stem = self.kind.removesuffix("es" if self.kind.endswith("ches") else "s")
            rows = self.index.tolist()
            labels = rows if self.index.dim() == 1 else ["-".join(map(str, row)) for row in rows]
            object.__setattr__(self, "names", _named(stem, tuple(labels)))
        elif strange := next((name for name in self.names if not isinstance(name, str)), None):
            raise TypeError(f"names must be text, got {strange!r} of type {type(strange).__name__}")
        else:
            check_text("".join(self.names), "names")
        check_text("".join((self.kind, *self.geometry)), "kind and geometry")
        for what, found in (("names", self.names), ("groups", self.groups)):
            if found is not None and len(found) != len(self.index):
                raise ValueError(f"{len(self.index)} players need {len(self.index)} {what}, got {len(found)}")

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        named = ", ".join(self.names[:5]) + (", …" if len(self) > 5 else "")
        return f"Players: {len(self)} {self.kind}" + (f": {named}" if len(self) else "")


class Game:
    """A cooperative game ``v``: masks ``bool [coalitions, P]`` to values ``float64 [coalitions]``.

    It is also a value function for ``shapiq`` and, over an all-zeros background, for ``shap``: NumPy in, NumPy out.

    Args:
        players: who plays.
        evaluate: the number for each row of a batch of masks.
        batch_size: coalitions in one call of ``evaluate``; never changes a value beyond rounding.
        checks: what was measured about this game while it was built (the error of the cut, batched or one by one, ...).

    ``neighbourhoods``, where a family sets it, yields for 0, 1, 2, ... hops the players (int64) near each place of a
    graph: the number may be a sum of parts that hang on one such group each. Estimators that build on it check it.
    ``table``, where a family sets it, gives the number for all ``2^P`` coalitions faster than one by one; bit ``i`` of
    a position is player ``i``.

    Raises:
        ValueError: the masks do not have one column a player.
        NonFinite: the model answered with NaN or infinity.

    >>> game = Game(Players("features", torch.arange(2)), lambda masks: masks.double().sum(1))
    >>> game(torch.tensor([[True, True], [False, True]]))
    tensor([2., 1.], dtype=torch.float64)
    """

    neighbourhoods: Callable[[], Iterator[list[Tensor]]] | None = None
    table: Callable[[], Values] | None = None

    def __init__(
        self,
        players: Players,
        evaluate: Callable[[Masks], Values],
        *,
        batch_size: int = 1024,
        checks: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.players = players
        self.evaluate = evaluate
        self.batch_size = batch_size
        self.checks: dict[str, Any] = dict(checks or {})
        self.calls = 0

    @overload
    def __call__(self, masks: Tensor, progress: bool = False) -> Tensor: ...
    @overload
    def __call__(self, masks: np.ndarray, progress: bool = False) -> np.ndarray: ...
    def __call__(self, masks: Tensor | np.ndarray, progress: bool = False) -> Tensor | np.ndarray:
        """Values of these coalitions, as a tensor for a tensor and as an array for an array.

        Raises:
            ValueError: masks of another shape.
            NonFinite: the number is NaN or infinite for some of them.
        """
        if not isinstance(masks, Tensor):
            return self(torch.as_tensor(np.asarray(masks)).bool(), progress).numpy()
        if masks.dim() != 2 or masks.size(1) != len(self.players):
            raise ValueError(
                f"masks must be [coalitions, {len(self.players)}] (one column a player), got {list(masks.shape)}"
            )
        chunks = masks.bool().split(self.batch_size)
        bar = tqdm(chunks, desc="coalitions", disable=not progress, leave=False)
        values = [self.evaluate(chunk).detach().to("cpu", torch.float64) for chunk in bar if len(chunk)]
        self.calls += len(masks)
        result = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
        if not result.isfinite().all():
            bad = int((~result.isfinite()).sum())
            raise NonFinite(
                f"the model answered NaN or infinity for {bad} of {len(result)} coalitions: check its inputs and the "
                "payoff (a log of zero?), or choose another baseline"
            )
        return result

    def ends(self) -> tuple[float, float]:
        """The number with no player and with every player, ``(v(empty), v(all))``."""
        masks = torch.stack([torch.zeros(len(self.players)), torch.ones(len(self.players))]).bool()
        empty, full = self(masks).tolist()
        return empty, full


class Differentiable(NamedTuple):
    """The number as a differentiable function of the atoms that players own.

    ``inputs``, ``baseline``: ``[1, *atoms]``; ``f``: ``[batch, *atoms] -> [batch]``; ``owner``: int64 ``[*atoms]``, the
    player of each atom, -1 for none; ``removal``: what the baseline stands for, as games name it.
    """

    inputs: Tensor
    baseline: Tensor
    f: Callable[[Tensor], Tensor]
    owner: Tensor
    removal: str = "features"


class Neighbourhood(NamedTuple):
    """What the model says about the examples around the explained one, for surrogates that are fitted to them.

    ``x [examples, features]``, ``outputs [examples, outputs]``, ``row`` of the explained one, and ``players``, kind
    "features": the columns of ``x`` that may get credit.
    """

    x: Tensor
    outputs: Tensor
    row: int
    players: Players


class Call(NamedTuple):
    """One call of a copy of the user's module, for methods that train something on it.

    ``module(x, edge_index, **kwargs)`` gives ``[rows, outputs]``, of which ``row`` and ``label`` are explained: logits
    of classes, or of a regressor the one value, ``label`` None. It may be a part of the graph: ``nodes`` and ``edges``
    are the numbers of its nodes and edges in the whole (int64, -1 for stand-ins), by which players are found again.
    """

    module: nn.Module
    x: Tensor
    edge_index: Tensor
    kwargs: dict[str, Any]
    task: str
    row: int
    label: int | None
    nodes: Tensor
    edges: Tensor


class Objective(Protocol):
    """How the number hangs on the training data: all that ``influence`` knows.

    ``theta`` minimises ``J(theta) = (1/n) sum_i train_loss_i(theta) + weight_decay/2 |theta|^2``, and the question is
    about ``measurement(theta)``. The penalty is in ``J`` only. Everything is a pure function of ``params``.
    """

    @property
    def params(self) -> Parameters:
        """``theta``, by name."""

    @property
    def players(self) -> Players:
        """Who may be taken away: the training examples, kind "train", or inputs that they share, such as edges."""

    @property
    def local(self) -> bool:
        """Whether player ``i`` is training example ``i``, and taking it away drops its own loss and nothing else."""

    @property
    def weight_decay(self) -> float:
        """As in ``torch.optim.SGD``."""

    @property
    def convex(self) -> bool:
        """Whether the loss is known to be convex in the outputs, as cross-entropy and squares are."""

    @property
    def size(self) -> int:
        """``n``, the number of training examples."""

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Positions ``int64 [examples]`` that cover the training set once, in order, or shuffled by a generator."""

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """The model's outputs for these training examples as the loss takes them, ``[examples, outputs]``."""

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of each example given its `outputs`, ``[examples]``."""

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """``loss(outputs(params, batch), batch)``, ``[examples]``."""

    def measurement(self, params: Parameters) -> Tensor:
        """The number in question, a scalar."""

    def edited(self, player: int) -> Objective:
        """The same objective after this player is taken away, ``n`` kept fixed."""


class Suspect(NamedTuple):
    """Another training that the parameters may be the minimum of, where they are not that of the one taken.

    ``what`` is "loss", "weights" or "examples", ``name`` says which, ``remedy`` asks for it. ``change`` makes it of an
    objective, or makes several of which it is a mean with shares that are not known; ``said`` says these.
    """

    what: str
    name: str
    change: Callable[[Any], Objective | Sequence[Objective]]
    remedy: str
    said: Callable[[Sequence[float]], str] = lambda shares: ""


class Questions(NamedTuple):
    """Many numbers of one model, each read from its own row: ``numbers(outputs(theta, positions))``.

    ``outputs(params, positions int64 [k]) -> [k, outputs]``, a pure function; ``numbers``: the outputs of all of them,
    ``[q, outputs] -> [q]``, number i of row i; ``total``: ``q``; ``apart``: whether a row costs what it does alone, as
    for examples that are inputs of their own, and unlike the nodes of one graph.
    """

    outputs: Callable[[Parameters, Tensor], Tensor]
    numbers: Callable[[Tensor], Tensor]
    total: int
    apart: bool


class LossChange(NamedTuple):
    """``of(params) -> [k]``: what some training examples add to ``L' - L`` for each of these players, int64 ``[k]``.

    ``L = (1/n) sum_i loss_i`` is the mean training loss, ``L'`` the same once a player is taken away.
    """

    players: Tensor
    of: Callable[[Parameters], Tensor]


@runtime_checkable
class Edits(Protocol):
    """Many edits of an objective at once: the quick way to what ``Objective.edited`` gives one by one."""

    def moving(self) -> Tensor:
        """Players whose absence may change the number, bool ``[P]``."""

    def dropped(self) -> Tensor:
        """Player and training example, for each example whose loss leaves with a player, int64 ``[2, m]``."""

    def numbers(self, params: Parameters, players: Tensor) -> Tensor:
        """The number once each of these players is taken away, ``[k]``."""

    def loss_changes(self, players: Tensor) -> Sequence[LossChange]:
        """All that changes in the training loss when one of these players is taken away, piece by piece."""


@runtime_checkable
class LabelledObjective(Objective, Protocol):
    """An objective whose training examples may get other labels, or be left out together."""

    @property
    def labels(self) -> Tensor:
        """Classes ``[n]``, or real targets ``[n, ...]``."""

    def relabelled(self, labels: Tensor) -> Self:
        """The same objective with other labels, of the same shape and dtype."""

    def without(self, examples: Tensor) -> Self:
        """The same objective without these training examples, int64 ``[k]``, ``n`` kept fixed."""

    def at(self, params: Parameters) -> Self:
        """The same objective at other parameters."""


@runtime_checkable
class EditableObjective(LabelledObjective, Protocol):
    """An objective whose training examples are inputs of their own, which may be changed one by one."""

    @property
    def inputs(self) -> Tensor:
        """What was trained on, ``[n, *shape]``."""

    def losses(self, params: Parameters, inputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of any examples ``[rows, *shape]``, ``[rows]``; differentiable in the inputs."""

    def answer(self, params: Parameters) -> Tensor:
        """The model's outputs for what is being explained, ``[1, outputs]``."""

    @property
    def link(self) -> Callable[[Tensor], Tensor]:
        """From what the model answers, ``[rows, outputs]``, to what the loss takes: from probabilities to logits."""

    def input_players(self, example: int) -> Players:
        """The inputs of one training example as players, in the order of its flattened input."""

    def replaced(self, positions: Tensor, inputs: Tensor) -> Self:
        """The same objective with other inputs ``[k, *shape]`` of the examples at these positions."""


class Target:
    """One number that a trained model says, and the ways to question it.

    A family's target overrides the verbs it can answer; the others raise `Unsupported` and name what is offered.
    ``module`` is the user's model, as it was given; ``label`` the class the number belongs to, if any; ``told`` what
    was found out about the question while it was answered, such as the trained loss: written into the answer's target.
    """

    module: nn.Module
    told: Mapping[str, Any] = MappingProxyType({})
    found: ClassVar[tuple[str, ...]] = ("told",)  # follows from the rest

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
        verbs = ("value", "game", "differentiable", "module_copy", "run", "objective")
        offered = [name for name in verbs if getattr(type(self), name) is not getattr(Target, name)]
        raise Unsupported(f"{type(self).__name__} does not offer {verb}(); it offers {', '.join(offered) or 'nothing'}")


def expect_graph(target: Target, verb: str, what: str) -> None:
    """Check that a target offers what only graphs do; ``what`` says what needs it.

    Raises:
        Unsupported: it does not.
    """
    if getattr(type(target), verb) is getattr(Target, verb):
        raise Unsupported(
            f"{what}, and {type(target).__name__} asks about none: tables, images and denoisers are for Shapley, Lime, "
            "Occlusion and Gradient"
        )
