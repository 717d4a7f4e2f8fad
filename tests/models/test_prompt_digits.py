"""The pipeline of words to digits: trained by its seed, kept by its cache, and each word does what was planted."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from models import judge, prompt_digits
from models.datasets import digits

SHORT = prompt_digits.Recipe(width=16, heads=2, layers=2, iterations=20, batch_size=16, validations=4)


@pytest.fixture
def unsupervised(monkeypatch):
    """No judge to train, and few pictures to draw, where only the pipeline matters."""
    fake = judge.Trained(judge.Judge(8).eval(), {"accuracy": 0.5}, cached=True)
    monkeypatch.setattr(judge, "load_or_train", lambda *_, **__: fake)
    monkeypatch.setattr(prompt_digits, "obeyed", partial(prompt_digits.obeyed, count=8))


def weights(pipeline):
    return [*pipeline.text_encoder.parameters(), *pipeline.transformer.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


# --- training, reduced ---


def test_the_same_seed_gives_the_same_pipeline_and_global_random_states_stay():
    data, _ = digits()
    random = torch.get_rng_state()
    first, second, other = (prompt_digits.train(data, SHORT, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), random)
    assert first[1] == second[1]
    assert same(first[0], second[0])
    assert not same(first[0], other[0])
    assert all(p.grad is None for p in weights(first[0]))


def test_training_lowers_the_loss_of_digits_that_are_not_trained_on():
    data, _ = digits()
    losses = [prompt_digits.train(data, replace(SHORT, iterations=n), progress=False)[1] for n in (1, 60)]
    assert losses[1] < 0.9 * losses[0]


def test_the_best_validation_is_kept(monkeypatch):
    def worse_and_worse(pipeline, batch):
        loss = own(pipeline, batch)
        if not torch.is_grad_enabled():
            states.append([p.clone() for p in weights(pipeline)])
            loss = loss + len(states) % 3
        return loss

    states, own = [], prompt_digits._loss
    monkeypatch.setattr(prompt_digits, "_loss", worse_and_worse)
    kept, loss = prompt_digits.train(digits()[0], SHORT, progress=False)
    assert len(states) == SHORT.validations
    assert loss < 2
    assert all(torch.equal(a, b) for a, b in zip(weights(kept), states[2], strict=True))  # the third, 3 % 3 == 0


@pytest.mark.usefixtures("unsupervised")
def test_the_cache_gives_the_pipeline_back(tmp_path):
    def load(recipe=SHORT, seed=0):
        return prompt_digits.load_or_train(recipe, seed=seed, folder=tmp_path, progress=False)

    first, second = load(), load()
    assert (first.cached, second.cached) == (False, True)
    assert first.facts == second.facts
    assert set(first.facts) >= {"class", "ink", "shift", "tone", "judge_accuracy", "validation", "seconds"}
    assert first.path.suffix == ".safetensors"
    for other in (second.pipeline, prompt_digits.load(first.path)):
        assert same(first.pipeline, other)
        assert other.scheduler.config == first.pipeline.scheduler.config
        assert not other.transformer.training
    assert not load(seed=1).cached
    assert not load(replace(SHORT, drop=0.2)).cached


@pytest.mark.usefixtures("unsupervised")
def test_a_damaged_checkpoint_is_refused_or_trained_again(tmp_path):
    first = prompt_digits.load_or_train(SHORT, folder=tmp_path, progress=False)
    blob = bytearray(first.path.read_bytes())
    blob[-1] ^= 1
    first.path.write_bytes(blob)
    with pytest.raises(ValueError, match="altered"):
        prompt_digits.load(first.path)
    assert not prompt_digits.load_or_train(SHORT, folder=tmp_path, progress=False).cached


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    judge.load_or_train(epochs=1, folder=tmp_path, progress=False)
    (path,) = tmp_path.glob("Judge*")
    with pytest.raises(ValueError, match="holds a 'Judge', not"):
        prompt_digits.load(path)
