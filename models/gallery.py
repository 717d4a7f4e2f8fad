"""``make gallery``: every system at work, a panel each, on one page that needs nothing else.

``python -m models.gallery --only GCN --only GAT`` makes some of them. Trained models come from the cache, and the page
is written anew after each panel, so that a run that was ended goes on quickly and leaves a whole page of what it had.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import matplotlib.pyplot as plt
import typer
from tqdm.auto import tqdm

from explain.report.page import encoded, environment
from explain.storage import write_atomically
from explain.versions import versions
from models.panels.panel import Finding, Panel
from models.threads import one_thread

FAMILIES = {
    "Networks for nodes": ("graphs", "walks"),
    "Networks of all pairs": ("all_pairs",),
    "Networks for whole graphs": ("whole_graphs",),
    "Explainers": ("explainers",),
    "Explanations at work": ("applications",),
    "Denoisers of images": ("diffusion", "relatives", "latent"),
    "Denoisers of labels, graphs and tokens": ("graph_diffusion", "tokens"),
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A panel as it stands on the page.

    Args:
        panel: which.
        finding: what it found.
        png: its picture, in base64.
        seconds: training included, where it was not in the cache.
    """

    panel: Panel
    finding: Finding
    png: str
    seconds: float


def families() -> dict[str, list[Panel]]:
    """All of them, in the order of the page."""
    return {name: [one for subject in subjects for one in _of(subject)] for name, subjects in FAMILIES.items()}


def _of(subject: str) -> list[Panel]:
    """The panels of a file, in its order."""
    module = import_module(f"models.panels.{subject}")
    return [thing for thing in vars(module).values() if isinstance(thing, Panel)]


def chosen(names: Sequence[str]) -> list[Panel]:
    """Those of these names, all when there are none.

    Raises:
        BadParameter: a name that no panel has.
    """
    known = {panel.name.lower(): panel for own in families().values() for panel in own}
    if unknown := [name for name in names if name.lower() not in known]:
        everyone = ", ".join(panel.name for panel in known.values())
        raise typer.BadParameter(f"no panel is named {', '.join(unknown)}; they are: {everyone}", param_hint="--only")
    wanted = {name.lower() for name in names}
    return [panel for name, panel in known.items() if not wanted or name in wanted]


def shown(asked: Iterable[Panel]) -> Iterator[Shown]:
    """Each panel, asked."""
    for panel in asked:
        started = time.perf_counter()
        finding = panel()
        seconds = time.perf_counter() - started
        figure = finding.figure()
        png = encoded(figure)
        plt.close(figure)
        yield Shown(panel, finding, png, seconds)


def page(found: Sequence[Shown]) -> str:
    """The page of these panels, family by family."""
    template = environment(Path(__file__).parent).get_template("gallery.html")
    by_panel = {one.panel: one for one in found}
    grouped = {name: [by_panel[one] for one in own if one in by_panel] for name, own in families().items()}
    there = {name: own for name, own in grouped.items() if own}
    return template.render(count=len(found), families=there, versions=versions())


def main(
    out: Annotated[Path, typer.Option(help="the page")] = Path("gallery", "index.html"),
    only: Annotated[list[str] | None, typer.Option(help="a panel by name; again for another; all when none")] = None,
) -> None:
    """Ask every system one question, and write it all down."""
    mpl.use("agg")
    asked = chosen(only or [])
    out.parent.mkdir(parents=True, exist_ok=True)
    found: list[Shown] = []
    with one_thread(), tqdm(asked, desc="gallery") as bar:
        for one in shown(bar):
            found.append(one)
            bar.set_postfix_str(one.panel.name, refresh=False)
            write_atomically(out, page(found).encode())
    print(f"{out}: {len(found)} panels, {sum(one.seconds for one in found):.0f} s")


if __name__ == "__main__":
    typer.run(main)
