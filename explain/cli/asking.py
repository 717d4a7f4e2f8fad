"""The question of an answer, asked of a wrapped model again where its file holds it whole; else what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor, nn

from explain.cli.making import CannotReplay
from explain.explanation import Explanation
from explain.types import Target

_VERBS = ("node", "edge", "graph")
_REMEDY = "name the target itself in the file, --model my_setup.py:target"


def asked_again(why: Explanation, model: Any) -> Target:
    """What this answer answers, of a wrapped model.

    Raises:
        CannotReplay: it hung on what no file keeps; the message says on what.
        TypeError: no wrapped model.
    """
    if isinstance(model, nn.Module):
        raise TypeError(f"this is a {type(model).__name__}, not wrapped: give explain.wrap(model, ...), or a target")
    asked = why.target
    question = str(asked.get("question") or asked.get("task") or "")
    known = {
        **{("graph", verb): (verb, _of_graph) for verb in _VERBS},
        ("diffusion", "step"): ("step", _step),
        ("diffusion", "trajectory"): ("trajectory", _run),
    }
    verb, ask = known.get((str(asked.get("family")), question), ("", None))
    if asked.get("family") == "supervised":
        verb, ask = "example", _example
    if ask is None or not callable(getattr(model, verb, None)):
        raise CannotReplay(
            f"{question or 'this question'} of {asked.get('family') or 'another'} models cannot be asked of this "
            f"{type(model).__name__}: {_REMEDY}"
        )
    try:
        return ask(why, model)
    except CannotReplay:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CannotReplay(f"the question cannot be asked again from the file ({error}): {_REMEDY}") from error


def _missing(what: str) -> NoReturn:
    """Say what the file lacks.

    Raises:
        CannotReplay: always.
    """
    raise CannotReplay(f"{what}, which no file keeps: {_REMEDY}")


def _of_graph(why: Explanation, model: Any) -> Target:
    asked = why.target
    verb = asked["task"]
    given = {name: asked[name] for name in ("label", "payoff", "removal", "baseline")}
    if verb == "graph":
        return model.graph(asked["graph"], **given)
    ends = asked[verb] if verb == "edge" else [asked[verb]]
    return getattr(model, verb)(*(_node(asked, name) for name in ends), **given)


def _example(why: Explanation, model: Any) -> Target:
    """One row or picture: an answer over its own features or pixels holds it."""
    asked, geometry = why.target, why.players.geometry
    x = geometry.get("image", geometry.get("values"))
    if x is None or list(x.shape) != asked["shape"]:
        _missing(f"it is about an example {asked['shape']}, and {why.players.kind} do not hold its values")
    if asked["baseline"] == "reference":
        _missing("what is absent was a tensor of your own")
    label = None if "label" in asked.get("assumed", {}) else asked["label"]
    return model.example(_as_taken(x, model.module), label, payoff=asked["payoff"], baseline=asked["baseline"])


def _as_taken(x: Tensor, module: nn.Module) -> Tensor:
    """An example on the device of its module and of its type: float64 holds them all, token ids too."""
    weight = next(module.parameters(), None)
    if weight is None:
        return x
    ids = any(isinstance(part, nn.Embedding) for part in module.modules()) and bool((x == x.round()).all())
    return x.to(weight.device).long() if ids else x.to(weight)


def _step(why: Explanation, model: Any) -> Target:
    """A noised picture: an answer over its patches or pixels holds the clean one, and noise is drawn by its seed."""
    asked, x0 = why.target, why.players.geometry.get("image")
    if x0 is None:
        _missing(f"it is about a picture, and {why.players.kind} do not hold it")
    if asked["label"] == "given":
        _missing("its condition was a tensor of your own")
    if asked["removal"] == "reference":
        _missing("absent patches showed reference images of your own")
    times = [int(t) if t == int(t) else t for t in asked["t"]]
    named = {name: asked[name] for name in ("draws", "payoff", "guidance")} | {"seed": asked["noise_seed"]}
    x0 = _as_taken(x0, model.denoiser)
    target = model.step(x0, times, asked["label"], fill=asked["removal"], weights=asked.get("weights"), **named)
    if target.describe()["region"] != asked["region"]:
        _missing("it is about a region of your own")
    return target


def _run(why: Explanation, model: Any) -> Target:
    """A whole run: its number is always a function of the picture."""
    _missing(f"{why.target.get('payoff')!r}, what the run was asked, is a function of your own")


def _node(asked: Mapping[str, Any], name: str) -> int | tuple[str, int]:
    """A node by its name, or its number, after its type where there are types.

    Raises:
        KeyError: of no type.
    """
    counts = asked.get("node_types") or {"": None}
    names, first = asked.get("node_names"), 0
    for kind, count in counts.items():
        own = names if count is None or names is None else names[first : first + count]
        first += count or 0
        text = name.removeprefix(f"{kind} ") if kind else name
        if kind and text == name:
            continue
        number = own.index(text) if own else int(text)
        return (kind, number) if kind else number
    raise KeyError(name)
