"""The benchmark itself: its smallest part, without other libraries."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("influence_benchmark", FOLDER / "influence.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:the inverse is loose")
def test_its_smallest_part(benchmark):
    problem = benchmark.PROBLEMS["logistic"](questions=2, train=60)
    exact = benchmark.ours(problem, "exact")
    runs = [
        benchmark.measured(name, run, problem, exact)
        for name, run in benchmark.methods(problem).items()
        if name.endswith(("exact", " 0.01"))
    ]
    assert {run.method for run in runs} == {"explain exact", "explain block CG", "explain LiSSA"}
    assert all(run.error < 0.05 and run.seconds > 0 for run in runs)
    table = benchmark.table(problem, runs)
    assert "block CG" in table
    assert "hessian" in benchmark.products(problem)
    assert benchmark.measured("peer 3", _missing, problem, exact) is None


def _missing(problem):
    raise ImportError("no such library")
