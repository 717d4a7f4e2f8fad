"""A gradient store: rows as by hand, scores as without it, the same bytes whatever ended the work, nothing stale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusion_cases import digits_like, tiny_net
from influence_cases import ObjectiveTarget, logistic
from reference import influence as reference
from shard_cases import Generated, asked, bounded, peak
from store_cases import SIZE, content, model, opened
from torch import nn

import explain
from explain import DTrak, Influence, Trak
from explain.diffusion.model import DiffusionModel
from explain.influence import GradientStore, Shards
from explain.influence.projection import Projection
from explain.parallel import Stale
from explain.parallel.store import load_tensors
from tests.benchmarks import store as benchmark

TESTS = Path(__file__).parents[1]


def test_rows_and_their_products_are_those_by_hand(tmp_path):
    objective = logistic()
    store = GradientStore(Trak(20, seed=3, shards=Shards(tmp_path, SIZE)), ObjectiveTarget(objective))
    gradients = reference.loss_gradients(objective)
    drawn = int(torch.randint(2**48, (1,), generator=torch.Generator().manual_seed(3)))
    P = Projection(gradients.size(1), 20, drawn).down(torch.eye(gradients.size(1), dtype=torch.float64))
    shards = sorted(tmp_path.glob("features-0-*"))
    rows = torch.cat([load_tensors(path)["features"] for path in shards])
    assert [len(load_tensors(path)["features"]) for path in shards] == [64, 64, 64, 8]
    torch.testing.assert_close(rows, gradients @ P, rtol=1e-12, atol=1e-14)
    (gram,) = tmp_path.glob("gram-0-*")
    torch.testing.assert_close(load_tensors(gram)["gram"], rows.T @ rows, rtol=1e-12, atol=1e-14)
    assert repr(store) == "GradientStore: 200 training examples in 20 dimensions"
    manifest = json.loads((tmp_path / "manifest.json").read_text())["key"]
    assert (manifest["examples"], manifest["kept as"]) == (200, "torch.float64")


@pytest.mark.parametrize(
    "settings",
    [{}, {"features": "margin", "damping": 0.1}, {"dimensions": None, "damping": 0.1}, {"parameters": "2.*"}],
    ids=str,
)
def test_scores_are_those_without_a_store(tmp_path, settings):
    of = model(300)
    store = opened(of, tmp_path, **settings)
    for scale in (0.5, 2.0):
        question = of.example(torch.full((16,), scale), label=1, payoff="log_probability")
        plain = Trak(**{"dimensions": 12, "seed": 0, **settings}).explain(question)
        found = store.explain(question)
        torch.testing.assert_close(found.scores, plain.scores, rtol=0, atol=1e-5 * float(plain.scores.abs().max()))
        assert found.value == pytest.approx(plain.value)
        assert (found.method, found.target, found.calls) == (plain.method, plain.target, plain.calls)
        assert found.checks["distortion"] == pytest.approx(plain.checks["distortion"], rel=1e-4)
        assert found.settings == {**plain.settings, "shards": found.settings["shards"], "progress": False}


def test_many_numbers_checkpoints_and_images(tmp_path):
    of = model(200, dtype=torch.float64)
    questions = [of.example(torch.full((16,), 0.1 * k).double(), label=k % 3) for k in range(6)]
    states = [{name: scale * p for name, p in questions[0].module.state_dict().items()} for scale in (0.5, 1.0)]
    for settings in ({}, {"checkpoints": states}):
        store = opened(of, tmp_path / str(len(settings)), **settings)
        plain = Trak(dimensions=12, seed=0, **settings).explain_all(questions)
        for found, expected in zip(store.explain_all(questions), plain, strict=True):
            torch.testing.assert_close(found.scores, expected.scores, rtol=1e-9, atol=1e-14)
    denoiser = DiffusionModel(tiny_net().double(), time="step", betas=torch.linspace(1e-3, 0.1, 100), shape=(1, 8, 8))
    train, (x0, x1) = (digits_like(10, seed=2).double(), torch.arange(10)), digits_like(2).double()
    d_trak = DTrak(9, train=train, seed=0, shards=Shards(tmp_path / "images", 4))
    store, step = GradientStore(d_trak, denoiser.step(x0, t=20, label=0)), denoiser.step(x1, t=50, label=1)
    torch.testing.assert_close(store.explain(step).scores, DTrak(9, train=train, seed=0).explain(step).scores)
    with pytest.raises(ValueError, match="D-TRAK stands for the loss"):
        store.explain(denoiser.step(x1, t=50, label=1, payoff="norm"))


def test_a_question_reads_no_training_example(tmp_path, monkeypatch):
    bounded(monkeypatch.setattr)
    data, question = Generated(40, features=600), asked(600)
    store = GradientStore(Trak(8, train=data, seed=0, shards=Shards(tmp_path, 16)), question)
    read = data.reads
    found = store.explain(question.model.example(torch.full((600,), 0.5), label=0))
    assert data.reads == read
    assert found.scores.any()
    assert found.target["loss"] == "cross_entropy"


def test_after_three_kills_the_bytes_are_those_of_one_run(tmp_path):
    path = f"{TESTS}{os.pathsep}{TESTS.parent}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / "store_cases.py"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert not ended.returncode, ended.stderr
    counts, whole, killed = json.loads(ended.stdout)
    assert len(counts) == 3
    assert 0 < counts[0] <= counts[1] <= counts[2] < 25  # 24 shards and their products
    assert killed == whole


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed", "ignore::ResourceWarning")
def test_a_worker_makes_the_same_bytes_in_bounded_memory(tmp_path):
    distributed, dask = (
        pytest.importorskip("distributed", reason="needs the extra 'cluster'"),
        pytest.importorskip("dask"),
    )
    of = model(200)
    opened(of, tmp_path / "here")
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "explain.parallel"])
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
            ) as workers,
            distributed.Client(workers) as client,
        ):
            opened(of, tmp_path / "there", client)
            peaks = client.run(peak)
    assert content(tmp_path / "there") == content(tmp_path / "here")
    assert max(peaks.values()) < 1024


def test_its_benchmark_in_small(tmp_path):
    data = benchmark.Drawn(tmp_path / "rows", 300)
    again = benchmark.Drawn(tmp_path / "rows", 300)
    assert torch.equal(data.__getitems__([7])[0][0], again.__getitems__([3, 7])[0][1])
    assert benchmark.beside(data, tmp_path / "beside", 8)["largest gap"] < 1e-5
    found = benchmark.built(data, tmp_path / "store", 8, workers=0)
    assert 0 < found["seconds"]["question"] < found["seconds"]["build"]
    assert found["MiB on disk"] > 300 * 8 * 4 / 2**20


def test_a_folder_of_another_run_is_refused_and_left_as_it_is(tmp_path):
    of = model(200)
    opened(of, tmp_path)
    before = content(tmp_path)
    for other, settings, message in (
        (model(201), {}, "training set"),
        (of, {"seed": 1}, r"settings: seed \(0 there, 1 here\)"),
        (of, {"dimensions": 11}, r"settings: dimensions \(12 there, 11 here\)"),
        (model(200, hidden=9), {}, "differs: model"),
    ):
        with pytest.raises(Stale, match=message):
            opened(other, tmp_path, **settings)
        assert content(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_a_shard_that_was_altered_or_lost_is_made_again(tmp_path):
    of = model(200)
    opened(of, tmp_path)
    before = content(tmp_path)
    first, second = sorted(tmp_path.glob("features-0-*"))[:2]
    data = bytearray(first.read_bytes())
    data[-3] ^= 1
    first.write_bytes(data)
    second.unlink()
    (gram,) = tmp_path.glob("gram-0-*")
    gram.write_bytes(b"")
    opened(of, tmp_path)
    assert content(tmp_path) == before


def test_a_store_answers_for_the_model_that_it_was_opened_with(tmp_path):
    of = model(100)
    store = opened(of, tmp_path)
    with pytest.raises(ValueError, match="of another wrapped model"):
        store.explain(model(100).example(torch.ones(16), label=0))
    with torch.no_grad():
        of.module[0].bias += 0.1
    with pytest.raises(Stale, match="the model has changed since"):
        store.explain(of.example(torch.ones(16), label=0))


def test_what_a_store_is_made_of(tmp_path):
    of = model(20)
    question = of.example(torch.ones(16), label=0)
    with pytest.raises(TypeError, match="that of a Trak or a DTrak, got Influence"):
        GradientStore(Influence(), question)
    with pytest.raises(ValueError, match=r"give its explainer shards=Shards\(folder\)"):
        GradientStore(Trak(seed=0), question)
    trak = Trak(4, seed=0, shards=Shards(tmp_path))
    with pytest.raises(TypeError, match="opened with a target of its model, got SupervisedModel"):
        GradientStore(trak, of)
    with pytest.raises(TypeError, match="is asked a target, got Tensor"):
        GradientStore(trak, question).explain(torch.ones(16))
    graph = explain.wrap(nn.Linear(16, 3), of.train, task="classification")
    with pytest.raises(ValueError, match="all of the same model"):
        GradientStore(trak, question).explain_all([question, graph.example(torch.ones(16), label=0)])
