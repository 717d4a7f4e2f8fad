"""The demo leaves behind what it promises: files that load, a page that needs nothing else, a table of every method."""

import re

import pytest
from typer import Typer
from typer.testing import CliRunner

import explain
from explain.explanation import Explanation
from models import demo

NODES, EDGES = ("Shapley", "Lime"), ("Shapley", "Lime", "Gradient", "Mask")


@pytest.fixture(scope="module")
def app():
    app = Typer()
    app.command()(demo.main)
    return app


@pytest.fixture(scope="module")
def ran(app, tmp_path_factory):
    """One run that trains, with its output and its folder."""
    cache, out = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("demo")
    result = CliRunner().invoke(app, ["--out", str(out)], env={"EXPLAIN_CACHE": str(cache)}, catch_exceptions=False)
    assert result.exit_code == 0
    assert len(list(cache.iterdir())) == 2
    return result.stdout, out, cache


def expected() -> list[str]:
    names = [f"{model}-{method}-nodes" for model in ("gat", "gcn") for method in NODES]
    names += [f"{model}-{method}-edges" for model in ("gat", "gcn") for method in EDGES]
    return [name.lower() for name in [*names, "gat-attention-edges", "gat-influence-train", "gcn-influence-train"]]


def test_every_explanation_loads_and_has_a_picture(ran):
    _, out, _ = ran
    assert sorted(path.stem for path in out.glob("*.safetensors")) == sorted(expected())
    for name in expected():
        found = Explanation.load(out / f"{name}.safetensors")
        assert found.method.lower() == name.split("-")[1]
        assert found.scores.abs().max() > 0
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {"overview.png", "agreement-gat-edges.png", "agreement-gcn-nodes.png"} <= {p.name for p in out.iterdir()}


def test_the_report_needs_nothing_else(ran):
    _, out, _ = ran
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "<script" not in page
    for method in ("Shapley", "Lime", "Gradient", "Mask", "Attention", "Influence"):
        assert f"{method} on GAT" in page


def test_the_table_lists_every_method_with_its_check(ran):
    told, _, _ = ran
    rows = [line for line in told.splitlines() if re.match(r"(Shapley|Lime|Gradient|Mask|Attention|Influence)", line)]
    assert len(rows) == len(expected())
    for method, check in {
        "Shapley": "efficiency gap",
        "Lime": "R²",
        "Gradient": "completeness gap",
        "Mask": "runs agree",
        "Attention": "uniform attention",
        "Influence": "curvature",
    }.items():
        assert [check in row for row in rows if row.startswith(method)].count(False) == 0
    assert "test accuracy: GAT" in told
    assert re.search(r"node \d+: class (\d), GAT says \1, GCN says \1", told)  # a node that both get right


def test_the_checks_hold(ran):
    _, out, _ = ran
    for name in expected():
        checks = Explanation.load(out / f"{name}.safetensors").checks
        if "shapley" in name:
            assert checks["efficiency_gap"] < 1e-6
        if "influence" in name:
            assert checks["residual"] < 1e-3
        if "gradient" in name:
            assert checks["completeness_gap"] < 0.01


def test_answers_of_a_model_are_about_the_same_players(ran):
    _, out, _ = ran
    edges = [Explanation.load(path) for path in sorted(out.glob("gat-*-edges.safetensors"))]
    assert len(edges) == 5
    assert explain.compare(*edges, absolute=True, resamples=0).players == len(edges[0].players)


def test_options_that_cannot_be(app, ran, tmp_path, monkeypatch):
    cache = {"EXPLAIN_CACHE": str(ran[2])}
    result = CliRunner().invoke(app, ["--node", "99", "--out", str(tmp_path)], env=cache)
    assert result.exit_code == 2
    assert "0 to 33" in result.output
    monkeypatch.delenv("EXPLAIN_DATA", raising=False)
    result = CliRunner().invoke(app, ["--data", "cora", "--out", str(tmp_path)], env=cache)
    assert result.exit_code == 2
    assert "EXPLAIN_DATA" in result.output
    assert not list(tmp_path.iterdir())
