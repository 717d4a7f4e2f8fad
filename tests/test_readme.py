"""What the README shows runs, also beside a models.py of the reader's own, and what it points to is there."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from page_examples import examples, shown
from PIL import Image
from test_pages import METHODS

import explain

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE, DENOISER = examples(README)


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


def test_the_denoiser_example_runs(capsys):
    found = shown(DENOISER, capsys)
    for told in ("Shapley: 16 patches", "Attention: 16 patches", "Shapley: 10 steps"):
        assert told in found


def test_it_opens_with_the_two_commands():
    first = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert first
    assert re.findall(r"^make (\w+)", first[1], re.MULTILINE) == ["demo", "test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert README.index("make demo") < README.index("![") < README.index("```python")


def test_its_first_reader_has_few_words_to_read():
    read = re.sub(r"```.*?```|<!-- matrix -->.*<!-- /matrix -->", "", README, flags=re.DOTALL)
    assert len(read.split()) <= 900


def test_every_file_it_names_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target
    figures = sorted((ROOT / "notebooks" / "figures").iterdir())
    assert [figure.name for figure in figures] == ["digits.png", "karate.png"]
    for figure in figures:
        assert figure.stat().st_size < 160_000
        pixels = np.asarray(Image.open(figure).convert("RGB"))
        colours = max(len(np.unique(column, axis=0)) for column in pixels.swapaxes(0, 1))
        assert colours > 160, "a colour bar is in bands, as in a palette of 256 colours"


def test_it_knows_every_explainer():
    assert METHODS
    assert [kind.__name__ for kind in METHODS if f"`{kind.__name__}`" not in README] == []
