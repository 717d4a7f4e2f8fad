"""One example's prediction, as a question that every explainer understands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from explain.classes import OfOutputs
from explain.guard import copied, untouched
from explain.outputs import Meaning
from explain.payoffs import Payoff, payoff_name, shuffled
from explain.supervised.baselines import Baseline
from explain.supervised.border import Batching
from explain.supervised.games import coalition_game, gradient_question
from explain.supervised.objective import questions, training_objective
from explain.supervised.players import features, patches, superpixels
from explain.types import Differentiable, Game, Objective, Players, Questions, Target, Unsupported

if TYPE_CHECKING:
    from explain.supervised.model import SupervisedModel

KINDS: dict[int, dict[str, Callable[..., Players]]] = {  # by the example's dimensions
    1: {"features": features},
    3: {"patches": patches, "superpixels": superpixels},
}


@dataclass(frozen=True, eq=False, repr=False)
class ExampleTarget(OfOutputs):
    """The number that a model says about ``x``: made by `SupervisedModel.example`.

    Args:
        model: whose number it is.
        x: ``[features]`` or ``[C, H, W]``.
        label: the class, or a regressor's output; None where there is but one.
        payoff: what was asked of the outputs.
        number: the same as a function, ``[rows, outputs] -> [rows]``.
        baseline: what absence means.
        batching: how many rows one call of the model may take.
        meaning: what the model's outputs are.
        label_given: whether the label was, or is that which the model predicts.
    """

    model: SupervisedModel
    x: Tensor
    label: int | None
    payoff: Payoff
    number: Callable[[Tensor], Tensor]
    baseline: Baseline
    batching: Batching
    meaning: Meaning
    label_given: bool

    @property
    def module(self) -> nn.Module:  # type: ignore[override]  # read only here
        """The user's model."""
        return self.model.module

    def numbers(self, x: Tensor) -> Tensor:
        """The number for each row of ``x [rows, *shape]``, ``[rows]``, in as many calls as memory asks for."""
        outputs = [self.model.answers(rows) for rows in x.split(self.batching.rows)]
        return self.number(torch.cat(outputs))

    def value(self) -> float:
        """The number itself."""
        with untouched(self.module), torch.no_grad():
            return float(self.numbers(self.x[None]))

    def players(self, kind: str, **options: Any) -> Players:
        """Tables: "features". Images: "patches" (``size``), "superpixels" (``segments``, ``compactness``).

        Raises:
            Unsupported: no such kind. ValueError: no such option's value. TypeError: no such option.
        """
        kinds = KINDS[self.x.dim()]
        if kind not in kinds:
            raise Unsupported(
                f"the players of an example {list(self.x.shape)} are {', '.join(kinds)} or groups of your own as a "
                f"Players, got {kind!r}"
            )
        if kind == "features":
            options = {"names": self.model.feature_names, **options}
        return kinds[kind](self.x, **options)

    def game(self, players: str | Players) -> Game:
        """The number for every coalition, with absent atoms filled as the baseline says."""
        return coalition_game(self, self._these(players))

    def differentiable(self, players: str | Players) -> Differentiable:
        """The number as a function of features or pixels; see `gradient_question`."""
        return gradient_question(self, self._these(players))

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
        return training_objective(self, train, remove)

    def questions(self, targets: Sequence[Target]) -> Questions | None:
        """These numbers of the same model in one pass, unless the rows of a batch see one another."""
        return questions(self, targets)

    def asking(self, payoff: Payoff) -> ExampleTarget:
        """The same prediction, read as another number."""
        return self._like(payoff=payoff)

    def perturbed(self, generator: torch.Generator, scale: float = 0.05) -> ExampleTarget:
        """The same question of ``x + scale * std * normal``; ``std`` is the background's, else that of ``x`` itself."""
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
        self, *, model: SupervisedModel | None = None, x: Tensor | None = None, payoff: Payoff | None = None
    ) -> ExampleTarget:
        asked = self.x if x is None else x
        found = (model or self.model).example(asked, self.label, payoff=payoff or self.payoff, baseline=self.baseline)
        return replace(found, label_given=self.label_given)

    def describe(self) -> dict[str, Any]:
        """What was asked, as plain JSON values."""
        assumed = self.meaning.told(self.payoff, self.model.part.assumed)
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
            "payoff": payoff_name(self.payoff),
            "baseline": self.baseline.name,
            "removal": self.baseline.removal,
            "outputs": self.meaning.kind,
            **({"assumed": assumed} if assumed else {}),
        }

    def _these(self, players: str | Players) -> Players:
        return self.players(players) if isinstance(players, str) else players
