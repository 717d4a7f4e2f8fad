"""An explanation in one line and in one small table, with the method's own proof and what was assumed, in few words."""

from __future__ import annotations

from html import escape

from explain.credit import Credit

# what each method proves about itself: names in `checks` and how they are said; the first that is there decides
PROOFS: tuple[dict[str, str], ...] = (
    {"efficiency_gap": "efficiency gap {:.1e}", "largest_error": "s.e. ≤ {:.2g}"},
    {"r2": "R² {:.3f}", "local_gap": "local gap {:.1e}"},
    {"completeness_gap": "completeness gap {:.1e}"},
    {"run_to_run": "runs agree {:.2f}", "fidelity_top_k": "top players alone {:.3g}"},
    {"change_under_uniform": "uniform attention {:+.3g}"},
    {"replay_gap": "replay gap {:.1e}", "smoothness_gap": "response gap {:.2g}"},
    {"residual": "residual {:.1e}", "curvature": "curvature {}", "damping": "damping {:.2g}"},
    {"deleted": "{} deleted", "margin_after": "margin {:+.2g}"},
    {"subgraphs": "the best of {} subgraphs", "value_error": "s.e. {:.2g}"},
    {"explained": "explains {:.0%}", "kkt": "KKT gap {:.1e}"},
    {"additivity_gap": "additivity gap {:.2g}"},
)


def own_check(explanation: Credit) -> str:
    """The method's own proof in a few words, empty where it has none.

    >>> from torch import zeros
    >>> from explain.types import Players
    >>> own_check(Credit(zeros(0), Players("edges", zeros(0).long()), 0.0, checks={"r2": 0.98}))
    'R² 0.980'
    """
    for proof in PROOFS:
        found = {name: explanation.checks.get(name) for name in proof}
        said = [proof[name].format(value) for name, value in found.items() if _sayable(value, proof[name])]
        if said:
            return ", ".join(said)
    return ""


def _sayable(value: object, form: str) -> bool:
    if isinstance(value, str):
        return "{}" in form
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def assumed(explanation: Credit) -> dict[str, str]:
    """What was taken to be so about the model though the user did not say it: short names, one sentence each.

    >>> from torch import zeros
    >>> from explain.types import Players
    >>> told = {"assumed": {"loss": "cross-entropy: the labels are whole numbers"}}
    >>> assumed(Credit(zeros(0), Players("edges", zeros(0).long()), 0.0, target=told))
    {'loss': 'cross-entropy: the labels are whole numbers'}
    """
    return dict(explanation.target.get("assumed", {}))


def counted(explanation: Credit) -> str:
    """How many players of which kind: "34 nodes"."""
    kind = explanation.players.kind
    return f"{len(explanation.players)} {'training examples' if kind == 'train' else kind}"


def top_players(explanation: Credit, k: int = 3) -> str:
    """The ``k`` strongest players and their signed scores, without those of zero."""
    return ", ".join(f"{name} {score:+.3g}" for name, score in explanation.top(k) if score) or "nobody"


def number(explanation: Credit) -> list[str]:
    """The label, where the number is a class's or one of several outputs', and the number."""
    label, name = explanation.target.get("label"), explanation.target.get("class_name")
    said = f"label {label} ({name})" if name else f"label {label}"
    return [*([said] if isinstance(label, int) else []), f"value {explanation.value:.4g}"]


def line(explanation: Credit) -> str:
    """Method, players, the class and the number that was explained, top three and the main check."""
    players = explanation.players
    said = [f"{explanation.method or 'Explanation'}: {counted(explanation)}", *number(explanation)]
    if len(players):
        said.append(f"top {top_players(explanation)}")
    return ", ".join([*said, *filter(None, [own_check(explanation)])])


def told(explanation: Credit) -> list[str]:
    """The trained loss where it was given, and what was assumed, a line each."""
    guesses, loss = assumed(explanation), explanation.target.get("loss")
    given = [f"loss: {loss}"] if loss and "loss" not in guesses else []
    return given + [f"assumed {name}: {why}" for name, why in guesses.items()]


def text(explanation: Credit) -> str:
    """The line, and one more for each doubt, the trained loss and each thing that was assumed."""
    doubts = [f"doubt: {said}" for said in explanation.doubts]
    return "\n".join([line(explanation), *(f"  {said}" for said in [*doubts, *told(explanation)])])


def html(explanation: Credit, k: int = 10) -> str:
    """A small table for notebooks; every text is escaped."""
    shown = explanation.order()[:k].tolist()
    error = explanation.error
    rows = "".join(
        f"<tr><td>{escape(explanation.players.names[i])}</td><td>{explanation.scores[i]:+.4g}</td>"
        f"<td>{'' if error is None else f'±{error[i]:.2g}'}</td></tr>"
        for i in shown
    )
    said = number(explanation)
    if explanation.base is not None:
        said.append(f"base {explanation.base:.4g}")
    said += [*filter(None, [own_check(explanation)]), f"{explanation.calls} calls", f"{explanation.seconds:.2g} s"]
    more = len(explanation.players) - len(shown)
    facts = "".join(f"<br><mark>{escape(said)}</mark>" for said in explanation.doubts)
    facts += "".join(f"<br>{escape(fact)}" for fact in told(explanation))
    rest = f"<tr><td colspan=3>{more} more</td></tr>" if more else ""
    return (
        f"<table><caption><b>{escape(explanation.method)}</b> · {escape(counted(explanation))} · "
        f"{escape(' · '.join(said))}{facts}</caption>"
        f"<thead><tr><th>player</th><th>score</th><th>± s.e.</th></tr></thead><tbody>{rows}{rest}</tbody></table>"
    )
