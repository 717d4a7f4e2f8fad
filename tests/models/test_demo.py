"""The demo leaves behind what it promises: files that load, a page that needs nothing else, a table of every method."""

import re

import matplotlib.pyplot as plt
import pytest
from prompt_cases import FEW
from typer import Typer
from typer.testing import CliRunner

import explain
from explain.explanation import Explanation
from models import answers, demo, demo_digits, demo_graph, demo_prompts

NODES, EDGES = ("Shapley", "Lime"), ("Shapley", "Lime", "Gradient", "Mask")


@pytest.fixture(scope="module")
def app():
    app = Typer()
    app.command()(demo.main)
    return app


@pytest.fixture(scope="module")
def ran(app, tmp_path_factory):
    """One run of graph networks that trains, with its output and its folder."""
    cache, out = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("demo")
    command, env = ["--family", "graph", "--out", str(out)], {"EXPLAIN_CACHE": str(cache)}
    result = CliRunner().invoke(app, command, env=env, catch_exceptions=False)
    assert result.exit_code == 0
    assert len(list(cache.iterdir())) == demo_graph.STARTS + 1
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
    assert "default-src 'none'" in page
    assert re.search(r"Why does GAT say class \d of node \d+\?", page)
    for method in ("Shapley", "Lime", "Gradient", "Mask", "Attention", "Influence"):
        assert f"<h3>{method} <small>" in page
    assert page.count('<figure class="curves"') == 2 * 2  # nodes and edges of both


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
            assert checks["curvature"] == "hessian"
        if "gradient" in name:
            assert checks["completeness_gap"] < 0.01


def test_the_story_tells_friend_from_enemy_and_nothing_is_doubted(ran):
    told, out, _ = ran
    assert not [name for name in expected() if Explanation.load(out / f"{name}.safetensors").doubts]
    numbers = r"number is (.+); .*silenced (.+), .*edge deleted (.+), .*deleted (.+)\. These are different games"
    value, silenced, edge, node = map(float, re.search("GAT: " + ".*" + numbers, told).groups())
    assert silenced < value < min(edge, node)


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
    result = CliRunner().invoke(app, ["--family", "text", "--out", str(tmp_path)], env=cache)
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


# --- the denoiser ---

ASKED = {
    "step": {
        "Shapley": "patches",
        "Lime": "patches",
        "Gradient": "patches",
        "Attention": "patches",
        "Influence": "train",
    },
    "run": {"Shapley": "steps", "Lime": "steps", "Attention": "patches", "Influence": "train"},
}


@pytest.fixture
def drawn_once(monkeypatch):
    """Pictures are drawn for the page; files of them, which the graphs above are held to, are only named."""

    def named(figure, path):
        path.touch()
        plt.close(figure)

    monkeypatch.setattr(answers, "_picture", named)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.xdist_group("ddpm")  # one worker trains the model where the cache has none
def test_a_step_and_a_run_of_the_denoiser(app, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_digits, "EACH", 2)  # training images of a class; influence takes most of the time
    command = ["--family", "digits", "--out", str(tmp_path)]
    told = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    expected = {(asked, method): kind for asked, methods in ASKED.items() for method, kind in methods.items()}

    files = {f"ddpm-{asked}-{method}-{kind}".lower() for (asked, method), kind in expected.items()}
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == files
    pictures = {"overview-ddpm", "ddpm-steps", "ddpm-attention-maps", "agreement-ddpm-step-patches"}
    assert files | pictures <= {path.stem for path in tmp_path.glob("*.png")}

    rows = [re.split(r"  +", line) for line in told.splitlines() if " DDPM " in line and "  " in line]
    listed = {(row[1].removeprefix("DDPM "), row[0].split(" [")[0]): row[2] for row in rows}
    assert {key: players.split(" ", 1)[1].replace("training examples", "train") for key, players in listed.items()} == (
        expected
    )
    assert float(re.search(r"guided samples: ([\d.]+)%", told)[1]) >= 95

    for asked, method in expected:
        found = Explanation.load(next(tmp_path.glob(f"ddpm-{asked}-{method.lower()}-*.safetensors")))
        assert found.method == method
        assert found.target["question"] == {"step": "step", "run": "trajectory"}[asked]
        assert found.scores.isfinite().all()
        assert found.scores.abs().max() > 0
        if method == "Shapley":
            assert found.checks["efficiency_gap"] <= 1e-5
            assert float(found.scores.sum()) == pytest.approx(found.value - found.base, rel=1e-5)
        if method == "Gradient":
            assert found.checks["completeness_gap"] <= 1e-2
        if method == "Influence":
            assert found.checks["residual"] <= 1e-2
            assert found.players.geometry["images"].shape == (20, 1, 8, 8)

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "different questions" not in page  # each method takes the same fill for an absent patch
    for caption in ("the steps of a run", "What the run foresees at each step", "Where the step looks, layer by layer"):
        assert caption in page


# --- the prompt ---


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.xdist_group("prompt digits")  # one worker trains the pipeline where the cache has none
def test_which_word_did_it(app, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_prompts, "RECIPE", FEW)
    monkeypatch.setattr(demo_prompts, "DRAWS", 2)
    monkeypatch.setattr(demo_prompts, "STEPS", 5)
    command = ["--family", "prompts", "--out", str(tmp_path)]
    told = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert re.search(r"words obeyed in 480 guided pictures: class [\d.]+%, ink [\d.]+%", told)
    names = [f"{name}-shapley-words" for name in ("class", "centroid", "peak-ink", "brightness")]
    names += ["brightness-interactions-words", "class-shapley-steps"]
    names += [f"{name}-attention-words" for name in ("attention", "attention-daam", "attention-outputs")]
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {f"promptdigits-{name}" for name in names}
    pictures = {"overview-prompts", "prompts-words", "prompts-maps", "prompts-steps"}
    assert pictures <= {path.stem for path in tmp_path.glob("*.png")}
    for question, word in demo_prompts.CAUSES.items():
        found = Explanation.load(tmp_path / f"promptdigits-{question.replace(' ', '-')}-shapley-words.safetensors")
        assert found.checks["efficiency_gap"] <= 1e-5
        if question != "class":  # a logarithm, of which two draws are few
            assert found.players.names[int(found.scores.abs().argmax())] == word
