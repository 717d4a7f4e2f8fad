"""What a function's code reads beside its arguments, and which code is an installed package's."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}


def globals_of(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values of the globals that a function reads, those of its inner functions too.

    Of a caller's own module, ``helpers.scale``, it is the attribute that counts.

    >>> factor = 3
    >>> [name for name, value in globals_of(lambda x: factor * x)]
    ['factor']
    """
    for code in _codes(function.__code__):
        found: Any = None
        name = ""
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in function.__globals__:
                name, found = step.argval, function.__globals__[step.argval]
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD") and _is_own(found) and hasattr(found, step.argval):
                name, found = f"{name}.{step.argval}", getattr(found, step.argval)
            else:
                continue
            if not _is_own(found):
                yield name, found
                found = None


def is_library(module: str | None) -> bool:
    """Whether a module is Python's, `explain`'s or of an installed package, and so known by its version."""
    top = (module or "builtins").partition(".")[0]
    if top in sys.stdlib_module_names or top == "explain":
        return True
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is not None and bool(_INSTALLED & set(Path(file).parts))


def version_of(module: str | None) -> str:
    """The version of the package that a module belongs to, where it says one."""
    return str(getattr(sys.modules.get((module or "").partition(".")[0]), "__version__", ""))


def _is_own(thing: Any) -> bool:
    return isinstance(thing, types.ModuleType) and not is_library(thing.__name__)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
