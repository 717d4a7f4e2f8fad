"""The lines of Python that ask the same again, out of what an answer keeps; what it cannot keep is named as yours."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from explain.conversion import undirected
from explain.explanation import Explanation
from explain.summary import counted

YOURS = {"graph": "model = explain.wrap(net, data)", "supervised": "model = explain.wrap(net)"}
DEFAULT = "model = explain.wrap(denoiser)"  # a module and its scheduler, or a pipeline
CONSTANTS = ("logit", "probability", "log_probability", "loss", "value", "error", "evidence", "norm", "x0", "elbo")


def recipe(explanation: Explanation) -> str:
    """Python that makes the explanation again, given the model.

    >>> from torch import arange, ones
    >>> from explain.types import Players
    >>> asked = {"family": "graph", "task": "node", "node": 2, "label": 1, "payoff": "logit", "removal": "delete"}
    >>> settings = {"players": "nodes", "samples": None, "seed": 0}
    >>> why = Explanation(ones(2), Players("nodes", arange(2)), 1.5, target=asked, method="Shapley", settings=settings)
    >>> print(recipe(why))
    import explain
    <BLANKLINE>
    model = explain.wrap(net, data)  # yours
    target = model.node(2, label=1, payoff='logit', removal='delete')
    why = explain.Shapley('nodes', samples=None, seed=0).explain(target)
    assert abs(why.value - 1.5) < 0.001
    """
    wrapped = YOURS.get(str(explanation.target.get("family")), DEFAULT)
    target, mine = _target(explanation.target)
    explainer = _explainer(explanation)
    tolerance = 10 ** (len(f"{abs(explanation.value):.0f}") - 4)
    return "\n".join([
        "import explain",
        "",
        f"{wrapped}  # yours{mine}",
        f"target = {target}",
        f"why = {explainer}.explain(target)",
        f"assert abs(why.value - {explanation.value:.5g}) < {tolerance:g}",
    ])  # fmt: skip


def _target(asked: Mapping[str, Any]) -> tuple[str, str]:
    """The call of the target, and which of its arguments only the user has."""
    payoff = asked.get("payoff")
    own = payoff if payoff in CONSTANTS else None
    named: dict[str, Any] = {"label": asked.get("label")}
    family, task = asked.get("family"), asked.get("task")
    if asked.get("question") == "step":
        times = asked.get("t", [])
        named |= {"payoff": own, "guidance": asked.get("guidance"), "fill": asked.get("removal")}
        named |= {"draws": asked.get("draws"), "seed": asked.get("noise_seed")}
        return _call("model.step", ["x0", repr(_number(times))], named, {"payoff": payoff}), ", as x0 is" + _also(
            payoff
        )
    if asked.get("question") == "trajectory":
        first = asked.get("prompt", asked.get("label"))
        named = {name: asked.get(name) for name in ("negative", "steps", "guidance", "draws")}
        named |= {"seed": asked.get("noise_seed")}
        return _call("model.trajectory", [repr(first)], named, {"payoff": payoff}), _also(payoff)
    if family == "supervised":
        named |= {"payoff": own, "baseline": asked.get("baseline")}
        return _call("model.example", ["x"], named, {"payoff": payoff}), ", as x is" + _also(payoff)
    if isinstance(task, str) and task in asked:
        places = [_place(end) for end in (asked[task] if task == "edge" else [asked[task]])]
        named |= {"payoff": own, "removal": asked.get("removal")}
        named |= {"baseline": asked["baseline"]} if asked.get("baseline") not in (None, "zeros") else {}
        return _call(f"model.{task}", places, named, {"payoff": payoff}), _also(payoff)
    return f"...  # what was asked: {dict(asked)!r:.300}", ""


def _place(node: Any) -> str:
    """A node or a graph as the call takes it: a number, or (type, number) of "paper 42"."""
    if isinstance(node, list):
        return repr(tuple(node))
    kind, _, number = str(node).rpartition(" ")
    if not number.isdigit():
        return repr(node)
    return f"({kind!r}, {number})" if kind else number


def _also(payoff: Any) -> str:
    return "" if payoff in CONSTANTS or payoff is None else ", and payoff"


def _call(name: str, places: list[str], named: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """A call in words; a payoff of one's own stands under its own name."""
    told = [f"{key}={value!r}" for key, value in named.items() if value is not None]
    told += [f"{key}={key}" for key, value in given.items() if value is not None and value not in CONSTANTS]
    return f"{name}({', '.join([*places, *told])})"


def _number(times: list[float]) -> int | float | list:
    whole = [int(t) if t == int(t) else t for t in times]
    return whole[0] if len(whole) == 1 else whole


def _explainer(explanation: Explanation) -> str:
    settings = {name: value for name, value in explanation.settings.items() if name.isidentifier()}
    settings.pop("loss", None)  # the model's, kept with the settings
    said = []
    players = settings.pop("players", None)
    if players is not None:
        kind = explanation.players.kind
        given = f"target.players({kind!r}, undirected=True)" if undirected(explanation) else f"target.players({kind!r})"
        said.append(given if players == counted(explanation) else repr(players))
    if settings.pop("train", None) is not None:
        said.append("train=train")  # tensors are not kept
    if settings.get("seed", 0) is None:
        settings["seed"] = explanation.seed
    said += [f"{name}={_value(value)}" for name, value in settings.items()]
    method = explanation.method
    known = method if method.isidentifier() and not keyword.iskeyword(method) else "Explainer"
    return f"explain.{known}({', '.join(said)})"


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, fields),) = value.items()
        if isinstance(fields, Mapping) and name.isidentifier():  # a solver with its own settings
            return f"{name}({', '.join(f'{key}={_value(of)}' for key, of in fields.items())})"
    return repr(value)
