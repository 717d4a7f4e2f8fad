"""A bar is seen where work is waited for, and nowhere else."""

import dataclasses
import threading
import time

import pytest
import torch
from diffusion_cases import digits_like, unet_model

import explain
from explain.progress import Bar, in_sight

EXPLAINERS = [
    kind
    for name in explain.__all__
    if isinstance(kind := getattr(explain, name), type) and issubclass(kind, explain.Explainer)
]


@pytest.fixture
def patience(monkeypatch):
    monkeypatch.setattr("explain.progress.PATIENCE", 0.3)
    monkeypatch.setattr("explain.progress._FIRST", 0.01)


def done(each, **settings):
    for _ in in_sight(range(12), "dreams", **settings):
        time.sleep(each)


def test_long_work_says_how_much_there_is_and_how_long_it_takes(patience, capsys):
    done(0.06)
    seen = capsys.readouterr().err
    assert "dreams: " in seen
    assert "/12 [00:00<00:0" in seen


@pytest.mark.parametrize(("each", "settings"), [(0.004, {}), (0.06, {"progress": False})])
def test_short_work_and_unwanted_bars_say_nothing(patience, capsys, each, settings):
    done(each, **settings)
    assert "dreams" not in capsys.readouterr().err


def test_what_was_done_before_takes_no_time(patience, capsys):
    with in_sight(desc="dreams", total=1000, initial=990) as bar:
        for _ in range(10):
            time.sleep(0.01)
            bar.update()
    assert "dreams" not in capsys.readouterr().err


def test_without_a_total_it_is_the_time_so_far(patience, capsys):
    with in_sight(desc="dreams") as bar:
        for _ in range(10):
            time.sleep(0.05)
            bar.update()
    assert "it [00:00" in capsys.readouterr().err


def test_no_thread_is_left():
    before = threading.active_count()
    assert list(in_sight(range(3))) == [0, 1, 2]
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", EXPLAINERS, ids=lambda kind: kind.__name__)
def test_every_explainer_that_has_a_bar_has_it_by_default(kind):
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    assert defaults.get("progress", True) is True


def table():
    return explain.wrap(torch.nn.Linear(3, 1), task="regression").example(torch.ones(3))


def step():
    return unet_model().step(digits_like()[0], t=10, label=1)


@pytest.mark.parametrize(
    ("explainer", "target", "bar"),
    [
        (explain.Gradient("features", steps=7, batch_size=1), table, ("points", 7, 7)),
        (explain.Gradient("features", "smooth_grad", steps=6), table, ("points", 6, 6)),
        (explain.Gradient("features", "gradient_shap", steps=6), table, ("points", 6, 6)),
        (explain.Attention("patches"), step, ("runs", 4, 5)),
    ],
    ids=["integrated", "noise", "draws", "attention"],
)
def test_gradients_and_attention_are_seen_to_go_on(explainer, target, bar, monkeypatch, capsys):
    asked, closed, close = target(), [], Bar.close
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    monkeypatch.setattr(Bar, "close", lambda self: closed.append(self.format_dict | vars(self)) or close(self))
    why = explainer.explain(asked)
    assert f"{bar[0]}: " in capsys.readouterr().err
    assert bar in [(told["desc"].removesuffix(": "), told["n"], told["total"]) for told in closed if "desc" in told]
    quiet = dataclasses.replace(explainer, progress=False).explain(asked)
    assert capsys.readouterr().err == ""
    assert quiet.calls == why.calls
