"""The table of `models.removal.edits` in Markdown, a line a network and size of edits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.removal.edits import Kind, Line, Setting, citations, cora_components, lines

KINDS = (
    Kind("one removed", 0, 1, 100),
    Kind("one added", 1, 0, 100),
    Kind("3 added, 2 removed", 3, 2, 100),
    Kind("10 added, 10 removed", 10, 10, 100),
)
SPREAD, ASKED = (20, 100, 220), (1708, 2500)
SETTINGS = (
    Setting("GCN", 2, 0.03, citations, SPREAD),
    Setting("GCN", 3, 0.02, citations, SPREAD),
    Setting("GCN", 4, 0.01, citations, SPREAD),
    Setting("GAT", 2, 0.03, citations, SPREAD),
    Setting("GAT", 3, 0.02, citations, SPREAD),
    Setting("GAT", 4, 0.02, citations, SPREAD),
    Setting("ChebNet", 2, 0.03, citations, SPREAD),
    Setting("ChebNet", 3, 0.02, citations, SPREAD),
    Setting("ChebNet", 4, 0.01, citations, SPREAD),
    Setting("GCN", 2, 0.02, cora_components, ASKED),
    Setting("GAT", 2, 0.02, cora_components, ASKED),
    Setting("ChebNet", 2, 0.02, cora_components, ASKED),
)
COLUMNS = (
    "network",
    "edit",
    "edits",
    "first order",
    "rank",
    "out of sight",
    "truth / score",
    "response",
    "rank",
    "gradients",
)
SUMMARY = ("of all networks the least r", "first order", "out of sight", "response")

SAID = """Edits of a graph's edges, singly and in groups: what `Influence(add=, remove=)` foretells of three nodes'
logits (two on Cora), held to training again on the edited graph (`python -m models.removal`). Half of the edits are at
these nodes or next to them. Networks are at a minimum of their loss, with tanh between layers and attention's leaky
ReLU rounded off, as on a kink there is none. The truth is training on, from these parameters, to the nearest minimum
of the edited loss by another optimizer than any method has; training anew may end in another minimum, of which no
answer around these parameters knows. Blocks: 240 nodes of six classes, as sparse as CiteSeer, with words. Cora: public
split, 48 principal components of its words. First order is `Influence`'s default; response is `proximal=200`, from the
same parameters down the edited loss until it rests, with as many gradients an edit as the last column says: its r is 1
where both find the same minimum. Pearson's r over edits and nodes with the bootstrap's 95 % interval over edits, and
Spearman's. Out of sight: r over edits that reach a node through training alone. Truth / score: the slope of the truth
over the first-order score."""


def section(settings: Sequence[Setting] = SETTINGS) -> str:
    """The table; measures what is missing."""
    return table((setting, *found) for setting in settings for found in lines(setting, KINDS))


def table(found: Iterable[tuple[Setting, Kind, Line]]) -> str:
    """These lines, and below them what first order misses as edits grow."""
    every = list(found)
    sizes = [(kind, [line for _, own, line in every if own == kind]) for kind in KINDS]
    below = [_least(kind, own) for kind, own in sizes if own]
    return _rows(COLUMNS, [cells(*each) for each in every]) + "\n" + _rows(SUMMARY, below)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(setting: Setting, kind: Kind, line: Line) -> list[str]:
    """One line."""
    return [
        setting.name,
        kind.name,
        str(line.edits),
        f"{line.first:.3f} ({line.first_low:.3f} to {line.first_high:.3f})",
        f"{line.first_rank:.3f}",
        _far(line.first_far),
        f"{line.slope:.2f}",
        f"{line.response:.4f} ({line.response_low:.4f} to {line.response_high:.4f})",
        f"{line.response_rank:.3f}",
        f"{line.steps:.0f}",
    ]


def _far(value: float) -> str:
    return f"{value:.3f}" if value == value else "too few"


def _least(kind: Kind, own: Sequence[Line]) -> list[str]:
    """What an edit of this size gets at worst."""
    far = [line.first_far for line in own if line.first_far == line.first_far]
    first, response = min(line.first for line in own), min(line.response for line in own)
    return [kind.name, f"{first:.3f}", _far(min(far, default=float("nan"))), f"{response:.4f}"]
