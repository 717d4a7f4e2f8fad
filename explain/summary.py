"""An explanation in one line and in one small table, with the method's own proof in a few words."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from explain.explanation import Explanation

# the check each method is proud or ashamed of, the most telling first
PROOFS: tuple[tuple[str, str], ...] = ()


def own_check(explanation: Explanation) -> str:
    """The method's own proof in a few words, empty where it has none."""
    for key, text in PROOFS:
        found = explanation.checks.get(key)
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return f"{text} {found:.3g}"
    return ""


def top_players(explanation: Explanation, k: int = 3) -> str:
    """The ``k`` strongest players and their signed scores."""
    return ", ".join(f"{name} {score:+.3g}" for name, score in explanation.top(k))


def line(explanation: Explanation) -> str:
    """Method, players, top three and the main check."""
    players = explanation.players
    said = [f"{explanation.method or 'Explanation'}: {len(players)} {players.kind}"]
    if len(players):
        said.append(f"top {top_players(explanation)}")
    return ", ".join([*said, *filter(None, [own_check(explanation)])])


def html(explanation: Explanation, k: int = 10) -> str:
    """A small table for notebooks; every text is escaped."""
    shown = explanation.order()[:k].tolist()
    error = explanation.error
    rows = "".join(
        f"<tr><td>{escape(explanation.players.names[i])}</td><td>{explanation.scores[i]:+.4g}</td>"
        f"<td>{'' if error is None else f'±{error[i]:.2g}'}</td></tr>"
        for i in shown
    )
    said = [f"value {explanation.value:.4g}"]
    if explanation.base is not None:
        said.append(f"base {explanation.base:.4g}")
    said += [*filter(None, [own_check(explanation)]), f"{explanation.calls} calls", f"{explanation.seconds:.2g} s"]
    more = len(explanation.players) - len(shown)
    rest = f"<tr><td colspan=3>{more} more</td></tr>" if more else ""
    return (
        f"<table><caption><b>{escape(explanation.method)}</b> · {len(explanation.players)} "
        f"{escape(explanation.players.kind)} · {escape(' · '.join(said))}</caption>"
        f"<thead><tr><th>player</th><th>score</th><th>± s.e.</th></tr></thead><tbody>{rows}{rest}</tbody></table>"
    )
