"""``make prompts``: words whose causes are planted, held to the credit they should have in the model at full size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import torch
import typer
from torch import Tensor, nn
from tqdm.auto import tqdm

import explain
from explain.diffusion.pipelines.target import PipelineRun
from models import judge, latent_digits, prompt_digits, words
from models.threads import one_thread

Payoff = Callable[[Tensor], Tensor]

PROMPT, NUMBER = "a faint inverted zero right", "zero"
CAUSES = {"class": "zero", "centroid": "right", "peak ink": "faint", "brightness": "inverted"}  # "a" causes nothing
PAIRS = {"brightness": ("faint", "inverted"), "faint on the right": ("faint", "right")}
ATTENTION: dict[str, Literal["mean", "daam", "output"]] = {
    "attention": "mean",
    "attention, DAAM": "daam",
    "attention, outputs": "output",
}
CALL = {"steps": 10, "guidance": 1.5}


class Held(NamedTuple):
    """What each thing is held to: the least, and of the efficiency gap the most."""

    judge: float = 0.95
    number: float = 0.95
    trait: float = 0.9
    share: float = 0.9
    ratio: float = 1.5
    errors: float = 2.0
    gap: float = 1e-5


def faint_on_the_right(pictures: Tensor) -> Tensor:
    """Little ink, and right of the middle, ``[n]`` 0 or 1: worth something only where two words come together."""
    return ((words.peak_ink(pictures) < 0.7) & (words.centroid(pictures) > 3.7)).float()


def payoffs(net: nn.Module, number: str = NUMBER) -> dict[str, Payoff]:
    """The questions of `CAUSES`, by name."""
    found = (words.reads(net, number), words.centroid, words.peak_ink, words.brightness)
    return dict(zip(CAUSES, found, strict=True))


# --- what is measured ---


class Credit(NamedTuple):
    """Shapley values ``[seeds, words]``, what they share out ``[seeds]``, and the largest gap between them."""

    names: tuple[str, ...]
    scores: Tensor
    shared: Tensor
    gap: float


@dataclass(frozen=True)
class Asked:
    """One prompt of a pipeline, asked once a seed.

    Args:
        pipeline: words to digits.
        prompt: what is drawn.
        seeds: each one run from its own noise.
        call: of `trajectory`.
    """

    pipeline: Any
    prompt: str = PROMPT
    seeds: Sequence[int] = range(24)
    call: Mapping[str, Any] = field(default_factory=lambda: CALL)

    def runs(self, payoff: Payoff, name: str) -> Iterator[PipelineRun]:
        """A run for each seed."""
        model = explain.wrap(self.pipeline)
        for seed in tqdm(self.seeds, desc=f"asking about the {name}", leave=False):
            yield model.trajectory(self.prompt, payoff=payoff, seed=seed, **self.call)

    def credit(self, payoff: Payoff, name: str = "") -> Credit:
        """Of every word, by exact games."""
        whys = [explain.Shapley("words").explain(run) for run in self.runs(payoff, name)]
        scores = torch.stack([why.scores.double() for why in whys])
        shared = torch.tensor([why.value - (why.base or 0.0) for why in whys], dtype=torch.float64)
        return Credit(whys[0].players.names, scores, shared, max(why.checks["efficiency_gap"] for why in whys))

    def pairs(self, payoff: Payoff, name: str = "") -> Tensor:
        """Interactions ``[seeds, words, words]``, zero on the diagonal."""
        whys = [explain.Interactions("words").explain(run) for run in self.runs(payoff, name)]
        return torch.stack([why.parts["interactions"].clone().fill_diagonal_(0) for why in whys])

    def looked_at(self) -> dict[str, Tensor]:
        """Shares ``[words]`` of attention in the first run, which knows no question, by every aggregate."""
        run = next(self.runs(words.centroid, "attention"))
        return {name: explain.Attention("words", aggregate=how).explain(run).scores for name, how in ATTENTION.items()}


class Lead(NamedTuple):
    """The largest of several means in size: which, how large, how many times the next, how many errors before it."""

    first: int
    mean: float
    error: float
    second: int
    ratio: float
    ahead: float


def lead(samples: Tensor) -> Lead:
    """Of ``samples [n, things]``; an error is a standard error over the ``n``.

    >>> lead(torch.tensor([[-4.0, 1.0, 0.0], [-6.0, 2.0, 1.0]]))[:5]
    (0, -5.0, 1.0, 1, 3.3333333333333335)
    """
    n, mean = len(samples), samples.double().mean(0)
    first, second = mean.abs().argsort(descending=True)[:2].tolist()
    sizes = samples.double() * mean.sign()
    ahead = sizes[:, first] - sizes[:, second]
    error, apart = (each.std() / n**0.5 for each in (samples[:, first].double(), ahead))
    ratio = mean[first].abs() / mean[second].abs()
    return Lead(first, float(mean[first]), float(error), second, float(ratio), float(ahead.mean() / apart))


# --- what it is held to ---


class Check(NamedTuple):
    """One line of the table; ``holds`` is None where nothing is asked."""

    what: str
    measured: str
    asked: str
    holds: bool | None


def of_obedience(facts: dict[str, Any], held: Held) -> Iterator[Check]:
    """Whether words are obeyed in pictures of whole prompts, and whether the judge can tell."""
    asked = {"judge_accuracy": held.judge, "class": held.number} | dict.fromkeys(words.TRAITS, held.trait)
    names = {"judge_accuracy": "the judge is right on real digits", "class": "the judge reads the number asked for"}
    for name, least in asked.items():
        said = names.get(name, f"{' and '.join(words.TRAITS.get(name, ()))} are obeyed")
        yield Check(said, f"{facts[name]:.1%}", f">= {least:.0%}", facts[name] >= least)


def of_credit(name: str, cause: str, found: Credit, held: Held) -> Iterator[Check]:
    """Whether the word that causes it has the credit, and of the class all but a tenth of what is shared.

    A judge is less sure of a wrong class in faint ink, and ``faint`` has the credit of that: of ``log p`` of other
    numbers than zero their word has from 62 to 102 %.
    """
    best = lead(found.scores)
    first, second = found.names[best.first], found.names[best.second]
    yield Check(
        f"credit of the {name}",
        f"{first} {best.mean:+.3f} ± {best.error:.3f}, {best.ratio:.1f} x {second}, {best.ahead:.1f} errors ahead",
        f"{cause}, >= {held.ratio:g} x, > {held.errors:g} errors",
        first == cause and best.ratio >= held.ratio and best.ahead > held.errors,
    )
    if name == "class":
        share = float(found.scores[:, found.names.index(cause)].mean() / found.shared.mean())
        yield Check(f"share of {cause} in log p", f"{share:.1%}", f">= {held.share:.0%}", share >= held.share)
    yield Check(f"efficiency of the {name}", f"{found.gap:.1e}", f"<= {held.gap:.0e}", found.gap <= held.gap)


def of_pair(name: str, pair: tuple[str, str], names: Sequence[str], found: Tensor, held: Held) -> Check:
    """Whether two words that only work together have the largest interaction."""
    rows, columns = torch.triu_indices(len(names), len(names), 1)
    each = found[:, rows, columns]
    best = lead(each)
    first, second = ([names[int(rows[i])], names[int(columns[i])]] for i in (best.first, best.second))
    return Check(
        f"pair of the {name}",
        f"{' and '.join(first)} {best.mean:+.3f} ± {best.error:.3f}, {best.ratio:.1f} x {' and '.join(second)}",
        f"{' and '.join(pair)}, >= {held.ratio:g} x, > {held.errors:g} errors from 0",
        set(first) == set(pair) and best.ratio >= held.ratio and abs(best.mean) > held.errors * best.error,
    )


def order(names: Sequence[str], scores: Tensor) -> str:
    """Words by the size of their scores.

    >>> order(["faint", "zero"], torch.tensor([0.1, -2.0]))
    'zero -2.00, faint +0.10'
    """
    return ", ".join(f"{names[i]} {scores[i]:+.2f}" for i in scores.abs().argsort(descending=True).tolist())


def checks(asked: Asked, facts: dict[str, Any], net: nn.Module, held: Held | None = None) -> list[Check]:
    """Everything that is held, and how attention ranks the words beside."""
    held = held or Held()
    questions = payoffs(net) | {"faint on the right": faint_on_the_right}
    lines = list(of_obedience(facts, held))
    credits = {name: asked.credit(questions[name], name) for name in CAUSES}
    for name, found in credits.items():
        lines += of_credit(name, CAUSES[name], found, held)
    names = credits["class"].names
    for name, pair in PAIRS.items():
        lines.append(of_pair(name, pair, names, asked.pairs(questions[name], name), held))
    ranks = {name: found.scores.mean(0) for name, found in credits.items()} | asked.looked_at()
    return lines + [Check(f"rank by {name}", order(names, scores), "", None) for name, scores in ranks.items()]


def table(lines: Sequence[Check]) -> str:
    """One line a check."""
    verdicts = {True: "holds", False: "FAILS", None: ""}
    rows = [(line.what, line.measured, line.asked, verdicts[line.holds]) for line in lines]
    shown = pd.DataFrame(rows, columns=["check", "measured", "asked", ""])
    widths = {name: max(map(len, [name, *shown[name]])) for name in shown}
    formatters = {name: f"{{:<{width}}}".format for name, width in widths.items()}
    return shown.to_string(index=False, justify="left", formatters=formatters)


def main(
    latent: Annotated[bool, typer.Option("--latent", help="the pipeline in a latent, models.latent_digits")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="train again, whatever the cache holds")] = False,
) -> None:
    """Train the prompt model at full size, or find it in the cache, and hold its words to their causes.

    Prints one table; the exit status is 1 where a check fails. Some six CPU minutes of training and two of asking.
    """
    with one_thread():
        trained = (latent_digits if latent else prompt_digits).load_or_train(fresh=fresh)
        net = judge.load_or_train("worded", epochs=prompt_digits.JUDGE_EPOCHS).module
        lines = checks(Asked(trained.pipeline, call=latent_digits.ASKED if latent else CALL), trained.facts, net)
    print(table(lines))
    if not all(line.holds for line in lines if line.holds is not None):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
