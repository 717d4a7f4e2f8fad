"""The benchmark of influence through a training: its smallest part."""

import re

import pytest
import torch

from tests.benchmarks import training

pytestmark = pytest.mark.filterwarnings("ignore:the training is not smooth")  # so few steps, so large ones


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_row_is_what_was_measured():
    row = training.measured("adam", 6, 2)
    assert row.kept == 6
    costs = (row.training, row.recorded, row.derivative, row.one, row.many)
    assert all(cost.seconds > 0 and cost.megabytes >= 0 for cost in costs)
    cells, head = (re.split(r"\s{2,}", line) for line in (row.line(), training.HEAD))
    assert cells[:2] == ["adam", "6"]
    assert len(cells) == len(head)
    assert len(row.line()) == len(training.HEAD)


def test_it_is_printed_and_kept(monkeypatch, capsys):
    kept = []
    monkeypatch.setattr(training, "record", lambda *given: kept.append(given))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    training.main(["sgd", "momentum", "--steps", "4", "--numbers", "2"])
    name, rows, settings = kept[0]
    assert (name, settings) == ("training", {"steps": [4], "numbers": 2, "hidden": 32})
    assert [row["optimizer"] for row in rows] == ["sgd", "momentum"]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_training_measured_is_the_one_recorded():
    plain, (net, run) = (
        training.trained(training.OPTIMIZERS["momentum"], 9),
        training.recorded(training.OPTIMIZERS["momentum"], 9),
    )
    assert len(run.steps) == 9
    for p, q in zip(plain.parameters(), net.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)
