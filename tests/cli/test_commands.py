"""Commands on files in an empty folder: answers, exit codes, JSON, and nothing half-written."""

import json
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

import explain
from explain.cli import app

SETUP = """
import explain, torch
from torch_geometric import nn
from torch_geometric.data import Data

torch.manual_seed(0)
graph = Data(torch.eye(5), torch.tensor([[0, 1, 2, 3, 4, 1], [1, 2, 3, 4, 0, 3]]), y=torch.tensor([0, 1, 0, 1, 0]))
net = nn.GCN(5, 8, 2, 2)
model = explain.wrap(net, graph, node_names=["ann", "bo", "cy", "dee", "eve"])
target = model.node(3)


def table():
    return explain.wrap(torch.nn.Linear(3, 1), task="regression").example(torch.ones(3))


def broken():
    raise RuntimeError("no data today")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_setup.py").write_text(SETUP)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_setup", None)


def asked(command, code=0):
    ran = CliRunner().invoke(app, command.split())
    assert ran.exit_code == code, ran.output
    return ran


def test_an_answer_is_kept_compared_shown_and_given_again(folder):
    told = asked("run my_setup.py:target --method shapley --players edges -o why.safetensors").stdout
    why = explain.Explanation.load("why.safetensors")
    assert told.splitlines() == [repr(why), "written to why.safetensors"]
    assert (why.method, why.players.kind) == ("Shapley", "edges")
    assert why["bo→dee"] == why["edge 1-3"]
    asked("run my_setup.py:target -m lime -p edges --set samples=20 --seed 3 -o other.safetensors")
    other = explain.Explanation.load("other.safetensors")
    assert (other.settings["samples"], other.seed) == (20, 3)
    found = json.loads(asked("compare why.safetensors other.safetensors --json").stdout)
    own = explain.compare(why, other)
    assert found["pairs"][0]["spearman"] == pytest.approx(own.pairs[0].spearman)
    assert asked("compare why.safetensors other.safetensors").stdout.strip() == repr(own)
    asked("report why.safetensors other.safetensors -o report.html")
    assert "bo→dee" in (folder / "report.html").read_text(encoding="utf-8")
    assert "share of" not in (folder / "report.html").read_text(encoding="utf-8")
    asked("report why.safetensors other.safetensors -o report.html --curves my_setup.py:target")
    assert f"share of {len(why)} edges" in (folder / "report.html").read_text(encoding="utf-8")
    for place in ("model", "target"):
        for file in ("why.safetensors", "other.safetensors"):
            assert asked(f"replay {file} --model my_setup.py:{place}").stdout.startswith("bit-identical: ")
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".py" and path.is_file()) == [
        "other.safetensors",
        "report.html",
        "why.safetensors",
    ]


def test_without_a_method_the_first_that_fits_is_asked():
    said = json.loads(asked("run my_setup.py:table -o why.safetensors --json").stdout)
    why = explain.Explanation.load("why.safetensors")
    assert (said["method"], said["players"], said["file"]) == ("Shapley", "features", "why.safetensors")
    assert [each["score"] for each in said["credit"]] == why.scores.tolist()
    assert [each["player"] for each in said["credit"]] == list(why)


def test_methods_are_those_that_the_target_names():
    found = json.loads(asked("methods my_setup.py:table --json").stdout)
    assert found["fits"][0]["ask"] == 'Shapley("features")'
    assert any("Attention()" in each["asks"] for each in found["refused"])
    assert "first: Shapley" in asked("methods my_setup.py:table --patience 1").stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run my_setup.py:targt -o a", "did you mean 'target'"),
        ("run my_setup.py:model -o a", "a question about it is needed"),
        ("run my_setup.py -o a", "write a file and a name in it"),
        ("run elsewhere.py:target -o a", "there is no file elsewhere.py"),
        ("run my_setup.py:broken -o a", "RuntimeError: no data today"),
        ("run my_setup.py:target -m shaply -o a", "did you mean 'Shapley'"),
        ("run my_setup.py:target -m shapley -p edge -o a", "did you mean 'edges'"),
        ("run my_setup.py:target -m shapley --set sample=3 -o a", "did you mean 'samples'"),
        ("run my_setup.py:target -m shapley --set samples -o a", "written name=value"),
        ("run my_setup.py:target -m trak -p edges -o a", "leave --players out"),
        ("run my_setup.py:target -m shapley -o nowhere/a", "no such folder"),
        ("compare my_setup.py my_setup.py", "not a whole safetensors file"),
        ("report nothing.safetensors -o a.html", "No such file"),
        ("report kept.safetensors -o a.html --curves my_setup.py:table", "no answer over players"),
        ("replay my_setup.py --model my_setup.py:model", "not a whole safetensors file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_writes_nothing(folder, command, words):
    explain.Explanation(torch.ones(2), explain.Players("words", torch.arange(2)), 1.0).save("kept.safetensors")
    before = sorted(folder.iterdir())
    ran = asked(command, code=1)
    assert ran.stdout == ""
    assert words in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("error: ")
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.filterwarnings("always")
def test_a_doubt_is_told_once_by_the_answer_and_other_warnings_on_stderr(folder):
    aged = "__import__('warnings').warn('it is old')\n    return target"
    (folder / "my_setup.py").write_text(f"{SETUP}\n\ndef aged():\n    {aged}\n")
    told = asked("run my_setup.py:aged -m lime -p edges --set samples=4 -o why.safetensors")
    (doubt,) = explain.Explanation.load("why.safetensors").doubts
    assert (told.stdout.count(doubt), told.stderr) == (1, "warning: it is old\n")
    again = asked("replay why.safetensors --model my_setup.py:aged")
    assert (again.stdout + again.stderr).count(doubt) == 1
    players = explain.Players("words", torch.arange(2))
    for name, scores in (("a", [1.0, 2.0]), ("b", [1.0, 1.0])):
        explain.Explanation(torch.tensor(scores), players, 1.0, method=name).save(name)
    (note,) = json.loads(asked("compare a b --json").stdout)["notes"]
    assert asked("compare a b --json").stderr == ""
    assert asked("compare a b").stderr == f"warning: {note}\n"


def test_a_command_that_is_not_written_so_ends_with_2():
    asked("run my_setup.py:target", code=2)
    asked("shapley", code=2)


@pytest.mark.parametrize("command", ["", "run ", "methods ", "compare ", "report ", "replay "])
def test_every_help_text_has_examples(command):
    said = asked(f"{command}--help").stdout
    assert f"explain {command}" in said.partition("Options:")[2] or "Exit codes: 0 done" in said


def test_names_in_a_file_do_not_steer_a_terminal():
    players = explain.Players("words", torch.arange(2), ("\x1b[2Jgone", "b"))
    for name in ("a", "b"):
        explain.Explanation(torch.tensor([1.0, 2.0]), players, 1.0, method=f"\x1b[2J{name}").save(name)
    said = asked("compare a b").stdout
    assert "\x1b" not in said
    assert "\\x1b[2Ja" in said


def test_what_has_changed_is_named(folder):
    asked("run my_setup.py:target -m shapley -p edges -o why.safetensors")
    changes = {
        "net = nn": ("net = nn.GCN(5, 8, 2, 2); net = nn", ("scores:", "model digest:")),
        "y=torch.tensor([0, 1, 0": ("y=torch.tensor([1, 1, 0", ("data digest:",)),
    }
    for old, (new, words) in changes.items():
        (folder / "my_setup.py").write_text(SETUP.replace(old, new))
        sys.modules.pop("my_setup", None)
        numbers = words[0] == "scores:"
        said = asked("replay why.safetensors --model my_setup.py:model", code=3 * numbers).stdout
        assert said.startswith("not the same: " if numbers else "bit-identical: ")
        lines = [line.strip() for line in said.splitlines()[1:]]
        for word in words:
            assert any(line.startswith(word) for line in lines)
        assert any(line.startswith("model digest") for line in lines) == numbers


def test_another_question_is_named(folder):
    asked("run my_setup.py:target -m shapley -p nodes -o why.safetensors")
    (folder / "my_setup.py").write_text(SETUP.replace("model.node(3)", 'model.node(3, payoff="probability")'))
    sys.modules.pop("my_setup", None)
    said = asked("replay why.safetensors --model my_setup.py:target", code=3).stdout
    assert "question: payoff: 'logit' before, 'probability' now" in said
    assert asked("replay why.safetensors --model my_setup.py:model").stdout.startswith("bit-identical")


def test_ctrl_c_leaves_nothing_half_written(folder):
    """Within the first call of a model that takes its time; the file that was there before is still there."""
    slow = "class Slow(torch.nn.Module):\n    def forward(self, x):\n        open('asked', 'w').close()\n"
    slow += "        __import__('time').sleep(60)\n\n\nslow = explain.wrap(Slow(), task='regression').example"
    (folder / "slow.py").write_text(f"import explain, torch\n\n\n{slow}\ntarget = lambda: slow(torch.ones(3))\n")
    (folder / "why.safetensors").write_bytes(b"before")
    command = [sys.executable, "-m", "explain", "run", "slow.py:target", "-m", "shapley", "-o", "why.safetensors"]
    usual = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored by what jobs in the background start
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=usual
    ) as process:
        for _ in range(900):
            if (folder / "asked").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("stopped: nothing was written\n")
    assert (folder / "why.safetensors").read_bytes() == b"before"
    assert not list(folder.glob(".*"))
