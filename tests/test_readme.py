"""What the README shows runs, also beside a models.py of the reader's own, and what it points to is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny_pipelines import stable_diffusion

import explain
from explain.types import Game, Players, Target

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE, DENOISER, PROMPT, LABELS, CAPTURE, INFLUENCE, READING, QUESTION, EXTENSION = re.findall(
    r"```python\n(.*?)```", README, re.DOTALL
)


def test_the_example_runs_beside_models_of_the_readers_own(tmp_path):
    (tmp_path / "models.py").write_text("raise RuntimeError('a reader keeps models of their own here')\n")
    (tmp_path / "example.py").write_text(EXAMPLE, encoding="utf-8")
    command = [sys.executable, "-X", "utf8", "-W", "error::UserWarning:explain", "example.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "Shapley: " in ran.stdout
    assert "efficiency gap" in ran.stdout
    assert "Comparison of 2 explanations" in ran.stdout
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    assert explain.Explanation.load(tmp_path / "why.safetensors").method == "Shapley"


def shown(example, capsys):
    """What an example prints, run here: every warning is an error, and importing torch anew is most of its time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(compile(example, "README.md", "exec"), {})
    return capsys.readouterr().out


def test_the_denoiser_example_runs(capsys):
    found = shown(DENOISER, capsys)
    for told in ("Shapley: 16 patches", "Attention: 16 patches", "Shapley: 10 steps"):
        assert told in found


def test_ten_lines_of_stable_diffusion_run(tmp_path, monkeypatch, capsys):
    """On a tiny random pipeline in the place of the one that is downloaded, and fewer steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", lambda *args, **named: stable_diffusion())
    exec(compile(PROMPT.replace("steps=30", "steps=3"), "README.md", "exec"), {})
    assert "steps=30" in PROMPT
    told = capsys.readouterr().out
    assert "Shapley: 7 words" in told
    assert "Attention: 7 words" in told
    made = {path.name: path.read_bytes()[:4] for path in tmp_path.iterdir()}
    assert made == {"words.png": b"\x89PNG", "maps.png": b"\x89PNG", "run.gif": b"GIF8"}


def test_labels_on_a_graph_are_asked_about_together(capsys):
    exec(compile(LABELS, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "Shapley: 4 known_labels" in told
    assert "Together(node=" in told


def test_the_example_of_attention_shows_what_it_says(capsys):
    exec(compile(CAPTURE, "README.md", "exec"), {})
    first, *rest = capsys.readouterr().out.strip().splitlines()
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
    exec(compile(READING, "README.md", "exec"), {})
    first, second = capsys.readouterr().out.strip().splitlines()
    assert first.startswith("convs.0 (attention): N S - 1 up to ")
    assert "accuracy " in second


def test_what_the_outputs_are_is_found_and_said(capsys):
    exec(compile(QUESTION, "README.md", "exec"), {})
    assumed, values = capsys.readouterr().out.strip().splitlines()
    assert assumed.startswith("logits, each output a yes or no of its own")
    asked, own = map(float, values.split())
    assert asked == pytest.approx(own, rel=1e-5)


def test_the_new_explainer_works(tmp_path, monkeypatch):
    (tmp_path / "alone.py").write_text(EXTENSION, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    from alone import Alone

    class Sum(Target):
        module = torch.nn.Identity()

        def game(self, players):
            return Game(
                Players(players, torch.arange(3)), lambda masks: masks.double() @ torch.tensor([3.0, 1, -1]).double()
            )

        def describe(self):
            return {}

    found = Alone("nodes").explain(Sum())
    assert found.scores.tolist() == [3, 1, -1]
    assert (found.base, found.value, found.calls) == (0, 3, 5)


def test_it_opens_with_the_two_commands():
    first = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert first
    assert re.findall(r"^make (\w+)", first[1], re.MULTILINE) == ["demo", "test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert README.index("make demo") < README.index("![") < README.index("```python")


def test_every_file_it_names_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target
    figures = sorted((ROOT / "notebooks" / "figures").iterdir())
    assert [figure.name for figure in figures] == ["digits.png", "karate.png"]
    for figure in figures:
        assert figure.stat().st_size < 200_000


def test_the_tables_know_every_explainer():
    explainers = [name for name in explain.__all__ if _is_explainer(getattr(explain, name))]
    assert explainers
    named = " ".join(re.findall(r"^\| (`[^|]*`) \|", README, re.MULTILINE))
    for name in explainers:
        assert f"`{name}`" in named


def _is_explainer(thing: object) -> bool:
    base = explain.Explainer
    return (
        isinstance(thing, type)
        and issubclass(thing, base)
        and thing is not base
        and not thing.__name__.startswith("Fitted")
    )
