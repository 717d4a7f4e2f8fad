"""What a panel is: a function of a few lines that asks one question, and what it found."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import explain
from explain.guard import random_states_kept
from explain.summary import own_check


@dataclass(frozen=True, eq=False)
class Finding:
    """An answer as it is shown.

    Args:
        question: one plain sentence: the model, and what is asked of it.
        number: which one is explained, with its unit.
        picture: what was drawn.
        strongest: players and what they were given, the strongest first.
        proof: by name, what holds the answer to something else than itself.
    """

    question: str
    number: str
    picture: Axes | Figure
    strongest: tuple[tuple[str, str], ...]
    proof: Mapping[str, str]

    @classmethod
    def of(
        cls, why: explain.Explanation, question: str, number: str, picture: Axes | Figure | None = None, **proof: str
    ) -> Finding:
        """An explanation's three strongest players, its own check, and more proof; drawn by its own picture if by none.

        Args:
            why: the answer.
            question: as above.
            number: its name and unit; the value, and that with no player, are added.
            picture: as above.
            proof: as above.
        """
        without = "" if why.base is None else f", with every player absent {why.base:.4g}"
        own = {why.method: own_check(why)} if own_check(why) else {}
        return cls(
            question,
            f"{number}: " + f"{why.value:.4g}{without}".replace("-", "−"),
            why.plot() if picture is None else picture,
            tuple((name, f"{score:+.3g}".replace("-", "−")) for name, score in why.top(3) if score),
            own | {name.replace("_", " "): said for name, said in proof.items()},
        )

    def figure(self) -> Figure:
        """What the picture was drawn into."""
        figure = self.picture.get_figure(root=True) if isinstance(self.picture, Axes) else self.picture
        assert isinstance(figure, Figure)
        return figure

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(score)}</td></tr>" for name, score in self.strongest)
        proof = "<br>".join(f"{escape(name)}: {escape(said)}" for name, said in self.proof.items())
        return f"<p><b>{escape(self.question)}</b><br>{escape(self.number)}</p><table>{rows}</table><p>{proof}</p>"


@dataclass(frozen=True)
class Panel:
    """A system of the gallery; called, it is asked.

    Args:
        name: as in its paper.
        paper: who and when.
        conclude: what the picture lets one conclude.
        beware: what it does not.
        make: asks and answers.
    """

    name: str
    paper: str
    conclude: str
    beware: str
    make: Callable[[], Finding]

    def __call__(self) -> Finding:
        """What it found; trained models come from the cache where they were trained before. Random states are kept."""
        with random_states_kept():
            return self.make()

    @property
    def code(self) -> str:
        """The lines that made it, as they stand in their file."""
        source = textwrap.dedent(inspect.getsource(self.make))
        return source[source.index("def ") :].rstrip()


def panel(name: str, paper: str, *, conclude: str, beware: str) -> Callable[[Callable[[], Finding]], Panel]:
    """Makes a panel of a function."""
    return lambda make: Panel(name, paper, conclude, beware, make)
