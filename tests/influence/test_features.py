"""Projected gradients kept shard by shard: the scores of the whole, any number from one folder, nothing stale."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from influence_cases import ObjectiveTarget, digits, half_trained, logistic
from shard_cases import Generated, asked, bounded, in_threads
from torch import nn

from explain import Trak, progress
from explain.influence import Shards
from explain.influence.features import Projected, gram
from explain.parallel import Stale

SIZE = 64
MODULE = nn.Identity()


def target(objective=None):
    return ObjectiveTarget(logistic() if objective is None else objective, MODULE)


def other_numbers(count=3):
    _, _, others, _ = digits()
    objective = logistic()
    return [target(replace(objective, number=lambda p, x=others[k]: x @ p["w"][2] + p["b"][2])) for k in range(count)]


def trak(folder=None, **settings):
    shards = None if folder is None else Shards(folder, SIZE)
    return Trak(**{"dimensions": 20, "seed": 0, "shards": shards, **settings})


def states():
    return [{name: p * scale for name, p in logistic().params.items()} for scale in (0.5, 1.0)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dimensions": None, "damping": 0.1},
        {"features": "margin"},
        {"features": "norm", "checkpoints": states()},
        {"features": lambda outputs: outputs[:, 0]},
    ],
    ids=["projected", "whole", "margin", "norm at two checkpoints", "own"],
)
def test_shards_hold_the_scores_of_the_whole(tmp_path, settings):
    expected = trak(**settings).explain(target())
    for _ in range(2):
        found = trak(tmp_path, **settings).explain(target())
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-8, atol=1e-14)
        assert found.checks["dimensions"] == expected.checks["dimensions"]
        for name in ("damping", "distortion"):
            assert found.checks[name] == pytest.approx(expected.checks[name])
    shards = list(tmp_path.glob("features-*.safetensors"))
    assert len(shards) == len(settings.get("checkpoints", [0])) * 4  # 200 examples


def test_other_numbers_and_dampings_need_no_gradient_of_a_training_example(tmp_path, monkeypatch):
    numbers = other_numbers()
    trak(tmp_path).explain(target())
    monkeypatch.setattr(Projected, "__call__", lambda *_: pytest.fail("the features are on disk"))
    for found, one in zip(trak(tmp_path, damping=0.3).explain_all(numbers), numbers, strict=True):
        torch.testing.assert_close(found.scores, trak(damping=0.3).explain(one).scores, rtol=1e-8, atol=1e-14)


def test_an_interrupt_leaves_the_finished_shards(tmp_path, monkeypatch):
    made, real = [], Projected.__call__

    def interrupted(task, start):
        if start == 2 * SIZE and len(made) == 2:
            raise KeyboardInterrupt
        made.append(start)
        return real(task, start)

    monkeypatch.setattr(Projected, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trak(tmp_path).explain(target())
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    made.append("again")
    found = trak(tmp_path, progress=True).explain(target())
    assert made == [0, SIZE, "again", 2 * SIZE, 3 * SIZE]
    torch.testing.assert_close(found.scores, trak().explain(target()).scores, rtol=1e-8, atol=1e-14)


def test_the_time_left_is_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "Bar", partial(progress.Bar, mininterval=0))
    trak(tmp_path, progress=True).explain(target())
    said = capsys.readouterr().err
    assert re.search(r"shards of features: .*2/4 \[\d\d:\d\d<\d\d:\d\d", said)


def own(outputs):
    return outputs[:, 0]


def also_own(outputs):
    return outputs[:, 1]


also_own.__qualname__ = "own"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": half_trained()}, "model, training set"),
        ({"objective": logistic().at(states()[0])}, "model"),
        ({"objective": logistic().edited(3)}, "training set"),
        ({"dimensions": 21}, r"settings: dimensions \(20 there, 21 here\)"),
        ({"seed": 1}, "settings: seed"),
        ({"features": "norm"}, "settings: features"),
        ({"features": also_own}, r"settings: features \(called 'own' in both, with another content\)"),
        ({"checkpoints": states()}, "checkpoints"),
        ({"shards": 65}, "settings: size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_that_is_asked_of_the_folder_is_refused(tmp_path, settings, message):
    asked_of = {"features": own} if settings.get("features") is also_own else {}
    trak(tmp_path, **asked_of).explain(target())
    settings = dict(settings)
    question = target(settings.pop("objective", None))
    if "shards" in settings:
        settings["shards"] = Shards(tmp_path, settings["shards"])
    with pytest.raises(Stale, match=message.split(", ")[0]):
        trak(tmp_path, **settings).explain(question)


def test_a_streamed_set_on_a_cluster_is_that_in_memory_here(tmp_path, monkeypatch):
    data, question = Generated(40, features=600), asked(600)
    expected = Trak(dimensions=30, train=data, seed=0).explain(question)
    bounded(monkeypatch.setattr)
    monkeypatch.setattr("explain.examples.HELD", 0)
    with in_threads() as client:
        found = Trak(dimensions=30, train=data, seed=0, shards=Shards(tmp_path, 16, client)).explain(question)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-8)
    assert "client" not in str(found.settings)


def test_settings_of_shards(tmp_path):
    with pytest.raises(ValueError, match="shards need a seed, such as seed=0"):
        Trak(shards=Shards(tmp_path))
    with pytest.raises(TypeError, match=r"shards must be Shards\(folder\) or None, got str"):
        Trak(shards="folder", seed=0)


def test_sums_of_products():
    x = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(gram(iter(x.split(2))), x.T @ x)
