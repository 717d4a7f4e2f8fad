"""What the answers to one question say together: who is named first, where they disagree, and what is different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from explain.conversion import node_players
from explain.explanation import Explanation
from explain.plot.influence import words

CLEAR = 0.2  # of a method's largest score: smaller ones take no side
NOUNS = {"nodes": "node", "edges": "edge", "steps": "step", "words": "word", "features": "feature"}
REMOVED = {
    "delete": "deleted, and the model renormalises",
    "message": "its messages become zero",
    "features": "it stays, and its features are replaced",
}


def verdict(answers: Sequence[Explanation]) -> list[str]:
    """A few sentences: who is first by how many methods, who is told apart from the next, and what divides them.

    >>> from explain.types import Players
    >>> players = Players("nodes", torch.arange(2))
    >>> first, second = (Explanation(torch.tensor(s), players, 1.0, method=m) for s, m in (([2.0, 1.0], "A"),
    ...                                                                                    ([3.0, -1.0], "B")))
    >>> verdict([first, second])[0]
    'Both methods name node 0 first, which pushes the number up.'
    """
    found: list[str] = []
    own = [one for one in answers if "interactions" not in one.parts]  # its scores are the Shapley values beside it
    several = _by_players([one for one in own or answers if one.players.kind != "train" and len(one.players)])
    for group in several:
        found += [_first(group), *_signs(group)]
    found += _nodes_against_edges(answers)
    for one in answers:
        if one.players.kind == "train" and len(one.players):
            found.append(_behind(one))
    return found or ["Nobody plays: nothing else reaches what was asked about."]


def signed(explanation: Explanation) -> bool:
    """Whether scores push up or down; shares and masks do not."""
    return "scores" not in explanation.checks


def player(explanation: Explanation, i: int) -> str:
    """A player as one speaks of it: "node 3", "edge 0–31", "step t=200", "word right".

    >>> from explain.types import Players
    >>> player(Explanation(torch.ones(1), Players("edges", torch.arange(1), names=("0–31",)), 1.0), 0)
    'edge 0–31'
    """
    kind, name = explanation.players.kind, explanation.players.names[i]
    noun = NOUNS.get(kind, "")
    return name if not noun or name.startswith(noun) else f"{noun} {name}"


def _by_players(answers: Sequence[Explanation]) -> list[list[Explanation]]:
    """Answers over the same players stand together; the largest such group first."""
    groups: dict[tuple, list[Explanation]] = {}
    for one in answers:
        index = one.players.index
        key = (one.players.kind, tuple(sorted(map(str, index.tolist()))), str(one.target.get("t")))
        groups.setdefault(key, []).append(one)
    return sorted(groups.values(), key=len, reverse=True)


def _first(group: Sequence[Explanation]) -> str:
    """Who is named first, by how many, who else is, and whether that is more than noise."""
    named = [player(one, int(one.order()[0])) for one in group]
    best, votes = Counter(named).most_common(1)[0]
    at = group[0].target.get("t")
    when = f" at t={at[0]:g}" if isinstance(at, list) and len(at) == 1 else ""
    if len(group) == 1:
        said = f"{group[0].method} names {best} first{when}"
    elif votes == len(group):
        said = f"{'Both' if votes == 2 else f'All {votes}'} methods name {best} first{when}"
    elif votes == 1:
        said = "No two methods name the same one first" + when
    else:
        said = f"{votes} of {len(group)} methods name {best} first{when}"
    others = [f"{one.method} {name}" for one, name in zip(group, named, strict=True) if name != best or votes == 1]
    said += f" ({', '.join(others)})" if others and len(group) > 1 else ""
    if votes > 1 or len(group) == 1:
        said += _direction([one for one, name in zip(group, named, strict=True) if name == best])
    close = [one.method for one in group if _close(one)]
    return said + "." + (f" {_listed(close)} cannot tell {_their(close)} first two apart." if close else "")


def _their(names: Sequence[str]) -> str:
    return "its" if len(set(names)) == 1 else "their"


def _direction(naming: Sequence[Explanation]) -> str:
    pushes = {bool(one.scores[one.order()[0]] > 0) for one in naming if signed(one)}
    if len(pushes) != 1:
        return ""
    return f", which pushes the number {'up' if pushes.pop() else 'down'}"


def _close(one: Explanation) -> bool:
    """Whether the two strongest are within two standard errors of their difference."""
    if one.error is None or len(one.players) < 2:
        return False
    first, second = one.order()[:2].tolist()
    gap = abs(float(one.scores[first])) - abs(float(one.scores[second]))
    return gap < 2 * float(one.error[[first, second]].square().sum().sqrt())


def _signs(group: Sequence[Explanation]) -> list[str]:
    """The player whose push up or down is most disputed, and whether the methods were asked the same."""
    sided = [one for one in group if signed(one) and float(one.scores.abs().max()) > 0]
    best: tuple[float, str, list[Explanation], list[Explanation]] = (0.0, "", [], [])
    shares = [_shares(one) for one in sided]
    for i, name in enumerate(sided[0].players.names if sided else ()):
        up = [one for one, of in zip(sided, shares, strict=True) if of.get(name, 0.0) >= CLEAR]
        down = [one for one, of in zip(sided, shares, strict=True) if of.get(name, 0.0) <= -CLEAR]
        if up and down:
            size = sum(abs(of.get(name, 0.0)) for of in shares)
            best = max(best, (size, player(sided[0], i), up, down), key=lambda found: found[0])
    _, name, up, down = best
    if not name:
        return []
    return [f"They disagree about {name}: up by {_names(up)}, down by {_names(down)}{_why(up, down)}."]


def _shares(one: Explanation) -> dict[str, float]:
    """Each player's score as a share of the largest, by name."""
    return dict(zip(one.players.names, (one.scores / one.scores.abs().max()).tolist(), strict=True))


def _why(up: Sequence[Explanation], down: Sequence[Explanation]) -> str:
    """What was asked differently, where that is known; the same question leaves the rules of sharing."""
    first, second = ({_removal(one) for one in side} for side in (up, down))
    if first.isdisjoint(second) and None not in first | second:
        return f", which were asked different games: absent is {_listed(first)} here, {_listed(second)} there"
    return ", by other rules of sharing the same number"


def _removal(one: Explanation) -> str | None:
    found = one.checks.get("removal", one.target.get("removal"))
    return found if isinstance(found, str) else None


def _nodes_against_edges(answers: Sequence[Explanation]) -> list[str]:
    """A node that pushes one way while its edges together push the other: two games, and both are right."""
    nodes = [one for one in answers if node_players(one) is not None and signed(one) and one.players.kind == "nodes"]
    edges = [one for one in answers if one.players.kind == "edges" and "ends" in one.players.geometry and signed(one)]
    if not nodes or not edges:
        return []
    node, edge = _alike(nodes, edges)
    name, own, together = _most_disputed(node, edge)
    if not name:
        return []
    how = [REMOVED.get(str(_removal(one)), "taken away") for one in (node, edge)]
    return [
        f"Nodes and edges disagree about {name}: as a node {own:+.3g} ({node.method}), its edges together "
        f"{together:+.3g} ({edge.method}), because they are different games: an absent node loses its features and all "
        f"of its edges at once ({how[0]}), an absent edge goes alone ({how[1]})."
    ]


def _alike(nodes: Sequence[Explanation], edges: Sequence[Explanation]) -> tuple[Explanation, Explanation]:
    """A pair by one method where there is one, with the least error of sharing out the number."""
    pairs = [(node, edge) for node in nodes for edge in edges]

    def rank(pair: tuple[Explanation, Explanation]) -> tuple[bool, float]:
        gaps = [one.checks.get("efficiency_gap") for one in pair]
        known = [abs(gap) for gap in gaps if isinstance(gap, float)]
        return pair[0].method != pair[1].method, sum(known) if len(known) == 2 else float("inf")

    return min(pairs, key=rank)


def _most_disputed(node: Explanation, edge: Explanation) -> tuple[str, float, float]:
    """The node of the largest opposite credits, clear on both sides; no name where there is none."""
    places = node_players(node)
    assert places is not None
    sums = dict.fromkeys(places.tolist(), 0.0)
    for (source, target), score in _ends(edge):
        for place in {source, target} & sums.keys():
            sums[place] += score
    own, together = node.scores, torch.tensor(list(sums.values()), dtype=torch.float64)
    sizes = [float(found.abs().max()) or 1.0 for found in (own, together)]
    product = (own / sizes[0]) * (together / sizes[1])
    clear: Tensor = (own.abs() >= CLEAR * sizes[0]) & (together.abs() >= CLEAR * sizes[1]) & (product < 0)
    if not bool(clear.any()):
        return "", 0.0, 0.0
    i = int(product.masked_fill(~clear, 1.0).argmin())
    return player(node, i), float(own[i]), float(together[i])


def _ends(edge: Explanation) -> Iterator[tuple[list[int], float]]:
    yield from zip(edge.players.geometry["ends"].t().tolist(), edge.scores.tolist(), strict=True)


def _behind(one: Explanation) -> str:
    """Which training examples push most either way."""
    up, down = words(one)
    said = []
    for name, of in ((up, one.scores), (down, -one.scores)):
        if float(of.max()) > 0:
            i = int(of.argmax())
            said.append(f"{one.players.names[i]} is the most {name} ({float(one.scores[i]):+.2g})")
    return f"Of what it was trained on, {' and '.join(said)}, by {one.method}." if said else ""


def _names(group: Sequence[Explanation]) -> str:
    return _listed([one.method for one in group])


def _listed(names: Sequence[str] | set) -> str:
    *most, last = dict.fromkeys(map(str, names))
    return f"{', '.join(most)} and {last}" if most else last
