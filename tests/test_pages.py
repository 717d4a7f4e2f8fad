"""The pages behind the README: their examples run, the site builds without a warning, and no page is left out."""

import inspect
import json
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from page_examples import examples, shown
from tiny_pipelines import stable_diffusion
from typer.testing import CliRunner

import explain
from explain.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "notebooks" / "pages").glob("*.md"))}
EXAMPLES = {name: examples(page) for name, page in PAGES.items() if examples(page)}
(PROMPT,), (LABELS,), (CAPTURE,), (INFLUENCE,), (READING,), (QUESTION,), (THEIRS,), (SETUP,) = (
    EXAMPLES.pop(name)
    for name in (
        *("pipelines", "labels", "attention", "influence", "analysis", "question", "coming_from"),
        "command_line",
    )
)
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGES["command_line"], re.DOTALL) for line in block.splitlines()
]


PUBLIC = [thing for name in explain.__all__ if isinstance(thing := getattr(explain, name), type)]
METHODS = [kind for kind in PUBLIC if issubclass(kind, explain.Explainer)]
METHODS = [kind for kind in METHODS if kind is not explain.Explainer and "Fitted" not in kind.__name__]
METHODS.append(explain.GlobalSurrogate)  # of many answers, so that it is no explainer


def test_no_example_is_left_out():
    assert not EXAMPLES


def test_ten_lines_of_stable_diffusion_run(tmp_path, monkeypatch, capsys):
    """On a tiny random pipeline in the place of the one that is downloaded, and fewer steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", lambda *args, **named: stable_diffusion())
    exec(compile(PROMPT.replace("steps=30", "steps=3"), "pipelines.md", "exec"), {})
    assert "steps=30" in PROMPT
    told = capsys.readouterr().out
    assert "Shapley: 7 words" in told
    assert "Attention: 7 words" in told
    made = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    assert made == {"words.png": b"\x89PNG", "maps.png": b"\x89PNG", "run.gif": b"GIF8"}


def test_labels_on_a_graph_are_asked_about_together(capsys):
    told = shown(LABELS, capsys)
    assert "Shapley: 4 known_labels" in told
    assert "Together(node=" in told


def test_the_example_of_attention_shows_what_it_says(capsys):
    first, *rest = shown(CAPTURE, capsys).strip().splitlines()
    assert CAPTURE.count(f"# {first}") == 1
    assert rest == [
        f"mid_block.attentions.0.transformer_blocks.0.attn{i} 500.0 [2, 1, 96, {keys}]"
        for i, keys in ((1, 96), (2, 77))
    ]


def test_the_influence_example_runs(capsys):
    found = shown(INFLUENCE, capsys)
    for told in (
        "Influence: 1000 training examples",
        "GroupInfluence: without 50 examples",
        "Comparison of 2 explanations",
    ):
        assert told in found


def test_the_readings_that_are_no_credit_run(capsys):
    first, second = shown(READING, capsys).strip().splitlines()
    assert first.startswith("convs.0 (attention): N S - 1 up to ")
    assert "accuracy " in second


def test_what_the_outputs_are_is_found_and_said(capsys):
    assumed, values = shown(QUESTION, capsys).strip().splitlines()
    assert assumed.startswith("logits, each output a yes or no of its own")
    asked, own = map(float, values.split())
    assert asked == pytest.approx(own, rel=1e-5)


def test_what_captum_found_is_compared(capsys):
    assert "Comparison of 2 explanations" in shown(THEIRS, capsys)


def test_what_stands_beside_other_libraries_is_there():
    """Each name in the last column of the tables is public, and each setting is taken."""
    rows = re.findall(r"^\|.* \| (.*) \|$", PAGES["coming_from"], re.MULTILINE)
    found = [code for row in rows for code in re.findall(r"`([^`]+)`", row)]
    public = [name for code in found for name in re.findall(r"(?<![\w.\"])(?:explain\.)?(\w+(?:\.\w+)*)\(", code)]
    public += [code for code in found if code in explain.__all__]
    assert {"Shapley", "Gradient", "Occlusion", "plot.bars", "plot.beeswarm", "capture", "wrap"} <= set(public)
    outside = {"shap.plots.waterfall", "why.to_shap", "why.plot", "target.players", "node", "int", "torch.zeros"}
    for name in set(public) - outside:
        assert operator.attrgetter(name)(explain), name
    settings = re.compile(r"([A-Z]\w+)\((?:\"(\w+)\"|…), (method|estimator|aggregate)=\"(\w+)\"")
    made = [asked for code in found for asked in settings.findall(code)]
    assert len(made) >= 4
    for name, players, setting, value in made:
        assert getattr(getattr(explain, name)(players or "features", **{setting: value}), setting) == value


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_setup.py").write_text(SETUP, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    said = {}
    for command in (*COMMANDS, "explain run my_setup.py:other -m occlusion -o third.safetensors"):
        program, *arguments = command.split()
        ran = CliRunner().invoke(app, arguments)
        assert (program, ran.exit_code) == ("explain", 0), ran.output or repr(ran.exception)
        said[arguments[0]] = ran.stdout
    sys.modules.pop("my_setup")
    assert len(COMMANDS) == 7
    assert "Comparison of 2 explanations" in said["compare"]
    assert json.loads(said["replay"])["identical"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("Lime")


def test_the_page_of_commands_knows_all_of_them():
    assert {command.split()[1] for command in COMMANDS} == {
        each.name or each.callback.__name__ for each in app.registered_commands
    }


def test_the_table_knows_every_explainer():
    named = " ".join(re.findall(r"^\| (`[^|]*`) \|", PAGES["explainers"], re.MULTILINE))
    assert [kind.__name__ for kind in METHODS if f"`{kind.__name__}`" not in named] == []


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_every_method_says_what_it_is_not_for(kind):
    assert re.search(r"^Not for: \w", inspect.getdoc(kind), re.MULTILINE)


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "-q", "-d", tmp_path / "site"]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    for kind in METHODS:
        page = (tmp_path / "site" / "methods" / kind.__name__ / "index.html").read_text(encoding="utf-8")
        assert "Not for:" in page
    assert "NaN" in (tmp_path / "site" / "errors" / "NonFinite" / "index.html").read_text(encoding="utf-8")
    first = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<(?:script|link rel="stylesheet"|img)[^>]+(?:src|href)="https?://', first) == []
