"""Run notebooks from top to bottom; ``python -m tests.run_notebooks`` runs all at full size and keeps the outcome."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


def executed(path: Path, timeout: int = 300) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in its own folder; the file itself stays as it is.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message is its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return notebook


def main(out: Path = Path("demo", "notebooks")) -> None:
    """Executed copies of every notebook, into a folder that git ignores."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path, timeout=1800), out / path.name)
        print(f"{path.name} → {out / path.name}")


if __name__ == "__main__":
    main()
