"""Pages of the site that are made of what is there: the README and its like, a page a method, a page an error.

A hook of mkdocs (`make docs`); nothing is written into the checkout.
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import explain

ROOT = Path(__file__).parents[1]
COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "models/MATRIX.md": "matrix.md",
    "models/RESULTS.md": "results.md",
}


def methods() -> list[type]:
    """The explainers, by name, and the surrogate over many of their answers."""
    found = [getattr(explain, name) for name in explain.__all__]
    kinds = [thing for thing in found if isinstance(thing, type) and issubclass(thing, explain.Explainer)]
    fitted = {explain.Explainer, explain.FittedMask, explain.FittedSurrogate}
    return sorted({*kinds, explain.GlobalSurrogate} - fitted, key=lambda kind: kind.__name__)


def errors() -> list[type]:
    """The exceptions of the package that can reach its users, by name."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(explain.__path__, "explain.")]
    found = {
        thing
        for module in modules
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == module.__name__
        if not name.startswith("_") and thing.__bases__ != (Exception,)  # those are caught inside
    }
    return sorted(found, key=lambda kind: kind.__name__)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The lists of methods and errors take their places in the navigation."""
    lists = {
        "METHODS": [f"methods/{kind.__name__}.md" for kind in methods()],
        "ERRORS": [f"errors/{kind.__name__}.md" for kind in errors()],
    }
    config.nav = _filled(config.nav, lists)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages themselves."""
    for source, uri in COPIES.items():
        files.append(File.generated(config, uri, content=_at_home(ROOT / source)))
    for folder, kinds in (("methods", methods()), ("errors", errors())):
        for kind in kinds:
            page = f"# {kind.__name__}\n\n::: {kind.__module__}.{kind.__qualname__}\n"
            files.append(File.generated(config, f"{folder}/{kind.__name__}.md", content=page))
    return files


def _filled(nav: object, lists: dict[str, list[str]]) -> object:
    if isinstance(nav, list):
        return [_filled(entry, lists) for entry in nav]
    if isinstance(nav, dict):
        return {title: _filled(entry, lists) for title, entry in nav.items()}
    return lists.get(nav, nav) if isinstance(nav, str) else nav


def _at_home(path: Path) -> str:
    """The text, its links those of the site."""

    def link(found: re.Match[str]) -> str:
        target = (path.parent / found[1]).resolve().relative_to(ROOT).as_posix()
        return f"]({COPIES.get(target, target.removeprefix('notebooks/'))})"

    return re.sub(r"\]\(([^)#:]+)\)", link, path.read_text(encoding="utf-8"))
