"""The demo's prompt: which of its words caused what is seen in the picture, asked of a pipeline of words to digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm.auto import tqdm

import explain
from explain.diffusion.pipelines.target import PipelineRun
from models import judge, prompt_digits, words
from models.answers import Answer, Picture, asked, figure_of
from models.planted_words import ATTENTION, CAUSES, PROMPT, payoffs

NAME = "PromptDigits"
RECIPE = prompt_digits.Recipe()
STEPS, GUIDANCE, DRAWS = 10, 1.5, 8
CAPTIONS = {
    "overview-prompts": f'What each word of "{PROMPT}" causes, by question, and how much it is looked at',
    "prompts-words": "The prompt in the colours of its credit for the class",
    "prompts-maps": "Where the words are looked at, each map beside chance",
    "prompts-steps": "What the run foresees at each step, and what the prompt at each is worth to the class",
}


class Story(NamedTuple):
    """A trained pipeline, one run asked four questions, and the class once more with a single draw."""

    trained: prompt_digits.Trained
    runs: dict[str, PipelineRun]
    single: PipelineRun


def story(seed: int, fresh: bool) -> Story:
    """The same prompt and the same noise for every question, so that answers differ by what is asked alone."""
    trained = prompt_digits.load_or_train(RECIPE, seed=seed, fresh=fresh)
    net = judge.load_or_train("worded", epochs=prompt_digits.JUDGE_EPOCHS, fresh=fresh).module
    model = explain.wrap(trained.pipeline)

    def run(payoff: Callable[[Tensor], Tensor], draws: int = DRAWS) -> PipelineRun:
        return model.trajectory(PROMPT, payoff=payoff, steps=STEPS, guidance=GUIDANCE, seed=seed, draws=draws)

    questions = payoffs(net)
    runs = {name: run(payoff) for name, payoff in questions.items()}
    return Story(trained, runs, run(questions["class"], draws=1))


def title(told: Story) -> str:
    """Of the report."""
    return f'Which word did it? "{PROMPT}".'


def runs(told: Story) -> list[explain.Target]:
    """What the report shows step by step."""
    return [told.single]


def curves(told: Story) -> list[explain.Target]:
    """Nothing is asked again with fewer words: each time is another run."""
    return []


def introduction(told: Story) -> str:
    """What was trained, how well, and what is asked."""
    facts, cached = told.trained.facts, " (cached)" if told.trained.cached else ""
    obeyed = ", ".join(f"{name} {facts[name]:.1%}" for name in ("class", *words.TRAITS))
    return (
        f"Words to digits: a tokenizer, a text encoder and an SD3-type transformer{cached}\n"
        f"words obeyed in 480 guided pictures: {obeyed}; the judge's own accuracy: {facts['judge_accuracy']:.1%}\n"
        f'asked: which word of "{PROMPT}" causes its class, where it stands, its ink, its brightness'
    )


def questions(told: Story, seed: int) -> Iterator[tuple[str, explain.Explainer, PipelineRun]]:
    """Words for every payoff, pairs of words for the brightness, attention to words, and steps for the class."""
    for name, run in told.runs.items():
        yield name, explain.Shapley("words", seed=seed), run
    yield "brightness", explain.Interactions("words", seed=seed), told.runs["brightness"]
    for name, aggregate in ATTENTION.items():
        yield name, explain.Attention("words", aggregate=aggregate), told.single
    yield "class", explain.Shapley("steps", seed=seed), told.single


def answers(told: Story, seed: int) -> Iterator[Answer]:
    """Every question, by exact games, and where the words are looked at."""
    for name, explainer, run in tqdm(list(questions(told, seed)), desc=f"explaining {NAME}"):
        yield asked(f"{NAME} {name}", explainer, run)


def pictures(told: Story, found: list[Answer]) -> list[Picture]:
    """The credit of every word by question beside attention, maps of words, and the steps of the run."""
    by = {(answer.model, answer.explanation.method): answer.explanation for answer in found}
    credits = {name: by[f"{NAME} {name}", "Shapley"] for name in CAUSES if name != "class"}
    of_class = [a.explanation for a in found if a.model == f"{NAME} class" and a.explanation.method == "Shapley"]
    words_of, steps = sorted(of_class, key=lambda explanation: explanation.players.kind == "steps")
    credits = {"class": words_of} | credits
    attention = {name: by[f"{NAME} {name}", "Attention"] for name in ATTENTION}
    picture = told.single.picture()
    figures = {
        "overview-prompts": overview(credits, attention),
        "prompts-words": figure_of(explain.plot.words(words_of, over=picture)),
        "prompts-maps": figure_of(explain.plot.word_maps(attention["attention"], over=picture)),
        "prompts-steps": figure_of(explain.plot.steps(steps, told.single.images())),
    }
    return [Picture(name, caption, figures[name]) for name, caption in CAPTIONS.items()]


def overview(credits: dict[str, explain.Explanation], attention: dict[str, explain.Explanation]) -> Figure:
    """Words by questions, each question's credit as a share of its largest; below, attention, the same for them all."""
    names = next(iter(credits.values())).players.names
    rows = {name: credit.scores / credit.scores.abs().max() for name, credit in credits.items()}
    rows |= {name: shares.scores / shares.scores.max() for name, shares in attention.items()}
    figure, ax = plt.subplots(figsize=(1.9 + 0.9 * len(names), 1.2 + 0.4 * len(rows)), layout="constrained")
    table = torch.stack(list(rows.values()))
    ax.imshow(table.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for y, row in enumerate(table.tolist()):
        for x, share in enumerate(row):
            ax.text(x, y, f"{share:+.2f}", ha="center", va="center", color="white" if abs(share) > 0.6 else "black")
    ax.axhline(len(credits) - 0.5, color="black", linewidth=1)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(length=0)
    ax.set_title("credit, then attention: each row in shares of its largest", loc="left", fontsize="medium")
    return figure
