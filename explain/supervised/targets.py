"""One example's prediction, as a question that every explainer understands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from explain.classes import OfOutputs, names_of_classes
from explain.doubts import doubt
from explain.draws import own_words
from explain.guard import copied, untouched, usual_modes
from explain.payoffs import Payoff, checked_label, payoff_function, payoff_name, probed, shuffled
from explain.spelling import came
from explain.supervised.baselines import Baseline, chosen
from explain.supervised.border import batching_of, checked_example
from explain.supervised.games import coalition_game, differentiable
from explain.supervised.number import ExampleNumber
from explain.supervised.objective import questions, training_objective
from explain.supervised.players import features, patches, superpixels
from explain.supervised.trained import TrainedNetwork
from explain.types import Differentiable, Game, Objective, Players, Questions, Target, Unsupported

KINDS: dict[int, dict[str, Callable[..., Players]]] = {  # by the example's dimensions
    1: {"features": features},
    3: {"patches": patches, "superpixels": superpixels},
}


@dataclass(frozen=True, eq=False, repr=False)
class ExampleTarget(ExampleNumber, OfOutputs):
    """The number that a model says about an example, as a question: made by `SupervisedModel.example`.

    Args, beside those of `ExampleNumber`:
        baseline: what absence means.
        label_given: whether the label was, or is that which the model predicts.
        class_names: one a class, or none.
    """

    baseline: Baseline
    label_given: bool
    class_names: tuple[str, ...] = ()

    found: ClassVar[tuple[str, ...]] = (*OfOutputs.found, "label_given")

    @property
    def module(self) -> nn.Module:  # type: ignore[override]  # read only here
        """The user's model."""
        return self.model.module

    def value(self) -> float:
        """The number itself."""
        with untouched(self.module), torch.no_grad():
            return float(self.numbers(self.x[None]))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Columns of a table, or parts of an image."""
        return tuple(KINDS[self.x.dim()])

    def players(self, kind: str, **options: Any) -> Players:
        """Tables: "features". Images: "patches" (``size``), "superpixels" (``segments``, ``compactness``).

        Raises:
            Unsupported: no such kind.
            ValueError: no such option's value.
            TypeError: no such option.
        """
        kinds = KINDS[self.x.dim()]
        if kind not in kinds:
            raise Unsupported(
                f"the players of an example {list(self.x.shape)} are {', '.join(kinds)} or groups of your own as a "
                f"Players, {came(kind, kinds)}"
            )
        if kind == "features":
            options = {"names": self.model.feature_names, **options}
        return kinds[kind](self.x, **options)

    def game(self, players: str | Players) -> Game:
        """The number for every coalition, with absent atoms filled as the baseline says."""
        return coalition_game(self, self.baseline, self._these(players))

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of features or pixels; see `games.differentiable`."""
        return differentiable(self, self.baseline, self._these(players))

    def run(self) -> Tensor:
        """The model's outputs for this example, ``[1, outputs]``."""
        with untouched(self.module), torch.no_grad():
            return self.model.answers(self.x[None])

    def rows(self) -> Tensor:
        """The model's ``query_rows``.

        Raises:
            Unsupported: the model was wrapped without them.
        """
        if self.model.query_rows is None:
            raise Unsupported(
                "which rows of an attention map are the outputs read from? explain.wrap(model, query_rows=(0,)) for a "
                "class token, range(tokens) for a mean over all"
            )
        return torch.tensor(tuple(self.model.query_rows))

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training examples; see `training_objective`."""
        made = training_objective(self, train, remove)
        self.tell(made.told)
        return made

    def questions(self, targets: Sequence[Target]) -> Questions | None:
        """These numbers of the same model in one pass, unless the rows of a batch see one another."""
        return questions(self, targets)

    def asking(self, payoff: Payoff) -> ExampleTarget:
        """The same prediction, read as another number."""
        return self._like(payoff=payoff)

    def perturbed(self, generator: torch.Generator, scale: float = 0.05) -> ExampleTarget:
        """The same question of ``x + scale * std * normal``; ``std`` is the background's, else that of ``x`` itself.

        Raises:
            Unsupported: an example of whole numbers.
        """
        if not self.x.is_floating_point():
            raise Unsupported("noise is added to real numbers, and this example holds whole ones")
        background = self.model.background
        spread = self.x.std(correction=0) if background is None else background.std(0, correction=0)
        noise = torch.randn(self.x.shape, generator=generator, dtype=self.x.dtype).to(self.x.device)
        return self._like(x=self.x + scale * spread * noise)

    def randomised(self, generator: torch.Generator) -> ExampleTarget:
        """The same question of a copy of the model with shuffled parameters."""
        module = copied(self.module)
        shuffled(module, generator)
        return self._like(model=replace(self.model, module=module))

    def _like(
        self, *, model: TrainedNetwork | None = None, x: Tensor | None = None, payoff: Payoff | None = None
    ) -> ExampleTarget:
        found = asked(model or self.model, self.x if x is None else x, self.label, payoff or self.payoff, self.baseline)
        return replace(found, label_given=self.label_given)

    def describe(self) -> dict[str, Any]:
        """What was asked, as plain JSON values."""
        assumed = self.meaning.told(self.payoff, self.model.part.assumed) | own_words(self.module)
        if not self.label_given and (turned := self.meaning.turned(self.label, self.payoff)):
            assumed["label"] = turned
        if self.baseline.name == "zeros" and not self.x.is_floating_point():
            assumed["baseline"] = "zeros: token 0 stands for an absent one; another as baseline=torch.full_like(x, id)"
        return {
            "family": "supervised",
            "model": type(self.module).__name__,
            "task": self.model.task,
            "shape": list(self.x.shape),
            "label": self.label,
            **self.called,
            "payoff": payoff_name(self.payoff),
            "baseline": self.baseline.name,
            "removal": self.baseline.removal,
            "outputs": self.meaning.kind,
            **({"assumed": assumed} if assumed else {}),
        }

    def _these(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else players


def asked(
    model: TrainedNetwork,
    x: Tensor,
    label: int | None = None,
    payoff: Payoff | None = None,
    baseline: str | Tensor | Baseline | None = None,
) -> ExampleTarget:
    """A question about one example, checked: see `SupervisedModel.example`.

    Raises:
        ValueError: not a name for each feature.
    """
    with usual_modes():
        x = checked_example(x, model.module)
    if model.feature_names and (len(model.feature_names),) != x.shape:
        raise ValueError(
            f"{len(model.feature_names)} feature names need x [{len(model.feature_names)}], got {list(x.shape)}"
        )
    with usual_modes():
        absence = chosen(baseline, x, model.background)
    with untouched(model.module), torch.no_grad():
        batching = batching_of(model.answers, x, absence.reference, model.batch_size)
        meaning, outputs = model.meaning(x, absence.reference, batching)
    if not batching.independent:
        doubt("rows of a batch see one another in this model: evaluated one by one, slowly")
    known = checked_label(label, outputs[0], meaning, payoff)
    wanted = payoff or meaning.default_payoff
    number = payoff_function(wanted, known, meaning)
    if callable(wanted):
        probed(wanted, outputs)
    given = label is not None
    classes = names_of_classes(model.class_names, meaning)
    return ExampleTarget(model, x, known, wanted, number, meaning, batching, absence, given, classes)
