"""What benchmarks leave behind: small files, whole, that say what was measured on what, and nothing of where."""

import json
import socket
from pathlib import Path

import pytest
import torch
from benchmarks.record import RESULTS, environment, machine, record

ROWS = [{"method": "ours", "seconds": 0.1, "error": float("inf")}]
KEYS = {"date", "commit", "processor", "cores", "threads", "card", "system", "python", "versions"}


def test_what_was_measured_stands_beside_what_on(tmp_path):
    path = record("speed", ROWS, {"samples": 8}, tmp_path)
    assert path == tmp_path / machine(environment()) / "speed.json"
    found = json.loads(path.read_text())
    assert found["rows"] == [{"method": "ours", "seconds": 0.1, "error": None}]  # JSON has no infinity
    assert found["settings"] == {"samples": 8}
    assert found["environment"].keys() == KEYS
    assert found["environment"]["threads"] == torch.get_num_threads()
    assert found["environment"]["versions"]["torch"] == torch.__version__


def test_a_later_run_takes_the_place_of_an_earlier_one(tmp_path):
    first, second = record("speed", ROWS, {}, tmp_path), record("speed", [], {}, tmp_path)
    assert first == second
    assert json.loads(first.read_text())["rows"] == []
    assert [path.name for path in first.parent.iterdir()] == ["speed.json"]


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ({"card": None, "processor": "AMD EPYC 9B14", "cores": 2}, "amd-epyc-9b14-2-cores"),
        ({"card": "NVIDIA H200", "processor": "", "cores": 16}, "nvidia-h200"),
    ],
)
def test_a_folder_is_a_kind_of_machine(place, folder):
    assert machine(place) == folder


def test_no_file_says_where_it_was_made():
    paths = sorted(RESULTS.rglob("*.json"))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert json.loads(text).keys() == {"benchmark", "settings", "environment", "rows"}
        assert path == RESULTS / machine(json.loads(text)["environment"]) / f"{json.loads(text)['benchmark']}.json"
        assert len(text) < 50_000
        assert socket.gethostname() not in text
        assert str(Path.home()) not in text
