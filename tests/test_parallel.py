"""Long work in shards: the same answers here and on a cluster, nothing lost to whatever ends a run."""

import errno
import os
import signal
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_cases import in_threads
from torch import nn

import explain
from explain import Occlusion, Shapley
from explain.parallel import ClusterLost, Stale, Store, explain_many, fingerprint, run, tasks
from explain.parallel.store import load_tensors, save_tensors
from explain.parallel.tasks import stream
from explain.types import NonFinite

KEY = {"model": "m", "settings": {"damping": 0.1, "solver": "cg"}}


class Counted:
    """Squares its task and remembers which it was asked."""

    def __init__(self, fails_at=None, error=RuntimeError):
        self.asked, self.fails_at, self.error = [], fails_at, error

    def __call__(self, task):
        if task == self.fails_at:
            raise self.error(f"task {task}")
        self.asked.append(task)
        return {"square": torch.tensor([task**2], dtype=torch.float64)}


def squares(found):
    return [int(part["square"]) for part in found]


def test_a_run_is_a_map_with_and_without_a_folder(tmp_path):
    for store in (None, Store(tmp_path, KEY)):
        assert squares(run(Counted(), range(5), store=store)) == [0, 1, 4, 9, 16]
    assert run(Counted(), []) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_finished_before_an_error_or_interrupt_is_not_done_again(tmp_path, error):
    with pytest.raises(error, match="task 3"):
        run(Counted(fails_at=3, error=error), range(6), store=Store(tmp_path, KEY))
    again = Counted()
    assert squares(run(again, range(6), store=Store(tmp_path, KEY))) == [0, 1, 4, 9, 16, 25]
    assert again.asked == [3, 4, 5]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_file_that_is_cut_short_or_altered_is_computed_again(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("shards")
    store = Store(folder, KEY)
    run(Counted(), range(2), store=store)
    whole = store.path(0).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    store.path(0).write_bytes(data.draw(st.sampled_from([whole[:at], flipped])))
    assert squares(run(Counted(), range(2), store=Store(folder, KEY))) == [0, 1]


@pytest.mark.parametrize(
    ("key", "near", "message"),
    [
        ({**KEY, "model": "other"}, [1.0, -2.0], r"differs: model \('m' there, 'other' here\)"),
        (
            {**KEY, "settings": {"damping": 0.2, "solver": "cg"}},
            [1.0, -2.0],
            r"differs: settings: damping \(0.1 there, 0.2 here\)",
        ),
        ({"model": "m"}, [1.0, -2.0], "differs: settings"),
        ({**KEY, "data": 1}, [1.0, -2.0], "differs: data"),
        (KEY, [1.0, -2.1], "differs: the numbers"),
        (KEY, [1.0], "differs: the numbers"),
        (KEY, [1.0, float("nan")], "differs: the numbers"),
    ],
)
def test_another_runs_folder_is_refused_by_name(tmp_path, key, near, message):
    run(Counted(), range(2), store=Store(tmp_path, KEY, {"the numbers": [1.0, -2.0]}))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Stale, match=message):
        Store(tmp_path, key, {"the numbers": near})
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    Store(tmp_path, dict(reversed(KEY.items())), {"the numbers": [1.0, -2.0 - 1e-5]})  # rounding, another order


def test_shards_without_a_manifest_or_with_a_spoilt_one_are_refused(tmp_path):
    run(Counted(), range(2), store=Store(tmp_path, KEY))
    manifest = tmp_path / "manifest.json"
    for text in ("{", "[]", '{"format": "other"}', manifest.read_text().replace('"version": 1', '"version": 2')):
        manifest.write_text(text)
        with pytest.raises(Stale, match="manifest"):
            Store(tmp_path, KEY)
    manifest.unlink()
    with pytest.raises(Stale, match=r"no manifest\.json"):
        Store(tmp_path, KEY)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_said_and_what_was_finished_is_kept(tmp_path, number):
    left = [2]

    def save(result, path):
        if not left[0]:
            raise OSError(number, os.strerror(number))
        left[0] -= 1
        save_tensors(result, path)

    with pytest.raises(OSError, match=r"shard 2 could not be written .* The 2 finished shards are kept") as raised:
        run(Counted(), range(5), store=Store(tmp_path, KEY, save=save))
    assert raised.value.errno == number
    again = Counted()
    assert squares(run(again, range(5), store=Store(tmp_path, KEY))) == [0, 1, 4, 9, 16]
    assert again.asked == [2, 3, 4]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_really_full_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    store = Store(tmp_path, KEY)
    real = open
    monkeypatch.setattr(
        "builtins.open",
        lambda path, mode="r", *rest: real("/dev/full" if mode == "xb" else path, mode.replace("x", "w"), *rest),
    )
    with pytest.raises(OSError, match="No space left on device"):
        run(Counted(), range(2), store=store)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        Store(tmp_path / "file", KEY)


def test_what_a_killed_process_was_writing_is_cleared_later(tmp_path):
    fresh, old = tmp_path / ".a.tmp", tmp_path / ".b.tmp"
    for part in (fresh, old):
        part.write_text("half")
    os.utime(old, (0, 0))
    Store(tmp_path, KEY)
    assert fresh.exists()  # another process may be writing it right now
    assert not old.exists()


def test_tensors_come_back_as_they_were(tmp_path):
    path = tmp_path / "x.safetensors"
    whole = {"a": torch.randn(3, 2).t(), "b": torch.zeros(0), "c": torch.tensor(True), "d": torch.ones(2).bfloat16()}
    save_tensors(whole, path)
    found = load_tensors(path)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_stream_holds_one_result_at_a_time(tmp_path):
    store = Store(tmp_path, KEY)
    run(Counted(), range(2), store=store)
    seen = []
    for number, result in stream(Counted(), range(5), store=store):
        assert all(gone() is None for gone in seen)
        seen.append(weakref.ref(result["square"]))
        assert int(result["square"]) == number**2
        del result
    assert len(seen) == 5


def test_progress_counts_what_is_on_disk_already(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    run(Counted(), range(3), store=Store(tmp_path, KEY), progress=True)
    run(Counted(), range(3), store=Store(tmp_path, KEY), progress=True)
    said = capsys.readouterr().err
    assert "shards: 100%" in said
    assert "3/3" in said


def net(seed=0, width=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2)).eval()


def changed(module, change):
    change(module)
    return module


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (net(), net(1)),
        (net(), changed(net(), lambda m: m[1].running_mean.add_(1e-7))),  # a buffer
        (net(), changed(net(), lambda m: setattr(m[1], "eps", 1e-3))),  # a setting of a layer
        (net(), net(width=4)),
        (nn.ReLU(), nn.Tanh()),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2).double()),
        (torch.zeros(2), torch.tensor([0.0, -0.0])),
        (torch.eye(2), torch.eye(2).to_sparse()),
        (np.zeros(2), torch.zeros(2)),
        ([1, 2], [12]),
        ([1, [2]], [[1], 2]),
        ({"a": 1}, {"b": 1}),
        (1, 1.0),
        (1, True),
        ("1", 1),
        (Shapley("edges"), Shapley("nodes")),
        (len, max),
        (explain.Players("train", torch.arange(2)), explain.Players("train", torch.arange(1, 3))),
        (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
    ],
)
def test_a_fingerprint_sees_every_change(one, other):
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(one)


def test_a_fingerprint_is_that_of_the_content():
    assert fingerprint(net()) == fingerprint(net())
    assert fingerprint(torch.ones(2, 3).t()) == fingerprint(torch.ones(3, 2))
    loop = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)
    assert fingerprint({3, 1, 2}) == fingerprint({1, 2, 3})
    assert fingerprint(object()) == fingerprint(object())


def questions(count=3, seed=0, scale=1.0):
    module = net(seed)
    model = explain.wrap(module, task="classification")
    return [model.example(scale * torch.tensor([1.0, float(i)]), label=0) for i in range(count)]


def test_many_targets_are_those_one_by_one_and_resumed(tmp_path, monkeypatch):
    explainer = Shapley("features", seed=0)
    expected = [explainer.explain(target).scores for target in questions()]
    for folder in (None, tmp_path):
        found = explain_many(explainer, questions(), folder)
        assert all(torch.equal(why.scores, scores) for why, scores in zip(found, expected, strict=True))
    files = sorted(tmp_path.glob("*.safetensors"))
    assert torch.equal(explain.Explanation.load(files[1]).scores, expected[1])
    files[1].unlink()
    asked = []
    monkeypatch.setattr(
        Shapley, "explain", lambda self, target: asked.append(target) or explain.Explanation.load(files[0])
    )
    explain_many(explainer, questions(), tmp_path)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("explainer", "targets", "message"),
    [
        (Shapley("features", seed=1), questions(), "settings: seed"),
        (Occlusion("features"), questions(), "method"),
        (Shapley("features", seed=0), questions(seed=1), "model"),
        (Shapley("features", seed=0), questions(4), "targets"),
        (Shapley("features", seed=0), questions(scale=2.0), "differs: what they are asked of: x\\."),
    ],
)
def test_explanations_of_other_questions_are_refused(tmp_path, explainer, targets, message):
    explain_many(Shapley("features", seed=0), questions(), tmp_path)
    with pytest.raises(Stale, match=message):
        explain_many(explainer, targets, tmp_path)


def test_only_targets_are_explained():
    with pytest.raises(TypeError, match=r"targets must be such as .* got int"):
        explain_many(Shapley("features"), [1])


# on Dask; its log is silenced, as workers are expected to die

dask = pytest.importorskip("dask", reason="needs the extra 'cluster'")
distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
dask_warnings = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # distributed closes the sockets of dead workers late
    "ignore::pytest.PytestUnraisableExceptionWarning",  # ... and from their finalizers
)


@pytest.fixture(scope="module")
def client():
    with in_threads() as found:
        yield found


@pytest.fixture
def mortal():
    with in_threads() as found:
        yield found


@pytest.fixture
def forked():
    """Workers as forks of one process that has imported what they need, each import of torch taking seconds."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "explain.parallel"])
        yield


@dask_warnings
def test_a_worker_that_is_killed_loses_nothing(tmp_path, forked):
    """The fifth task kills its process the first time; something large travels along without a warning."""
    killed, large = tmp_path / "killed", torch.ones(3_000_000)

    def task(number):
        if number == 4 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": (large[:1] * number**2).double()}

    store = Store(tmp_path / "shards", KEY)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as workers,
        distributed.Client(workers) as client,
    ):
        there = run(task, range(12), store=store, client=client)
    assert killed.exists()
    assert squares(there) == squares(run(task, range(12))) == [i**2 for i in range(12)]
    assert len(store) == 12


@dask_warnings
def test_explanations_on_a_cluster_are_those_made_here(tmp_path, client):
    explainer = Shapley("features", seed=0)
    found = explain_many(explainer, questions(), tmp_path, client)
    for why, target in zip(found, questions(), strict=True):
        torch.testing.assert_close(why.scores, explainer.explain(target).scores, rtol=1e-6, atol=1e-7)


def test_what_cannot_be_sent_to_a_cluster_is_said(client):
    lock = threading.Lock()
    target = explain.wrap(net(), task="classification").example(
        torch.ones(2), payoff=lambda rows: rows[:, 0] * bool(lock)
    )
    with pytest.raises(
        TypeError, match=r"by pickle, which fails here: cannot pickle '_thread.lock'.* leave client out"
    ):
        explain_many(Shapley("features", seed=0), [target], client=client)


@dask_warnings
def test_an_error_on_a_worker_is_that_of_the_task(tmp_path, client):
    def task(number):
        if number == 3:
            raise NonFinite("the model answered NaN")
        return {"square": torch.tensor([float(number**2)])}

    with pytest.raises(NonFinite, match="answered NaN"):
        run(task, range(5), store=Store(tmp_path, KEY), client=client)
    again = Counted()
    assert squares(run(again, range(5), store=Store(tmp_path, KEY))) == [0, 1, 4, 9, 16]
    assert 0 not in again.asked


@dask_warnings
@pytest.mark.parametrize("ending", ["closed", "without workers"])
def test_a_dead_cluster_is_said_and_what_was_finished_is_kept(tmp_path, mortal, monkeypatch, ending):
    monkeypatch.setattr(tasks, "LOOK", 0.1)
    monkeypatch.setattr(tasks, "PATIENCE", 0.5)

    def save(result, path):
        save_tensors(result, path)
        if len(store) == 3:
            mortal.cluster.close() if ending == "closed" else mortal.cluster.scale(0)

    store = Store(tmp_path, KEY, save=save)
    with pytest.raises(ClusterLost, match=r"the Dask cluster .* of 40 tasks were finished and are kept"):
        run(Counted(), range(40), store=store, client=mortal)
    assert 3 <= len(store) < 40
    if ending == "closed":
        with pytest.raises(ClusterLost, match="its client is closed"):
            run(Counted(), range(40), store=store, client=mortal)
    kept, again = len(store), Counted()
    assert squares(run(again, range(40), store=Store(tmp_path, KEY))) == [i**2 for i in range(40)]
    assert len(again.asked) == 40 - kept


@dask_warnings
def test_an_interrupt_cancels_what_the_cluster_has_not_begun(tmp_path, client):
    def save(result, path):
        save_tensors(result, path)
        raise KeyboardInterrupt

    store = Store(tmp_path, KEY, save=save)
    with pytest.raises(KeyboardInterrupt):
        run(Counted(), range(40), store=store, client=client)
    assert len(store) == 1


@dask_warnings
def test_a_task_that_takes_its_workers_with_it_is_given_up(client):
    def task(number):
        raise distributed.KilledWorker("task", SimpleNamespace(address="gone"), 3)  # as a scheduler says of it

    with pytest.raises(ClusterLost, match="a task took 4 workers with it, probably for want of memory"):
        run(task, range(2), client=client)


@dask_warnings  # the cluster of this module is closed after it
def test_what_is_no_client():
    with pytest.raises(TypeError, match=r"client must be a distributed.Client or None, got str"):
        run(Counted(), range(2), client="tcp://there:8786")
