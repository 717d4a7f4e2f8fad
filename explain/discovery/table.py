"""The table: what fits, which first, at what cost, and what does not, in words."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from explain.explainer import Explainer

_WIDE = 150  # letters of a refusal on one line; all of them stand in ``refused``
_HEADS = ("ask", "players", "calls", "seconds", "what for")


@dataclass(frozen=True)
class Fit:
    """An explainer that answers this question.

    ``explainer`` is ready to be asked; ``count`` players of a ``kind`` get the credit, None where nobody counted them.
    ``calls`` and ``seconds`` are what it costs at most, by one timed evaluation, None where that hangs on what is found
    on the way. ``tried``: its cheapest form was asked and answered, or for games what it plays was built and evaluated;
    else what it asks of the target is there.
    """

    explainer: Explainer
    kind: str
    count: int | None
    calls: int | None
    seconds: float | None
    why: str
    tried: bool = True

    @property
    def ask(self) -> str:
        """How it is written."""
        return written(self.explainer)

    @property
    def players(self) -> str:
        """How many of which kind."""
        kind = "training examples" if self.kind == "train" else self.kind
        return kind if self.count is None else f"{self.count} {kind}"


@dataclass(frozen=True)
class Refused:
    """What refuses this question, as it is written, and the words that it would refuse it with."""

    asks: tuple[str, ...]
    words: str

    @property
    def who(self) -> str:
        """The first of them, and how many more."""
        more = len(self.asks) - 2
        return ", ".join(self.asks[:2]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Explainers:
    """What can be asked about a target: `fits`, the first of them first, and `refused`.

    Shown with a line an explainer, for its first players, and who else may play; all of them are in ``fits``.
    ``call``: the seconds of one evaluation, on which all the others rest.
    """

    target: str
    call: float
    fits: tuple[Fit, ...]
    refused: tuple[Refused, ...]

    @property
    def first(self) -> Fit:
        """Which to ask first.

        Raises:
            LookupError: none fits.
        """
        if not self.fits:
            raise LookupError(f"no explainer answers {self.target}: print the table, it says why")
        return self.fits[0]

    def __len__(self) -> int:
        return len(self.fits)

    def __iter__(self) -> Iterator[Fit]:
        return iter(self.fits)

    def __repr__(self) -> str:
        head = [self.target, f"first: {self.first.ask}: {self.first.why}" if self.fits else "no explainer answers"]
        rows = [_HEADS, *self._rows()] if self.fits else []
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS) - 1)] if rows else []
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
        words = [f"  {each.who}: {each.words}" for each in self.refused]
        refused = ["refused:", *(textwrap.shorten(line, _WIDE, placeholder=" …") for line in words)] if words else []
        return "\n".join([*head, *(line.rstrip() for line in lines), *refused])

    def _rows(self) -> Iterator[tuple[str, ...]]:
        by_name: dict[str, list[Fit]] = {}
        for fit in self.fits:
            by_name.setdefault(type(fit.explainer).__name__, []).append(fit)
        return map(_cells, by_name.values())

    def _repr_html_(self) -> str:
        first = f"<br>first: <code>{escape(self.first.ask)}</code>, {escape(self.first.why)}" if self.fits else ""
        heads = "".join(f"<th>{name}</th>" for name in _HEADS)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in self._rows())
        words = "".join(f"<li>{escape(each.who)}: {escape(each.words)}</li>" for each in self.refused)
        refused = f"<details><summary>refused</summary><ul>{words}</ul></details>" if words else ""
        return (
            f"<table><caption>{escape(self.target)}{first}</caption><thead><tr>{heads}</tr></thead>"
            f"<tbody>{rows}</tbody></table>{refused}"
        )


def _cells(fits: list[Fit]) -> tuple[str, ...]:
    """Of one explainer, over all its players; what stands there is said of the first, and holds for how many."""
    first, counts = fits[0], [fit.calls for fit in fits if fit.calls is not None]
    few, most = (min(counts), max(counts)) if counts else (0, 0)
    calls = "?" if not counts else f"{few:,}" if few == most else f"{few:,} to {most:,}"
    seconds = max((fit.seconds for fit in fits if fit.seconds is not None), default=None)
    took = "?" if seconds is None else "< 0.1" if seconds < 0.1 else f"≤ {seconds:.2g}"
    tried = "" if all(fit.tried for fit in fits) else " (not tried: it takes too long)"
    return first.ask, ", ".join(fit.players for fit in fits), calls, took, f"{first.why}{tried}"


def written(explainer: Explainer) -> str:
    """An explainer as it is written, its players and what differs from the defaults.

    >>> from explain import Shapley, Influence
    >>> written(Shapley("edges", samples=64)), written(Influence())
    ('Shapley("edges", samples=64)', 'Influence()')
    """
    said = []
    for field in dataclasses.fields(explainer):
        value = getattr(explainer, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name == "players" and isinstance(value, str):
            said.append(f'"{value}"' if field is dataclasses.fields(explainer)[0] else f'players="{value}"')
        elif field.init and value != default:
            said.append(f"{field.name}={value!r}")
    return f"{type(explainer).__name__}({', '.join(said)})"
