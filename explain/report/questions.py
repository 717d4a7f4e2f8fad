"""Answers to the same question stand together; the question, and its number, in plain words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from explain.explanation import Explanation
from explain.plot.style import question, units

# what differs among methods that were asked the same: what absent means, and what was found out on the way
ASIDE = ("removal", "baseline", "assumed", "loss")
OF_CLASS = {"logit": "logit", "probability": "probability", "log_probability": "log-probability"}
SAID = {
    "loss": "loss (down is better)",
    "error": "negative squared error (up is better)",
    "evidence": "evidence for the label",
    "norm": "squared norm of the prediction",
    "x0": "mean of the foreseen picture",
}


@dataclass(frozen=True, eq=False)
class Question:
    """What was asked of one model, and the answers to it, in the order that they were given.

    >>> from torch import arange, ones
    >>> from explain.types import Players
    >>> asked = {"family": "graph", "model": "GCN", "task": "node", "node": 2, "label": 1, "payoff": "logit"}
    >>> why = Explanation(ones(2), Players("nodes", arange(2)), 1.5, target=asked, method="Shapley")
    >>> one = Question((why,))
    >>> one.words
    'Why does GCN say class 1 of node 2?'
    >>> one.number
    'The logit of class 1 is 1.5.'
    """

    answers: tuple[Explanation, ...]

    @cached_property
    def told(self) -> tuple[Explanation, ...]:
        """The answers, their methods told apart: by the setting that differs, or the noise level, or a number."""
        return tuple(replace(one, method=name) for one, name in zip(self.answers, _apart(self.answers), strict=True))

    @property
    def words(self) -> str:
        """The question as one would ask it."""
        return asked(self.answers[0])

    @property
    def number(self) -> str:
        """The number that is explained; one a noise level where several were asked about."""
        name = payoff(self.answers[0].target)
        values = {_time(found): found.value for found in self.answers if "number" not in found.checks}
        values = values or {_time(found): found.value for found in self.answers}
        if len(values) == 1:
            return f"The {name} is {next(iter(values.values())):.4g}."
        return f"The {name}: " + ", ".join(f"{value:.4g} at t={t:g}" for t, value in values.items()) + "."


def grouped(explanations: Sequence[Explanation]) -> list[Question]:
    """The questions, in the order in which they come first.

    Answers about one model, output and payoff are to one question whatever "absent" means to a method; the noise levels
    of one image too, and else the number has to be the same.
    """
    found: dict[str, list[Explanation]] = {}
    for explanation in explanations:
        found.setdefault(_key(explanation), []).append(explanation)
    return [Question(tuple(sorted(answers, key=_rank))) for answers in found.values()]


def _rank(one: Explanation) -> tuple[bool, bool, bool]:
    """What shares the number out comes first, then what has a sign; training examples are another question's answer."""
    return one.players.kind == "train", "scores" in one.checks, "efficiency_gap" not in one.checks


def asked(explanation: Explanation) -> str:
    """The question of one answer."""
    target = explanation.target
    model, label = str(target.get("model") or "the model"), target.get("label")
    name, briefly = payoff(target), question(explanation)
    if target.get("question") == "step":
        of = f", class {label}," if label is not None else ""
        if target.get("payoff") == "error":
            return f"Why does {model} see through the noise on this picture{of} as far as it does?"
        return f"What is behind the {name} that {model} gives this noised picture{of.rstrip(',')}?"
    if target.get("question") == "trajectory":
        return f"Why does {model}'s {briefly}, end with this {name}?"
    named = target.get("class_name", label)
    subject = briefly.removesuffix(f", class {named}") if label is not None else briefly
    subject = "this example" if target.get("family") == "supervised" else subject or "what it was given"
    if isinstance(label, int) and target.get("payoff") in OF_CLASS:
        return f"Why does {model} say class {named} of {subject}?"
    return f"What is behind the {name} that {model} gives {subject}?"


def payoff(target: Any) -> str:
    """The number's name: "logit of class 1"."""
    name, label = target.get("payoff"), target.get("label")
    if name in OF_CLASS and isinstance(label, int):
        return f"{OF_CLASS[name]} of class {target.get('class_name', label)}"
    if not isinstance(name, str) or name in ("<lambda>", "callable", ""):
        return "number"
    return SAID.get(name, name.replace("_", " "))


def unit(explanation: Explanation) -> str:
    """What a score is measured in, with the number's name in words.

    >>> from torch import arange, ones
    >>> from explain.types import Players
    >>> unit(Explanation(ones(2), Players("patches", arange(2)), 1.5, target={"payoff": "error"}))
    'credit [negative squared error (up is better)]'
    """
    said = SAID.get(str(explanation.target.get("payoff")))
    own = {"scores", "number"} & explanation.checks.keys()
    return f"credit [{said}]" if said and not own else units(explanation).replace(r"\$", "$")


def _apart(answers: Sequence[Explanation]) -> list[str]:
    names = [one.method or "Explanation" for one in answers]
    found = []
    for one, name in zip(answers, names, strict=True):
        alike = [other for other in answers if (other.method, other.players.kind) == (one.method, one.players.kind)]
        more = (
            [f"t={time:g}"] if (time := _time(one)) is not None and len({_time(other) for other in alike}) > 1 else []
        )
        more += [
            str(setting)
            for key, setting in one.settings.items()
            if any(other.settings.get(key) != setting for other in alike) and key != "players"
        ][: 2 - len(more)]
        found.append(f"{name} ({', '.join(more)})" if len(alike) > 1 and more else name)
    kinds = [(name, one.players.kind) for name, one in zip(found, answers, strict=True)]
    count = Counter(kinds)
    return [
        f"{name} {kinds[: i + 1].count(kind)}" if count[kind] > 1 else name
        for i, (name, kind) in enumerate(zip(found, kinds, strict=True))
    ]


def _time(explanation: Explanation) -> float | None:
    """The one noise level that a step was asked about."""
    times = explanation.target.get("t")
    return float(times[0]) if isinstance(times, list) and len(times) == 1 else None


def _key(explanation: Explanation) -> str:
    step = _time(explanation) is not None
    aside = (*ASIDE, "t") if step else ASIDE
    told = {name: value for name, value in explanation.target.items() if name not in aside}
    number = None if step or "number" in explanation.checks else f"{explanation.value:.3g}"
    return json.dumps([told, number], sort_keys=True)
