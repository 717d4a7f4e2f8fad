"""A pipeline's numbers under coalitions: of words, steps, guidance, or the whole condition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from explain.diffusion.games import owner_of_steps
from explain.diffusion.pipelines.number import PipelineNumber
from explain.diffusion.pipelines.prompts import Words, count_of, padded
from explain.diffusion.pipelines.tracing import Variation
from explain.types import Game, Masks, Players, Unsupported, Values, present_atoms

Absent = Literal["drop", "pad"]


@dataclass(frozen=True, eq=False)
class WordCoalitions:
    """The number for masks over the words of a prompt and of its negative.

    An absent word is not in the text that the pipeline is given ("drop"), so that every encoder and pooled vector goes
    without it; or its tokens are read as padding ("pad").

    Args:
        number: the user's own call.
        players: the words of both.
        words: of the prompt, then of the negative prompt.
        absent: see above.
    """

    number: PipelineNumber
    players: Players
    words: tuple[Words, Words]
    absent: Absent

    def game(self) -> Game:
        """The game; coalitions of the same text are run once."""
        merged = {}
        if self.absent == "drop":
            merged = {"merged": sum(self._merged(tokenizer) for tokenizer in self.number.call.tokenizers())}
        return self.number.played(self.players, self, _SAID[self.absent], **merged)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        return self.number.numbers([self.variation(mask) for mask in masks.cpu()])

    def variation(self, mask: Tensor) -> Variation:
        """The call of one coalition."""
        present, other = mask.tolist(), self.players.geometry["negative"].tolist()
        own, negative = self.number.condition, self.number.negative
        of_prompt = [here for here, side in zip(present, other, strict=True) if not side]
        of_negative = [here for here, side in zip(present, other, strict=True) if side]
        return Variation(
            self._text(self.words[0], of_prompt, own),
            None if negative is None else self._text(self.words[1], of_negative, negative),
        )

    def _text(self, words: Words, present: list[bool], whole: str) -> str:
        if all(present):
            return whole
        if self.absent == "drop":
            return words.without(present)
        return padded(words.prompt, [span for span, here in zip(words.spans, present, strict=True) if not here])

    def _merged(self, tokenizer: Any) -> int:
        """How many pairs of neighbours become other tokens when the word between them goes."""
        merged = 0
        for words in self.words:
            names = words.names
            for i in range(1, len(names) - 1):
                text = words.without([j in (i - 1, i + 1) for j in range(len(names))])
                apart = [token for name in (names[i - 1], names[i + 1]) for token in count_of(name, tokenizer)]
                merged += count_of(text, tokenizer) != apart
        return merged


_SAID = {"drop": "the word leaves the text", "pad": "the word is read as padding"}


@dataclass(frozen=True, eq=False)
class GuidanceCoalitions:
    """The number for masks over steps, guidance or the condition, by the guidance weights of each step.

    An absent *step* runs without the condition (``w = 0``: the negative prompt alone), absent *guidance* on the
    condition alone (``w = 1``), an absent *label* the whole way without.
    """

    number: PipelineNumber
    players: Players

    def game(self) -> Game:
        """The game.

        Raises:
            Unsupported: the call has no branch to go without.
        """
        self.number.own_weights()
        off = {"guidance": "no guidance"}.get(self.players.kind, "no condition")
        return self.number.played(self.players, self, off)

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        own = self.number.own_weights()
        present = present_atoms(masks.cpu(), self.owner)
        off = 1.0 if self.players.kind == "guidance" else 0.0
        weights = torch.where(present, own, off)
        user = self.number.own
        return self.number.numbers(
            [Variation(user.condition, user.negative, None if torch.equal(row, own) else row) for row in weights]
        )

    @cached_property
    def owner(self) -> Tensor:
        """The player of each step, int64 ``[steps]``; ``P`` for steps that nobody owns."""
        steps = len(self.number.plan.times)
        if self.players.kind == "labels":
            return torch.zeros(steps, dtype=torch.long)
        return owner_of_steps(self.players, steps)


@dataclass(frozen=True, eq=False)
class ConditionCoalitions:
    """The number for masks over what the call is given: the prompt, the negative prompt, a ControlNet's picture.

    An absent prompt is empty, an absent ControlNet has a scale of 0.
    """

    number: PipelineNumber
    players: Players

    def game(self) -> Game:
        """The game.

        Raises:
            Unsupported: a condition that cannot be left out.
        """
        if unknown := [name for name in self.players.names if name not in conditions_of(self.number)]:
            raise Unsupported(f"{unknown[0]!r} cannot be left out of this call")
        return self.number.played(self.players, self, "empty, or a scale of 0")

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions; those that share their settings stand together."""
        variations = [self.variation(mask) for mask in masks.tolist()]
        order = sorted(range(len(variations)), key=lambda i: len(variations[i].settings))
        values = self.number.numbers([variations[i] for i in order])
        return torch.empty_like(values).scatter(0, torch.tensor(order), values)

    def variation(self, mask: list[bool]) -> Variation:
        """The call of one coalition."""
        absent = {name for name, here in zip(self.players.names, mask, strict=True) if not here}
        own = self.number.own
        return Variation(
            "" if PROMPT in absent else own.condition,
            "" if NEGATIVE in absent else own.negative,
            settings={CONTROL_SCALE: 0.0} if CONTROL in absent else {},
        )


PROMPT, NEGATIVE, CONTROL = "prompt", "negative prompt", "ControlNet"
CONTROL_SCALE = "controlnet_conditioning_scale"


def conditions_of(number: PipelineNumber) -> tuple[str, ...]:
    """What the call is given and can go without, by name."""
    given = {
        PROMPT: isinstance(number.condition, str) and bool(number.condition),
        NEGATIVE: bool(number.negative),
        CONTROL: CONTROL_SCALE in number.call.takes,
    }
    return tuple(name for name, here in given.items() if here)
