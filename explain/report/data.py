"""What the workbench knows: the answers to a question and the drawings they are seen on, as JSON inside of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from explain.explanation import Explanation
from explain.report.films import Film, attention_maps
from explain.report.questions import Question, unit
from explain.report.recipe import recipe
from explain.report.scenes import Scene
from explain.report.verdict import signed

KEPT = ("edges", "radius", "arrows", "size")  # of a drawing
MOST = 1000  # players of an answer; the rest is told as a sum
ESCAPED = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}


def as_json(value: Any) -> Markup:
    r"""JSON that may stand in a ``<script>``: nothing in it ends the element or a line of it.

    >>> as_json(["</script>", "a & b"])
    Markup('["\\u003c/script\\u003e","a \\u0026 b"]')
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character, escaped in ESCAPED.items():
        text = text.replace(character, escaped)
    return Markup(text)


def question_data(asked: Question, scenes: Sequence[Scene], film: Film | None) -> dict[str, Any]:
    """The answers, their drawings, and the pictures of a run."""
    answers = zip(asked.answers, asked.told, strict=True)
    return {
        "answers": [_answer(told, scenes) | {"method": one.method, "code": recipe(one)} for one, told in answers],
        "scenes": [_drawn(scene) for scene in scenes],
        "film": film.shown() if film else None,
    }


def _answer(one: Explanation, scenes: Sequence[Scene]) -> dict[str, Any]:
    order = one.order()[:MOST].tolist()
    at = {player: i for i, player in enumerate(order)}
    scene = next((i for i, found in enumerate(scenes) if one in found.answers), -1)
    owners = scenes[scene].owners[scenes[scene].answers.index(one)] if scene >= 0 else ()
    return {
        "name": one.method,
        "kind": one.players.kind,
        "names": [one.players.names[i] for i in order],
        "places": order,
        "scores": [_short(float(one.scores[i])) for i in order],
        "errors": None if one.error is None else [_short(float(one.error[i]), 2) for i in order],
        "players": len(one.players),
        "rest": _short(float(one.scores.sum()) - float(one.scores[order].sum())),
        "signed": signed(one),
        "unit": unit(one),
        "base": one.base,
        "value": one.value,
        "scene": scene,
        "owners": [at.get(player, -1) for player in owners],
        "t": one.target["t"] if one.target.get("question") == "step" else None,
        "maps": attention_maps(one),
    }


def _drawn(scene: Scene) -> dict[str, Any]:
    kept: dict[str, Any] = {name: scene.drawing[name] for name in KEPT if name in scene.drawing}
    return {"kind": scene.kind, **kept}


def _short(number: float, digits: int = 5) -> float:
    return float(f"{number:.{digits}g}")
