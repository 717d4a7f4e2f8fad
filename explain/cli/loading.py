"""``my_setup.py:target``: what a name in a file of the user's own stands for."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from explain.spelling import there_is


class NoSetup(ValueError):
    """No such file, or nothing of that name in it; the message says how it is written."""


class SetupFailed(RuntimeError):
    """The user's own file raised; what it raised is the cause."""


def named(where: str) -> Any:
    """What ``FILE.py:NAME`` names; a function is called, without arguments.

    The file is run: it is the user's own code, and may do whatever they may.

    Raises:
        NoSetup: another form, no such file, or no such name.
        SetupFailed: the file or the function raised.
    """
    file, colon, name = where.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        raise NoSetup(f"write a file and a name in it, such as my_setup.py:target, got {where!r}")
    if not path.is_file():
        raise NoSetup(f"there is no file {file}")
    try:
        held = vars(_module(path))
    except Exception as error:
        raise SetupFailed(f"{file} failed: {type(error).__name__}: {error}") from error
    if name not in held:
        own = sorted(known for known in held if not known.startswith("_"))
        raise NoSetup(f"{file} has no {name!r}{there_is(name, own)}")
    if not inspect.isfunction(held[name]):
        return held[name]
    try:
        return held[name]()
    except Exception as error:
        raise SetupFailed(f"{name}() of {file} failed: {type(error).__name__}: {error}") from error


def _module(path: Path) -> Any:
    """The file as a module of its own name; it finds what stands beside it, as a script does."""
    path = path.resolve()
    taken = path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) != str(path)
    name = f"setup_{path.stem}" if taken else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
