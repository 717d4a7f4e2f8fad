"""Cascades: runs one after the other, each conditioned on what the one before ended in (Ho et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from explain.diffusion.games import owner_of_steps
from explain.diffusion.number import TrajectoryNumber
from explain.diffusion.targets import TrajectoryTarget
from explain.guard import usual_modes
from explain.payoffs import one_a_row, payoff_name
from explain.spelling import came
from explain.types import Game, Masks, NonFinite, Players, Target, Unsupported, Values, present_atoms

Prepare = Callable[[Tensor], Tensor]
_REMOVALS = {
    "stages": "no condition in the stage",
    "steps": "no condition",
    "guidance": "no guidance",
    "labels": "no condition",
    "noise": "noise of another seed in the stage",
}
_BUDGET = 2**22  # numbers of the largest stage's images in one forward pass


@dataclass(eq=False, repr=False)
class Cascade(Target):
    """The number that the last of several runs is asked for, when each is given what the one before ended in.

    Every coalition runs the whole cascade: a change in an early stage reaches the end through the later ones.

    Args:
        runs: first to last, ``model.trajectory(...)`` each, of the same number of draws. The last one's payoff is the
            number; those of the others are not used. A later run is asked with any picture in place of the one that it
            will be given, ``label={"class_labels": 3, "low": zeros}``, and so is its null condition.
        into: the argument of a later stage's network that takes the picture; one for all, or one each.
        prepare: what a later stage is given for the samples ``[n, *shape]`` before: upsampled, say, and with
            the noise of its conditioning augmentation drawn once, by row; the samples themselves when None.

    ``players("stages")``: a stage that is absent runs without its condition (``w = 0``); "noise": it starts from
    another seed's; "steps", "guidance", "labels" are those of all stages together.

    Raises:
        ValueError: fewer than two runs, other draws, or a run that was asked without the argument.

    >>> import explain
    >>> betas = torch.linspace(1e-4, 0.02, 10)
    >>> small = explain.wrap(lambda x, t: 0.1 * x, betas=betas, time="step", shape=(1, 2, 2))
    >>> large = explain.wrap(lambda x, t, low: x - low.repeat(1, 1, 2, 2), betas=betas, time="step", shape=(1, 4, 4))
    >>> mean = lambda samples: samples.mean((1, 2, 3))
    >>> first = small.trajectory(payoff=mean, steps=2)
    >>> last = large.trajectory({"low": torch.zeros(1, 1, 2, 2)}, payoff=mean, steps=2)
    >>> Cascade([first, last], into="low").players("noise").names
    ('stage 1', 'stage 2')
    """

    instead: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            verb: f"ask about one stage by itself, {own}"
            for verb, own in {
                "objective": "the model.step(...) or model.trajectory(...) of each, with its own training images",
                "differentiable": "Gradient('noise') of its own run, or here play with stages, noise and steps",
                "pixels": "Attention of its own run",
                "rows": "Attention of its own run",
            }.items()
        }
    )
    runs: Sequence[TrajectoryTarget]
    into: str | Sequence[str]
    prepare: Prepare | Sequence[Prepare] | None = None

    def __post_init__(self) -> None:
        self.runs, count = tuple(self.runs), len(self.runs)
        if count < 2:
            raise ValueError(f"a cascade has at least two runs, got {count}")
        self.names = (self.into,) * (count - 1) if isinstance(self.into, str) else tuple(self.into)
        given = self.prepare
        self.links = (given,) * (count - 1) if given is None or callable(given) else tuple(given)
        if len(self.names) != count - 1 or len(self.links) != count - 1:
            raise ValueError(f"{count} runs need {count - 1} arguments and functions between them")
        if len({run.draws for run in self.runs}) > 1:
            raise ValueError(f"runs of a cascade need the same draws, got {[run.draws for run in self.runs]}")
        for name, run in zip(self.names, self.runs[1:], strict=True):
            if name not in run.condition:
                raise ValueError(
                    f"the run after must be asked with the argument that takes the picture, label={{{name!r}: zeros, "
                    f"...}}; it has {', '.join(run.condition) or 'none'}"
                )
        self.module = nn.ModuleList([run.module for run in self.runs])
        with usual_modes(), torch.no_grad():
            self._check_links()

    def _check_links(self) -> None:
        """Try what leads from each run to the next.

        Raises:
            ValueError: it gives no row for each sample, or another at a second call.
        """
        for number, (run, link) in enumerate(zip(self.runs, self.links, strict=False), 1):
            samples = torch.randn(2, *run.shape, generator=torch.Generator().manual_seed(0)).to(run.start)
            given, again = (_prepared(link, samples) for _ in range(2))
            alone = torch.cat([_prepared(link, samples[i : i + 1]) for i in (0, 1)])
            if not torch.allclose(given, again, atol=1e-5):
                raise ValueError(
                    f"prepare after stage {number} answers otherwise at a second call: draw its noise once, by row, so "
                    "that every coalition meets the same"
                )
            if not torch.allclose(given, alone, atol=1e-4):
                raise ValueError(
                    f"prepare after stage {number} treats a row of a batch unlike alone: every row needs the same noise"
                )

    def samples(self, weights: Sequence[Tensor], starts: Sequence[Tensor | None] | None = None) -> list[Tensor]:
        """What each stage ends in, ``[n * draws, *shape]``, with guidance weights ``[n, steps]`` of each."""
        found: list[Tensor] = []
        starts = starts or [None] * len(self.runs)
        for i, (run, own, start) in enumerate(zip(self.runs, weights, starts, strict=True)):
            number: TrajectoryNumber = copy.copy(run)
            if not run.null and run.label is not None and bool((own != 1).any()):
                number.null = run.model.absent_condition(run.condition)
            if i:
                picture = {self.names[i - 1]: _prepared(self.links[i - 1], found[-1])}
                number.condition, number.null = number.condition | picture, number.null | picture
            found.append(number.samples(own, start=start))
        return found

    def numbers(self, weights: Sequence[Tensor], starts: Sequence[Tensor | None] | None = None) -> Values:
        """The number for guidance weights ``[n, steps]`` of each stage, a mean over the draws, float64 ``[n]``."""
        with torch.no_grad():
            samples = self.samples(weights, starts)[-1]
            values = one_a_row(self.runs[-1].payoff(samples), len(samples), "sample")
            return values.double().view(len(weights[0]), -1).mean(1)

    @property
    def own(self) -> list[Tensor]:
        """The guidance weights as asked, ``[1, steps]`` of each stage."""
        return [run.weights for run in self.runs]

    def value(self) -> float:
        """The number of the cascade as asked for.

        Raises:
            NonFinite: it is NaN or infinity.
        """
        found = float(self.numbers(self.own))
        if not torch.tensor(found).isfinite():
            raise NonFinite(f"the number is {found}: check the payoff and the models' half precision")
        return found

    def run(self) -> Tensor:
        """What the last stage ends in, of the first draw, ``[1, *shape]``."""
        return self.pictures()[-1][:1]

    @torch.no_grad()
    def pictures(self) -> list[Tensor]:
        """What each stage ends in, ``[draws, *shape]``."""
        return self.samples(self.own)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Stages, their steps and guidance, and what they are given."""
        return tuple(_REMOVALS)

    def players(self, kind: str, **options: Any) -> Players:
        """Players: "stages", "noise" (of each stage), "labels", and "steps" or "guidance" (of all stages, ``size=``).

        Raises:
            ValueError: no such kind.
        """
        count = len(self.runs)
        if kind in ("stages", "noise"):
            return Players(kind, torch.arange(count), tuple(f"stage {i}" for i in range(1, count + 1)))
        if kind == "labels":
            return Players(kind, torch.zeros(1, dtype=torch.long), ("condition",))
        if kind not in ("steps", "guidance"):
            raise ValueError(f"a cascade plays with stages, noise, steps, guidance or labels; got {kind!r}")
        parts = [run.players(kind, **options) for run in self.runs]
        before, groups, names, times = 0, [], [], []
        for stage, (run, part) in enumerate(zip(self.runs, parts, strict=True), 1):
            groups += [group + before for group in part.groups or ()]
            names += [f"{stage}: {name}" for name in part.names]
            times.append(part.geometry["t"])
            before += run.steps
        index = torch.stack([group[0] for group in groups])
        return Players(kind, index, tuple(names), tuple(groups), {"t": torch.cat(times)})

    def game(self, players: str | Players) -> Game:
        """Values of coalitions; each runs the whole cascade.

        Raises:
            Unsupported: other players, or guidance of 1 where guidance plays.
        """
        found = self.players(players) if isinstance(players, str) else players
        if found.kind not in _REMOVALS:
            raise Unsupported(f"a cascade plays with {', '.join(_REMOVALS)}; {came(found.kind, _REMOVALS)}")
        if found.kind == "guidance" and all(run.guidance == 1 for run in self.runs):
            raise Unsupported("guidance=1 is no guidance: ask with guidance above 1, or play with steps or stages")
        each = max(run.start.numel() for run in self.runs) * 8
        checks = {"removal": _REMOVALS[found.kind], "draws": self.runs[0].draws}
        size = self.runs[0].batch_size or max(1, _BUDGET // each)
        return Game(found, lambda masks: self._values(found, masks), batch_size=size, checks=checks)

    def _values(self, players: Players, masks: Masks) -> Values:
        if players.kind == "noise":
            starts = [
                torch.where(_like(masks[:, i], run.start), run.start, run.other_start).flatten(0, 1)
                for i, run in enumerate(self.runs)
            ]
            return self.numbers([own.expand(len(masks), -1) for own in self.own], starts)
        present = self._present(players, masks).split([run.steps for run in self.runs], 1)
        off = 1.0 if players.kind == "guidance" else 0.0
        return self.numbers(
            [torch.where(part, float(run.guidance), off) for run, part in zip(self.runs, present, strict=True)]
        )

    def _present(self, players: Players, masks: Masks) -> Tensor:
        """Whether each step of all stages follows its condition, bool ``[n, steps]``."""
        steps = [run.steps for run in self.runs]
        if players.kind == "labels":
            return masks.expand(-1, sum(steps))
        if players.kind == "stages":
            owner = torch.full((sum(steps),), len(players))
            stage_of_step = torch.repeat_interleave(torch.arange(len(steps)), torch.tensor(steps))
            for player, stage in enumerate(players.index.tolist()):
                owner[stage_of_step == stage] = player
            return present_atoms(masks, owner)
        return present_atoms(masks, owner_of_steps(players, sum(steps)))

    def describe(self) -> dict[str, Any]:
        """What was asked, as JSON values."""
        last = self.runs[-1]
        stages = [run.describe() for run in self.runs]
        assumed = {
            f"stage {i}: {k}": v for i, stage in enumerate(stages, 1) for k, v in stage.get("assumed", {}).items()
        }
        return {
            "family": "diffusion",
            "question": "cascade",
            "payoff": payoff_name(last.payoff),
            "into": list(self.names),
            "stages": stages,
            **({"assumed": assumed} if assumed else {}),
        }


def _prepared(link: Prepare | None, samples: Tensor) -> Tensor:
    found = samples if link is None else link(samples.clone())
    if not isinstance(found, Tensor) or len(found) != len(samples):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"prepare must give one row for each sample, [{len(samples)}, ...], got {got}")
    return found


def _like(rows: Tensor, start: Tensor) -> Tensor:
    """``[n]`` shaped to choose between starts ``[draws, *shape]``: ``[n, 1, ...]``."""
    return rows.to(start.device).view(-1, *[1] * start.dim())
