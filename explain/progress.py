"""A bar with a total and the time that is left, where work takes long enough to be waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

PATIENCE = 5.0  # seconds of work, by what it has done so far, from which on there is a bar
_FIRST = 0.5  # seconds after which that can be told


class Bar(tqdm):
    """A bar that stays unseen as long as the whole is expected to take less than `PATIENCE`."""

    monitor_interval = 0  # no thread of its own
    seen = False

    def display(self, *args: Any, **more: Any) -> None:
        """What tqdm calls to draw."""
        self.seen = self.seen or self.expected() >= PATIENCE
        if self.seen:
            super().display(*args, **more)

    def expected(self) -> float:
        """Seconds of the whole: those so far where nothing says how much there is."""
        told = self.format_dict
        done, total = told["n"] - told["initial"], told["total"]
        return told["elapsed"] * max((total - told["initial"]) / done if done and total else 1.0, 1.0)


def in_sight(
    things: Iterable[Any] | None = None,
    desc: str = "",
    progress: bool = True,
    total: int | None = None,
    initial: int = 0,
) -> Any:
    """These things one by one, or a bar to be moved by hand, ``bar.update(n)``, within ``with``.

    Args:
        things: what is gone through.
        desc: what is done, in a word.
        progress: whether there is a bar where it takes more than `PATIENCE` seconds.
        total: how many there are, where ``things`` do not say.
        initial: how many were done before.

    >>> sum(in_sight(range(4), "added"))
    6
    """
    settings = {"desc": desc, "total": total, "initial": initial, "disable": not progress}
    return Bar(things, leave=False, delay=min(_FIRST, PATIENCE), **settings)
