"""How a command ends: what went wrong in one line on stderr, and an exit code; answers as JSON values."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from explain.cli.loading import SetupFailed
from explain.explanation import Explanation

FAILED, DIFFERS, STOPPED = 1, 3, 130  # 2 is a command that is not written so


@contextmanager
def ending() -> Iterator[list[str]]:
    """Within: what this package refuses, and what a file system does, is one line and exit code 1; Ctrl-C is 130.

    Warnings are held and told at the end: one that an answer tells itself is taken out by `once`.
    """
    warned: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where, **more: warned.append(str(message))
            try:
                yield warned
            finally:
                for message in warned:
                    say(f"warning: {message}", to_errors=True)
    except KeyboardInterrupt:
        say("stopped: nothing was written", to_errors=True)
        leave(STOPPED)
    except SetupFailed as error:
        traceback.print_exception(error.__cause__)
        say(f"error: {error}", to_errors=True)
        leave(FAILED)
    except (ValueError, TypeError, LookupError, OSError) as error:
        say(f"error: {error}", to_errors=True)
        leave(FAILED)


def once(warned: list[str], told: Iterable[str]) -> None:
    """Leave to an answer what it tells itself.

    >>> warned = ["few samples", "an old torch"]
    >>> once(warned, ("few samples",))
    >>> warned
    ['an old torch']
    """
    known = set(told)
    warned[:] = [message for message in warned if message not in known]


def say(text: str, to_errors: bool = False) -> None:
    """Print, letters that steer a terminal written out: names in a file may be anything."""
    safe = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
    typer.echo(safe, err=to_errors)


def as_json(why: Explanation) -> dict[str, Any]:
    """An answer as JSON values: every player with its credit, and what is needed to judge it."""
    errors = [None] * len(why) if why.error is None else why.error.tolist()
    credit = [
        {"player": name, "score": score, "error": error}
        for name, score, error in zip(why, why.scores.tolist(), errors, strict=True)
    ]
    named = ("method", "value", "base", "seed", "calls", "seconds", "target", "settings", "checks", "versions")
    said = {name: getattr(why, name) for name in named}
    return {**said, "players": why.players.kind, "credit": credit, "doubts": list(why.doubts)}


def leave(code: int) -> NoReturn:
    """End here.

    Raises:
        typer.Exit: always.
    """
    raise typer.Exit(code)


def examples(*commands: str) -> str:
    """Below a help text, a line each."""
    return "\n".join(["\b", *commands])  # as click leaves lines alone
