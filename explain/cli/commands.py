"""The commands: each asks the library one thing and says what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import explain
from explain.cli.loading import NoSetup, named
from explain.cli.making import made, method, written_settings
from explain.cli.replaying import explained, replay
from explain.cli.saying import DIFFERS, as_json, ending, examples, leave, once, say
from explain.storage import check_place
from explain.types import Target
from explain.versions import versions

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

SETUP = "file and name of a target, my_setup.py:target: made by explain.wrap(...), or a function that makes it"
CURVES = "a target that answers are about, my_setup.py:target: asked again without and with ever more; again for more"
CODES = (
    "Exit codes: 0 done; 1 refused or failed, said on stderr; 2 a command that is not written so; 3 a replay that "
    "differs; 130 stopped by Ctrl-C, with nothing half-written."
)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Answers = Annotated[list[Path], typer.Argument(help="answers that were saved", show_default=False)]


@app.callback(invoke_without_command=True, epilog=CODES)
def front(
    version: Annotated[bool, typer.Option("--version", help="Print the versions and leave.")] = False,
) -> None:
    """Why did the model say this? Credit for one number, handed out to players.

    A setup file is Python of your own, and is run as such. Files of answers are data: nothing in them is run, and what
    is not whole is refused.
    """
    if version:
        say("\n".join(f"{name} {said}" for name, said in versions().items()))
        leave(0)


@app.command(
    epilog=examples(
        "explain run my_setup.py:target -o why.safetensors",
        "explain run my_setup.py:target -m shapley -p edges --set samples=512 -o why.safetensors",
        "explain run my_setup.py:target -m influence --set remove=edges -o why.safetensors",
    )
)
def run(
    target: Annotated[str, typer.Argument(help=SETUP, show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="the file; one that is there is replaced")],
    by: Annotated[str | None, typer.Option("--method", "-m", help="such as shapley; else the first of methods")] = None,
    players: Annotated[str | None, typer.Option("--players", "-p", help="such as edges; else the usual ones")] = None,
    seed: Annotated[int | None, typer.Option(help="of the explainer; drawn and written down when left out")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="another setting, such as samples=256")] = None,
    as_data: AsJson = False,
) -> None:
    """Explain one number, and keep the answer."""
    with ending() as warned:
        check_place(out)
        asked = _target(target)
        given = written_settings(settings or [])
        if seed is not None:
            given["seed"] = seed
        if by is None:
            first = asked.explainers(*filter(None, [players])).first
            by, players = type(first.explainer).__name__, players or first.kind
        why = explained(made(method(by), asked, players, given), asked)
        once(warned, why.doubts)
        why.save(out)
        say(json.dumps({**as_json(why), "file": str(out)}) if as_data else f"{why}\nwritten to {out}")


@app.command(
    epilog=examples(
        "explain methods my_setup.py:target",
        "explain methods my_setup.py:target -p edges --json",
    )
)
def methods(
    target: Annotated[str, typer.Argument(help=SETUP, show_default=False)],
    players: Annotated[list[str] | None, typer.Option("--players", "-p", help="only these; again for more")] = None,
    patience: Annotated[float, typer.Option(help="seconds that trials may take together")] = 10.0,
    as_data: AsJson = False,
) -> None:
    """Which explainers fit a question, over which players, at what cost, and why the others do not."""
    with ending():
        found = _target(target).explainers(*(players or []), patience=patience)
        fits = [
            {"ask": fit.ask, "players": fit.kind, "count": fit.count, "calls": fit.calls, "seconds": fit.seconds}
            | {"why": fit.why, "tried": fit.tried}
            for fit in found
        ]
        refused = [{"asks": list(each.asks), "words": each.words} for each in found.refused]
        said = {"target": found.target, "seconds_of_a_call": found.call, "fits": fits, "refused": refused}
        say(json.dumps(said) if as_data else repr(found))


@app.command(
    epilog=examples(
        "explain compare why.safetensors other.safetensors",
        "explain compare *.safetensors --absolute --json",
    )
)
def compare(
    files: Answers,
    top: Annotated[int, typer.Option(help="players of the top that are counted", min=1)] = 5,
    absolute: Annotated[bool, typer.Option(help="rank by size: fair to scores without a sign")] = False,
    as_data: AsJson = False,
) -> None:
    """How far answers over the same players agree."""
    with ending() as warned:
        found = explain.compare(*map(explain.Explanation.load, files), k=top, absolute=absolute)
        once(warned, found.notes if as_data else ())
        pairs = json.loads(found.table().to_json(orient="records"))
        said = {"players": found.kind, "count": found.players, "pairs": pairs, "notes": found.notes}
        say(json.dumps(said) if as_data else repr(found))


@app.command(
    epilog=examples(
        "explain report *.safetensors -o report.html",
        "explain report *.safetensors -o report.html --curves my_setup.py:target",
    )
)
def report(
    files: Answers,
    out: Annotated[Path, typer.Option("--out", "-o", help="the page; one that is there is replaced")],
    title: Annotated[str, typer.Option(help="at the top of the page")] = "Explanations",
    curves: Annotated[list[str] | None, typer.Option(help=CURVES)] = None,
    as_data: AsJson = False,
) -> None:
    """Write answers onto one page, which loads nothing from elsewhere."""
    with ending():
        check_place(out)
        told = [explain.Explanation.load(file) for file in files]
        page = explain.report.write(told, out, title=title, curves=[_target(where) for where in curves or []])
        said: dict[str, Any] = {"file": str(page), "answers": len(told), "bytes": page.stat().st_size}
        say(json.dumps(said) if as_data else f"{len(told)} answers on {page}")


@app.command(
    "replay",
    epilog=examples(
        "explain replay why.safetensors --model my_setup.py:model",
        "explain replay why.safetensors --model my_setup.py:target --json",
    ),
)
def again(
    file: Annotated[Path, typer.Argument(help="an answer that was saved", show_default=False)],
    model: Annotated[str, typer.Option(help="file and name of the target, or of a wrapped model")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="keep the new answer too")] = None,
    as_data: AsJson = False,
) -> None:
    """Ask the same question again, by the settings and the seed in the file: bit-identical, or what differs.

    Answers that "explain run" wrote carry digests of model and data, which tell what has changed. Exit code 3: the
    numbers differ.
    """
    with ending() as warned:
        if out is not None:
            check_place(out)
        found = replay(explain.Explanation.load(file), named(model))
        once(warned, found.again.doubts if as_data else ())
        if out is not None:
            found.again.save(out)
        verdict = "bit-identical" if found.identical else "not the same"
        lines = [f"{verdict}: {found.again!r}", *(f"  {line}" for line in found.differs)]
        said = {"identical": found.identical, "differs": list(found.differs), "again": as_json(found.again)}
        say(json.dumps(said) if as_data else "\n".join(lines))
    if not found.identical:
        leave(DIFFERS)


def _target(where: str) -> Target:
    """The target of this name.

    Raises:
        NoSetup: it is something else.
    """
    found = named(where)
    if not isinstance(found, Target):
        raise NoSetup(
            f"{where} is a {type(found).__name__}: a question about it is needed, such as target = model.node(3)"
        )
    return found
