"""Influence over training sets that no memory holds: the same scores, bounded memory, nothing lost, nothing stale."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic
from shard_cases import SIZE, Generated, asked, bounded, in_threads, influence, projected
from torch.utils.data import DataLoader

import explain
from explain import examples
from explain.examples import Rows
from explain.influence import Influence, Lissa, Shards
from explain.influence.shards import Part, Scored, training_set
from explain.influence.together import objectives_of
from explain.parallel import Stale

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings(
    "ignore:the inverse is loose",  # three steps are all that these tests need
    "ignore:the model is not at a minimum",
)


@pytest.fixture
def small(monkeypatch):
    bounded(monkeypatch.setattr)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What the process of `shard_cases` printed, and the folder that it left when it was killed."""
    folder = tmp_path_factory.mktemp("killed")
    path = f"{TESTS}{os.pathsep}{TESTS.parent}"
    # what is freed goes back to the system: else the allocator's holes are measured, 16 MiB in one run of four
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, str(TESTS / "shard_cases.py"), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return json.loads(ended.stdout), folder / "killed"


def test_memory_does_not_grow_with_the_training_set(killed):
    """Five times the examples, 25 MiB more; the same collated whole shows that the measure would see them."""
    (few, many, whole), _ = killed
    assert many - few < 20
    assert whole - many > 40


def test_after_kill_9_only_the_missing_shards_are_computed(killed, tmp_path, small, monkeypatch):
    _, folder = killed
    assert len([path for path in folder.glob("*.safetensors") if "solution" not in path.name]) == 3
    monkeypatch.setattr(Influence, "_solved", lambda *_: pytest.fail("the solution is on disk"))
    made, real = [], Scored.__call__
    monkeypatch.setattr(Scored, "__call__", lambda task, start: made.append(start) or real(task, start))
    found = influence(Generated(100), folder).explain(asked())
    assert made == list(range(3 * SIZE, 100, SIZE))
    assert torch.equal(influence(Generated(100), folder).explain(asked()).scores, found.scores)
    assert len(made) == 4
    monkeypatch.undo()
    bounded(monkeypatch.setattr)
    uninterrupted = influence(Generated(100), tmp_path).explain(asked())
    torch.testing.assert_close(found.scores, uninterrupted.scores, rtol=1e-6, atol=0)
    assert found.checks["residual"] == pytest.approx(uninterrupted.checks["residual"], rel=1e-6)


def test_after_kill_9_only_the_missing_features_are_made(killed, tmp_path, small):
    folder = killed[1].parent / "projected"
    assert len(list(folder.glob("features-0-*.safetensors"))) == 3
    data, again = Generated(100), Generated(100)
    found = projected(data, folder).explain(asked())
    assert torch.equal(projected(again, folder).explain(asked()).scores, found.scores)
    assert again.reads < data.reads
    uninterrupted = projected(Generated(100), tmp_path).explain(asked())
    torch.testing.assert_close(found.scores, uninterrupted.scores, rtol=1e-5, atol=0)


def test_many_numbers_share_one_solution_and_one_reading(tmp_path, small, monkeypatch):
    """More of them than are gone through without gradients of single examples."""
    monkeypatch.setattr(examples, "HELD", 0)
    data, first = Generated(40, features=600), asked(600)
    targets = [first.model.example(first.x * scale, label=scale % 2) for scale in range(1, 7)]
    objectives = objectives_of(targets, data)
    read, data.reads = data.reads, 0
    objectives_of(targets[:1], data)
    assert read == data.reads
    assert all(one.inputs.examples is objectives[0].inputs.examples for one in objectives)
    expected = influence((torch.stack([data[i][0] for i in range(40)]), torch.arange(40) % 2)).explain_all(targets)
    for _ in range(2):
        for found, whole in zip(influence(data, tmp_path).explain_all(targets), expected, strict=True):
            torch.testing.assert_close(found.scores, whole.scores, rtol=1e-4, atol=1e-9)
            assert found.checks["score_bound"] == pytest.approx(whole.checks["score_bound"], rel=1e-3)
    assert len(list(tmp_path.glob("solution-*.safetensors"))) == 1
    with pytest.raises(Stale, match="the number's value"):
        influence(data, tmp_path).explain_all(targets[:5])


def test_a_set_that_was_read_is_not_given_to_another_model(monkeypatch):
    x, y = torch.eye(2), torch.tensor([0, 1])
    net = asked(2).module
    models = [explain.wrap(net, task="classification", train=(x[:n], y[:n])) for n in (2, 1)]
    objectives = objectives_of([model.example(x[0]) for model in models])
    assert [one.size for one in objectives] == [2, 1]


@pytest.mark.parametrize("form", ["dataset", "loader", "shuffled loader"])
def test_reading_by_position_is_reading_whole(small, monkeypatch, form):
    data = Generated(40, features=600)
    train = {"dataset": data, "loader": DataLoader(data, 7), "shuffled loader": DataLoader(data, 7, shuffle=True)}[form]
    target = asked(600)
    monkeypatch.setattr(examples, "HELD", 0)
    streamed = influence(train).explain(target)
    assert isinstance(target.objective(train).inputs, Rows)
    monkeypatch.undo()
    whole = influence(train).explain(target)
    torch.testing.assert_close(streamed.scores, whole.scores, rtol=1e-5, atol=1e-10)
    assert streamed.players.names == whole.players.names


@pytest.mark.parametrize(
    "settings", [{"solver": "exact"}, {"solver": "cg"}, {"solver": Lissa(batch_size=16, repeats=2)}]
)
def test_shards_hold_the_scores_of_the_whole(tmp_path, settings):
    objective = logistic()
    target = ObjectiveTarget(objective)
    expected = Influence(seed=0, **settings).explain(target)
    for _ in range(2):
        found = Influence(seed=0, shards=Shards(tmp_path, size=64), **settings).explain(target)
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-9, atol=1e-15)
        assert found.checks == {**expected.checks, "score_bound": pytest.approx(expected.checks["score_bound"])}
        assert found.calls == expected.calls
        if expected.error is not None:
            torch.testing.assert_close(found.error, expected.error, rtol=1e-9, atol=1e-15)
    assert found.settings["shards"]["Shards"]["size"] == 64


def test_scores_on_a_cluster_are_those_made_here(tmp_path, small):
    data, target = Generated(40, features=600), asked(600)
    expected = influence(data).explain(target)
    with in_threads(workers=2) as client:
        found = influence(data, tmp_path, client).explain(target)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5 * float(expected.scores.abs().max()))
    assert "client" not in str(found.settings)


def test_anything_else_that_is_asked_of_the_folder_is_refused(tmp_path, small):
    data, target = Generated(40, features=600), asked(600)
    influence(data, tmp_path).explain(target)
    other_model = asked(600)
    with torch.no_grad():
        other_model.module.bias[0] += 1e-6
    other_number = explain.wrap(target.module, task="classification", weight_decay=0.1).example(
        torch.ones(600), label=0
    )
    for train, question, settings, message in (
        (Generated(41, features=600), target, {}, "differs: training set"),
        (Generated(40, features=600, shift=17), target, {}, "differs: training set"),
        (data, other_model, {}, "differs: model"),
        (data, other_number, {}, "differs: the number"),
    ):
        with pytest.raises(Stale, match=message):
            influence(train, tmp_path, **settings).explain(question)
    with pytest.raises(Stale, match=r"settings: damping \(5.0 there, 'auto' here\)"):
        Influence(train=data, curvature="ggn", shards=Shards(tmp_path, SIZE), seed=0).explain(target)
    with pytest.raises(Stale, match="settings: size"):
        Influence(train=data, curvature="ggn", shards=Shards(tmp_path, 5), seed=0).explain(target)
    influence(data, tmp_path).explain(target)


def test_the_same_set_in_another_form_is_the_same_set(small, monkeypatch):
    data, target = Generated(40, features=600), asked(600)
    streamed = training_set(target.objective(data))
    x, y = zip(*[data[i] for i in range(40)], strict=True)
    monkeypatch.undo()
    assert training_set(target.objective(data)) == training_set(target.objective((torch.stack(x), torch.tensor(y))))
    assert streamed == training_set(target.objective(DataLoader(data, batch_size=3)))


def test_an_objective_that_cannot_say_what_it_holds_is_known_by_its_losses():
    class Bare:
        def __init__(self, objective):
            self.params, self.size, self.batches = objective.params, objective.size, objective.batches
            self.outputs, self.loss = objective.outputs, objective.loss

    assert training_set(Bare(logistic())) == training_set(Bare(logistic()))
    assert training_set(Bare(logistic())) != training_set(Bare(half_trained()))
    assert training_set(Bare(logistic())) != training_set(Bare(logistic().edited(3)))
    assert training_set(logistic()) != training_set(logistic().edited(3))


def test_a_part_is_an_objective_over_some_positions():
    whole = logistic()
    part = Part(whole, 5, 12)
    assert torch.cat(list(part.batches(3))).tolist() == list(range(5, 12))
    shuffled = torch.cat(list(part.batches(3, torch.Generator().manual_seed(0)))).tolist()
    assert sorted(shuffled) == list(range(5, 12)) != shuffled
    batch = torch.tensor([6, 11])
    assert torch.equal(part.train_loss(part.params, batch), whole.train_loss(whole.params, batch))
    assert (part.size, part.weight_decay, part.convex, part.local) == (7, whole.weight_decay, True, True)
    assert part.measurement(part.params) == whole.measurement(whole.params)
    assert torch.equal(part.loss(part.outputs(part.params, batch), batch), whole.train_loss(whole.params, batch))
    assert part.edited(1).size == len(part.players) == whole.size


def test_other_questions_of_a_set_that_is_read_by_position(small, monkeypatch):
    """Perturbed inputs replace rows of it; what they are told is what tensors are told."""
    data, target = Generated(40, features=600), asked(600)
    streamed = target.objective(data).replaced(torch.tensor([3]), torch.zeros(1, 600))
    monkeypatch.undo()
    whole = target.objective(data).replaced(torch.tensor([3]), torch.zeros(1, 600))
    batch = torch.tensor([2, 3, 4])
    torch.testing.assert_close(
        streamed.train_loss(streamed.params, batch), whole.train_loss(whole.params, batch), rtol=1e-6, atol=0
    )


def test_settings_of_shards_are_checked(tmp_path):
    with pytest.raises(ValueError, match="size must be an int of at least 1, got 0"):
        Shards(tmp_path, size=0)
    with pytest.raises(TypeError, match="folder must be a path, got int"):
        Shards(3)
    with pytest.raises(TypeError, match=r"shards must be Shards\(folder\) or None, got str"):
        Influence(shards="folder")
    with pytest.raises(ValueError, match="shards are of training examples"):
        Influence(remove="edges", shards=Shards(tmp_path))


def test_a_doubt_is_said_again_when_the_solution_comes_from_disk(tmp_path):
    target = ObjectiveTarget(half_trained())
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            Influence(shards=Shards(tmp_path), seed=0).explain(target)
        assert any("not at a minimum" in str(warning.message) for warning in said)
