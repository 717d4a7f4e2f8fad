"""A pipeline's run as a target: which words, steps, guidance or pictures are behind the number."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.commit import commit_times
from explain.diffusion.forks import Decided, decided, forks
from explain.diffusion.objective import training_objective
from explain.diffusion.pipelines.call import Heard
from explain.diffusion.pipelines.coder import latent_of
from explain.diffusion.pipelines.doubts import said_of_size, said_of_spread
from explain.diffusion.pipelines.games import (
    PROMPT,
    Absent,
    ConditionCoalitions,
    GuidanceCoalitions,
    WordCoalitions,
    conditions_of,
)
from explain.diffusion.pipelines.looks import LookCoalitions
from explain.diffusion.pipelines.number import PipelineNumber
from explain.diffusion.pipelines.prompts import Span, Words, padded, words_of
from explain.diffusion.pipelines.reading import Reading
from explain.diffusion.pipelines.sources import SourceCoalitions, SourceFill, checked_fill, played_source, source_of
from explain.diffusion.pipelines.watched import Watched
from explain.diffusion.players import image_players, label_player, step_players
from explain.diffusion.sites import sites
from explain.diffusion.trained import TrainedDenoiser
from explain.guard import usual_modes
from explain.payoffs import payoff_name
from explain.spelling import check_names
from explain.threads import found_alone
from explain.types import Game, NonFinite, Objective, Players, Target, Unsupported

_NONE = torch.zeros(0, dtype=torch.int64)
_KINDS = {4: ", in [0, 1]", 5: ": a video [frames, channels, height, width] in [0, 1]"}
_PROMPT_BESIDE = re.compile(r"(negative_)?prompt_\d")  # texts of further encoders
_OPTIONS = {"words": ("phrases", "negative"), "conditions": (), "labels": ()}
_PLAYS = "words, conditions, steps, guidance, labels, patches or superpixels"
_POOLED = ("pooled_projections", "text_embeds")


@dataclass(eq=False, repr=False)
class PipelineRun(PipelineNumber, Target):
    """The number that a payoff says about the picture of a pipeline's own call; see `PipelineModel.trajectory`.

    Beside the settings of `PipelineNumber`: what an absent word is, ``absent``, "drop" or "pad"; what absent parts of a
    picture show, ``fill``; and the network alone, ``inside``.
    """

    absent: Absent
    fill: SourceFill
    inside: Callable[[], TrainedDenoiser]

    def __post_init__(self) -> None:
        if self.absent not in ("drop", "pad"):
            raise ValueError(f"absent must be 'drop' or 'pad', got {self.absent!r}")
        super().__post_init__()
        self.fill = checked_fill(self.fill)
        self._state = self._parameters()
        with usual_modes():
            self.traced  # noqa: B018 - the user's own call, which may fail, and what its words are read from
            with contextlib.suppress(Unsupported):  # said where it is needed
                self.plan  # noqa: B018 - here: whoever watches the network later sees the run alone
            self.check_repeats()
            self.check_payoff()
            self.assumed |= self._assumptions()

    @property
    def module(self) -> nn.Module:  # type: ignore[override]  # read only here
        """The pipeline's own network."""
        return self.call.net

    def value(self) -> float:
        """The number of the user's own call.

        Raises:
            NonFinite: NaN or infinity.
        """
        found = float(self.numbers([self.own]))
        if not math.isfinite(found):
            raise NonFinite(f"the number is {found}: check the payoff, and the pipeline's half precision")
        return found

    def picture(self) -> Tensor:
        """The pipeline's own picture of the first draw, ``[3, H, W]`` in [0, 1]; a video ``[T, 3, H, W]``, or sound."""
        return self.traced[1][0]

    def commit_times(self, tolerance: float = 0.05) -> Tensor:
        """The first step from which each pixel of what is foreseen keeps to the picture, ``[H, W]``; see `commit`.

        Of a video ``[T, H, W]``, of sound ``[L]``.

        Args:
            tolerance: on the scale of the pictures, [0, 1].
        """
        return commit_times(_sampled(self.images()), _sampled(self.traced[1])[0], tolerance)

    def forks(self, at: int, draws: int = 8) -> Tensor:
        """Pictures of the first draw's run with other noise from step ``at`` on, ``[draws, 3, H, W]``; see `forks`."""
        return forks(self, at, draws)

    def decided(self, draws: int = 8) -> Decided:
        """How much of the variance of the number the noise of each step explains; see `forks.decided`."""
        return decided(self, draws)

    @property
    def timesteps(self) -> list[float]:
        """The scheduler's timestep of each step, first to last."""
        return list(self.plan.times)

    @torch.no_grad()
    def run(self) -> Tensor:
        """The pipeline's own call of the first draw, once more, to its picture ``[1, 3, H, W]``."""
        watched = Watched(1, replace(self.plan, by_row=None))  # every row is asked, and who watches is told of all
        return self.made(self.rows_of(self.own)[:1], watched=watched)

    def pixels(self) -> Tensor:
        """All pixels of the picture, which the payoff sees, as positions in ``[H * W]``."""
        return torch.arange(sites(_sampled(self.traced[1])[0].shape).numel())

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a pipeline's call is given and does; parts of its picture for reading attention."""
        return ("words", "steps", "guidance", "labels", "conditions", "patches", "superpixels")

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "words" (``phrases=`` that go together), "steps" (``size=``; without a condition an absent one does
        not look at the picture, see `Looks`), "guidance", "labels" (the prompt), "conditions" (the
        prompt, the negative prompt, a ControlNet's picture).

        "patches" and "superpixels" are those of the picture that the run makes, for reading attention; with
        ``of="image"`` or ``of="control_image"`` those of the picture that the call is given, which play.

        Raises:
            ValueError: no such kind, or no words.
        """
        if kind in _OPTIONS:
            check_names(f"players({kind!r})", options, _OPTIONS[kind])
        if kind == "words":
            return self._words(**options)
        if kind == "conditions":
            return self._conditions()
        if kind == "labels":
            if self.unconditional:
                raise ValueError(f"this call of {self.call.name} has no condition to play with")
            if self.call.embedded is not None:
                return label_player("embedded prompt")
            return label_player(PROMPT if isinstance(self.condition, str) else f"label {self.condition}")
        if kind in ("steps", "guidance"):
            return step_players(kind, len(self.plan.times), list(self.plan.times), options)
        if kind in ("patches", "superpixels"):
            of = options.pop("of", None)
            made = _sampled(self.traced[1])[0]
            return image_players(made if of is None else played_source(self, of).picture, kind, options)
        raise ValueError(f"a pipeline's run plays with {_PLAYS}; got {kind!r}")

    def _conditions(self) -> Players:
        """What the call is given, each a player.

        Raises:
            ValueError: nothing that it could go without.
        """
        names = conditions_of(self)
        if not names:
            raise ValueError(f"{self.call.name} is given no prompt, negative prompt or ControlNet's picture here")
        return Players("conditions", torch.arange(len(names)), names)

    def _words(self, phrases: str | Sequence[str] = (), negative: bool = True) -> Players:
        phrases = [phrases] if isinstance(phrases, str) else phrases
        of_prompt = self.reading.words(phrases)
        of_negative = words_of(self.negative, self.reading.tokenizer) if negative and self.negative else Words("", ())
        kept = [i for i, here in enumerate(self.reading.reads(of_prompt)) if here]
        reads_negative = self._reading_of(self.negative or "").reads(of_negative)
        others = [i for i, here in enumerate(reads_negative) if here]
        names = [of_prompt.names[i] for i in kept] + [f"not: {of_negative.names[i]}" for i in others]
        if not names:
            raise ValueError("an empty prompt has no words to play with")
        spans = [of_prompt.spans[i] for i in kept] + [of_negative.spans[i] for i in others]
        side = torch.tensor([False] * len(kept) + [True] * len(others))
        geometry = {"negative": side, "span": torch.tensor(spans)}
        return Players("words", torch.arange(len(names)), tuple(names), None, geometry)

    def game(self, players: str | Players) -> Game:
        """Values of coalitions of words, steps, guidance or the prompt.

        Raises:
            Unsupported: other players.
        """
        if players in ("patches", "superpixels"):
            players = self.players(players, of=played_source(self).name)
        players = self.players(players) if isinstance(players, str) else players
        if players.kind in ("patches", "superpixels"):
            return SourceCoalitions(self, players, source_of(self, players), self.fill).game()
        if players.kind == "words":
            return self._word_game(players)
        if players.kind == "conditions" or (players.kind == "labels" and isinstance(self.condition, str)):
            return ConditionCoalitions(self, players).game()
        if players.kind == "steps" and self.unconditional and not self.plan.guided:
            return LookCoalitions(self, players).game()
        if players.kind in ("steps", "guidance", "labels"):
            return GuidanceCoalitions(self, players).game()
        raise Unsupported(f"a pipeline's run plays with {_PLAYS}; got {players.kind!r}")

    def tokens(self, players: Players, negative: bool = False) -> dict[int, tuple[Tensor, ...]]:
        """Where the network finds each word's tokens: ``{text tokens of a call: positions of each player}``.

        Words of the prompt are in the text of the branch "cond", those of the negative prompt in that of "uncond"; the
        others have no positions there.

        Raises:
            Unsupported: the network's text is not made of the encoders' tokens one after the other.
        """
        args, kwargs = self._asked()
        text = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else None)
        if not isinstance(text, Tensor) or text.dim() != 3:
            raise Unsupported(f"the network of {self.call.name} is given no text tokens")
        if negative and not self.plan.guided:
            return {text.size(1): (_NONE,) * len(players)}
        reading = self._reading_of(self.negative or "") if negative else self.reading
        found = iter(reading.tokens(self._words_of(players)[negative], text))
        sides = players.geometry["negative"].tolist()
        return {text.size(1): tuple(next(found).long() if side == negative else _NONE for side in sides)}

    def _words_of(self, players: Players) -> tuple[Words, Words]:
        """The players' words in the prompt, as far as that is read, and in the negative prompt.

        Raises:
            ValueError: they are words of other texts.
        """
        spans, negative = players.geometry["span"].tolist(), players.geometry["negative"].tolist()
        both: tuple[list[Span], list[Span]] = ([], [])
        for (start, end), other in zip(spans, negative, strict=True):
            both[bool(other)].append((int(start), int(end)))
        texts = self.reading.prompt, self.negative or ""
        found = [
            f"not: {texts[1][a:b]}" if other else texts[0][a:b] for (a, b), other in zip(spans, negative, strict=True)
        ]
        if tuple(found) != players.names:
            raise ValueError(
                f"these are words of another prompt, {', '.join(players.names)}: make them by run.players('words')"
            )
        return Words(self.reading.read, tuple(both[0])), Words(self.negative or "", tuple(both[1]))

    def _asked(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the network is called with first.

        Raises:
            Unsupported: the run was not seen.
        """
        if not self.traced[0] or not self.traced[0][0].asked:
            raise Unsupported(f"{self.call.name} takes no steps that are seen")
        return self.traced[0][0].asked[0]

    @found_alone
    def reading(self) -> Reading:
        """How the encoders read the prompt.

        Raises:
            Unsupported: the condition is no text.
        """
        if self.call.embedded is not None:
            raise Unsupported("words are those of a text; this call has prompt_embeds=: give the prompt itself")
        if not isinstance(self.condition, str):
            raise Unsupported(f"words are those of a prompt; this call has {self.condition!r}")
        return self._reading_of(self.condition)

    def _reading_of(self, text: str) -> Reading:
        """How the encoders read a text of the call."""
        return Reading(self.call, text, self.heard)

    def _word_game(self, players: Players) -> Game:
        if self.absent == "pad":
            self._check_padding()
        return WordCoalitions(self, players, self._words_of(players), self.absent).game()

    def _check_padding(self) -> None:
        """Raise where padding would also be read as the end of the text, or does not come through to the encoders.

        Raises:
            Unsupported: it does not, or the pooled vector is read where the text ends, of which padding is the mark.
        """
        pooled = [name for name in _POOLED if name in _names_in(self._asked()[1])]
        for reader in self.call.readers:
            tokenizer = self.reading.tokenizer_of(reader)
            if pooled and tokenizer.pad_token_id == tokenizer.eos_token_id:
                raise Unsupported(
                    f"absent='pad' cannot be had from {self.call.name}: its padding is the mark for the end of a text, "
                    f"where {pooled[0]} is read off. Ask with absent='drop'"
                )
        words, heard = self.reading.words(), Heard()
        self.first_step([replace(self.rows_of(self.own)[0], condition=padded(self.condition, words.spans))], heard)
        if not self.reading.padded(words, heard):
            raise Unsupported(
                f"absent='pad' cannot be had from {self.call.name}: its encoders are not given padding where its "
                "tokenizers are told to read it. Ask with absent='drop'"
            )

    def forget(self) -> None:
        """Drop what was found out; the run too, where the pipeline's parameters are no longer what they were."""
        super().forget()
        if self._parameters() != self._state:
            for name in ("traced", "plan", "together"):
                vars(self).pop(name, None)
            self._state = self._parameters()

    def _parameters(self) -> list[tuple[int, int]]:
        """Which tensors the pipeline's parts hold, and how often each was written on."""
        held = (*self.call.parts.parameters(), *self.call.parts.buffers())
        return [(id(part), 0 if part.is_inference() else part._version) for part in held]

    @property
    def model(self) -> TrainedDenoiser:
        """The network and scheduler alone, as training is asked about.

        Raises:
            TypeError: the network's call holds more than is followed.
        """
        return self.inside()

    @property
    def like(self) -> Tensor:
        """A sample of the first draw, of the size that the network is trained on."""
        return self.traced[0][0].sample[0]

    def objective(self, train: Any = None, remove: str | Players = "labels") -> Objective:
        """How the number hangs on the training images, ``train=(images, labels)``; see `training_objective`.

        The images are as the network sees them, latents where there is a VAE before it.
        """
        made = training_objective(self, train, remove)
        self.tell(made.told)
        return made

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        return {
            "family": "diffusion",
            "model": self.call.name,
            "question": "trajectory",
            **self._said_condition(),
            "payoff": None if self.payoff is None else payoff_name(self.payoff),
            "space": self.space,
            "steps": len(self.plan.times),
            "scheduler": type(self.call.pipeline.scheduler).__name__,
            "guidance": _plain(self.call.setting("guidance_scale")),
            "removal": self.absent,
            "draws": self.draws,
            "noise_seed": self.seed,
            "latents": "given" if self.latents is not None else None,
            **({"call": sorted([*self.call.shared, *self.call.sources])} if self.call.shared else {}),
            **({"assumed": self.assumed} if self.assumed else {}),
        }

    def _said_condition(self) -> dict[str, Any]:
        if isinstance(self.condition, str):
            return {"prompt": self.condition, "negative": self.negative}
        return {"label": self.condition if self.call.embedded is None else "embedded prompt"}

    def _assumptions(self) -> dict[str, str]:
        """What is to be known of this call."""
        found = {}
        if self.space == "pixels":
            found["picture"] = f"the pipeline's own, decoded{_KINDS.get(self.traced[1].dim(), '')}"
        for name, text in {"prompt": self.condition, "negative": self.negative}.items():
            if isinstance(text, str) and (cut := self._reading_of(text).said()):
                found[name] = cut
        if self.negative and not self.plan.guided:
            found["negative"] = "not read: this call has no branch without the prompt (guidance 1, or distilled)"
        steps, picture = self.traced
        latent = latent_of(self.call.pipeline, picture)
        odd = said_of_size(self.call.pipeline, steps[-1].after, picture) if steps else None
        if odd := odd or (None if latent is None else said_of_spread(latent)):
            found["vae"] = odd
        beside = [name for name in self.call.shared if _PROMPT_BESIDE.fullmatch(name) and self.call.shared[name]]
        if beside:
            found["beside"] = f"{', '.join(beside)} stay as given: words are those of prompt= and negative="
        if any(part.training for child in self.call.parts.children() for part in child.modules()):
            found["mode"] = "parts of the pipeline were in training mode: asked in eval mode"
        return found


def _sampled(made: Tensor) -> Tensor:
    """What pipelines make, in the form of samples: videos ``[n, C, T, H, W]``, sound ``[n, C, L]``."""
    return made.transpose(1, 2) if made.dim() == 5 else made[:, None] if made.dim() == 2 else made


def _names_in(tree: Any) -> set[str]:
    """All names in nested arguments whose value is there."""
    if not isinstance(tree, Mapping):
        return set()
    return {name for name, value in tree.items() if value is not None} | {
        inner for value in tree.values() for inner in _names_in(value)
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
