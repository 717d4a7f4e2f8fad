"""What a benchmark measured and on what, as JSON beside the printed table: ``results/MACHINE/BENCHMARK.json``.

A machine is its kind (the card, else the processor and its number of cores); a later run on the same kind takes the
place of an earlier one, which git keeps.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from explain.storage import write_atomically

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "torch-geometric", "numpy", "scipy", "shap", "captum", "dattri", "pyDVL", "kronfluence")


def record(
    benchmark: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Write what was measured, one mapping a row of the table, and where; the file's path."""
    place = environment()
    path = folder / machine(place) / f"{benchmark}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"benchmark": benchmark, "settings": settings, "environment": place, "rows": rows}
    write_atomically(path, (json.dumps(_plain(found), indent=1, ensure_ascii=False) + "\n").encode())
    return path


def environment() -> dict[str, Any]:
    """What seconds hang on; no name of a machine and no path."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def machine(place: Mapping[str, Any]) -> str:
    """The kind of machine, as a folder's name.

    >>> machine({"card": None, "processor": "AMD EPYC", "cores": 2}), machine({"card": "NVIDIA H200"})
    ('amd-epyc-2-cores', 'nvidia-h200')
    """
    named = place["card"] or f"{place['processor']} {place['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-")


def _plain(value: Any) -> Any:
    """As JSON has it: a number that is none, of a method that failed, is null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _commit() -> str | None:
    """The commit, with "+" where files differ from it; None outside of git."""
    told = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(told, cwd=RESULTS.parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
