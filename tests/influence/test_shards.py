"""Influence over training sets that no memory holds: the same scores, bounded memory, nothing lost, nothing stale."""

import json
import os
import pickle
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from influence_cases import ObjectiveTarget, half_trained, logistic
from shard_cases import SIZE, Generated, asked, bounded, influence
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import explain
from explain import examples
from explain.examples import Examples, Rows
from explain.influence import Influence, Lissa, Shards
from explain.influence.shards import Part, training_set
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
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "shard_cases.py"), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return json.loads(ended.stdout), folder / "killed"


def test_memory_does_not_grow_with_the_training_set(killed):
    """Ten times the examples, 56 MiB more; the same collated whole shows that the measure would see them."""
    (few, many, whole), _ = killed
    assert many - few < 12
    assert whole - many > 40


def test_after_kill_9_only_the_missing_shards_are_computed(killed, tmp_path, small, monkeypatch):
    _, folder = killed
    assert len([path for path in folder.glob("*.safetensors") if "solution" not in path.name]) == 3
    monkeypatch.setattr(Influence, "_solved", lambda *_: pytest.fail("the solution is on disk"))
    data = Generated(100)
    found = influence(data, folder).explain(asked())
    resumed = data.reads
    monkeypatch.undo()
    bounded(monkeypatch.setattr)
    uninterrupted = influence(Generated(100), tmp_path).explain(asked())
    torch.testing.assert_close(found.scores, uninterrupted.scores, rtol=1e-6, atol=0)
    assert found.checks["residual"] == pytest.approx(uninterrupted.checks["residual"], rel=1e-6)
    data.reads = 0
    assert torch.equal(influence(data, folder).explain(asked()).scores, found.scores)
    assert resumed - data.reads == 100 - 3 * SIZE  # once more nothing is scored


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
    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    data, target = Generated(40, features=600), asked(600)
    expected = influence(data).explain(target)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
        ) as workers,
        distributed.Client(workers) as client,
    ):
        found = influence(data, tmp_path, client).explain(target)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-10)
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
        (data, other_number, {}, "differs: the number's value"),
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


class Endless(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return ((torch.ones(600) * i, i % 2) for i in range(self.count))


def test_a_stream_without_positions_is_kept_while_it_fits(small):
    assert len(asked(600).objective(Endless(40)).inputs) == 40
    for train in (Endless(10_000), DataLoader(Endless(10_000), batch_size=10)):
        with pytest.raises(ValueError, match=r"no positions to come back to.*give a map-style Dataset"):
            asked(600).objective(train)


class Augmented(Generated):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.randn(()), y


class Other(Generated):
    def __init__(self, item):
        super().__init__(600, features=600)
        self.item = item

    def __getitem__(self, i):
        return self.item if i == 599 else super().__getitem__(i)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (Augmented(600, 600), ValueError, "turn its random augmentation off"),
        (Other((torch.full((600,), float("nan")), 0)), ValueError, "training inputs hold NaN"),
        (Other((torch.ones(600), 7)), ValueError, "from 0 to 1, got 0 to 7"),
        (TensorDataset(torch.ones(600, 600)), TypeError, r"gives pairs \(input, label\)"),
        (TensorDataset(torch.ones(600, 600), torch.ones(600)), TypeError, "labels must be integers"),
        (TensorDataset(torch.ones(600, 7), torch.ones(600).long()), ValueError, r"train must be inputs \[n, 600\]"),
        (TensorDataset(torch.ones(600, 600).double(), torch.ones(600).long()), TypeError, "must be torch.float32"),
    ],
)
def test_a_data_set_that_does_not_fit_is_told_so(small, train, error, message):
    with pytest.raises(error, match=message):
        asked(600).objective(train)


def test_rows_read_within_transforms_and_hold_what_is_set():
    x, w = torch.randn(9, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    rows = Rows(Examples(TensorDataset(x, torch.arange(9))), 0)
    at = torch.tensor([[1, 4], [3, 3], [8, 0]])

    def gradient(source):
        return torch.func.vmap(torch.func.grad(lambda w, i: (source[i] @ w).square().sum()), (None, 0))(w, at)

    torch.testing.assert_close(gradient(rows), gradient(x))
    changed = rows.clone()
    changed[torch.tensor([4])] = torch.zeros(1, 3)
    assert torch.equal(changed[torch.tensor([3, 4])], torch.stack([x[3], torch.zeros(3).double()]))
    assert torch.equal(rows[4], x[4])
    assert torch.equal(rows[torch.arange(9) == 4], x[4:5])
    assert (rows.shape, rows.dim(), rows.is_floating_point()) == (x.shape, 2, True)
    assert torch.equal(pickle.loads(pickle.dumps(changed))[4], torch.zeros(3).double())


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
