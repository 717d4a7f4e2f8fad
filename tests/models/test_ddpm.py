"""The digits DDPM: draws the digit asked for, keeps to its cache, and its parts are those of the papers."""

import os
from dataclasses import replace

import pytest
import torch

import explain
from models import ddpm, judge
from models.datasets import Images, digits, mnist

SHORT = replace(ddpm.DIGITS, channels=(8, 8), iterations=30, batch_size=16)


@pytest.fixture(scope="module")
def trained():
    """The model of the demo: from the cache, or trained in about two minutes."""
    return ddpm.load_or_train(progress=False)


@pytest.fixture(scope="module")
def seen_by():
    return judge.load_or_train(progress=False)


@pytest.fixture
def unsupervised(monkeypatch):
    """No judge to train where only the denoiser matters."""
    fake = judge.Trained(judge.Judge(8).eval(), {"accuracy": 0.5}, cached=True)
    monkeypatch.setattr(judge, "load_or_train", lambda *_, **__: fake)


# --- the model ---


@pytest.mark.xdist_group("ddpm")
def test_it_draws_the_digit_asked_for(trained, seen_by):
    assert seen_by.facts["accuracy"] >= 0.97  # on real digits that the judge never saw
    assert trained.info.facts["class_accuracy"] >= 0.95
    wanted = torch.arange(500) % 10
    samples = ddpm.sample(trained.unet, trained.scheduler, wanted, generator=torch.Generator().manual_seed(7))
    assert judge.accuracy(seen_by.module, Images(samples, wanted)) >= 0.95  # other noise than the facts'


@pytest.mark.xdist_group("ddpm")
def test_it_draws_digits_of_its_own_as_varied_as_real_ones(trained):
    real = trained.info.data
    samples = ddpm.sample(
        trained.unet, trained.scheduler, torch.arange(200) % 10, generator=torch.Generator().manual_seed(8)
    )
    distance = torch.cdist(samples.flatten(1), real.images.flatten(1))
    assert float(distance.min(1).values.min()) > 0.1  # no copies
    for digit in range(10):
        ours = samples[torch.arange(200) % 10 == digit].std(0).mean()
        theirs = real.images[real.labels == digit].std(0).mean()
        assert 0.5 < ours / theirs < 1.5


@pytest.mark.xdist_group("ddpm")
def test_guidance_makes_the_class_surer(trained, seen_by):
    wanted = torch.arange(200) % 10

    def sureness(guidance):
        generator = torch.Generator().manual_seed(1)
        samples = ddpm.sample(trained.unet, trained.scheduler, wanted, guidance=guidance, generator=generator)
        with torch.no_grad():
            return float(seen_by.module(samples).log_softmax(1).gather(1, wanted[:, None]).mean())

    assert sureness(0.0) < sureness(1.0) < sureness(2.0)


@pytest.mark.xdist_group("ddpm")
def test_the_toolkit_runs_it_as_it_runs_itself(trained, seen_by):
    wrapped = explain.wrap(trained.unet, scheduler=trained.scheduler, null=ddpm.NULL)
    payoff = judge.log_probability(seen_by.module, 3)
    run = wrapped.trajectory(label=3, steps=5, guidance=2.0, payoff=payoff)
    assert run.describe()["payoff"] == "log p(3)"
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64).float()
    by_hand = _denoised(trained, start, 3, steps=5, guidance=2.0)
    torch.testing.assert_close(run.run(), by_hand, rtol=1e-4, atol=1e-4)
    assert run.value() == pytest.approx(float(payoff(by_hand).detach()), abs=1e-3)


def _denoised(trained, x, label, steps, guidance):
    """DDIM (Song et al. 2021, equation 12, sigma 0) of one image, with clean images kept in [-1, 1]."""
    signal = trained.scheduler.alphas_cumprod
    times = torch.arange(0, 1000, 1000 // steps).flip(0)
    with torch.no_grad():
        for t, after in zip(times.tolist(), [*times[1:].tolist(), None], strict=True):
            c, u = (trained.unet(x, t, class_labels=torch.tensor([i])).sample for i in (label, ddpm.NULL))
            e = u + guidance * (c - u)
            clean = ((x - (1 - signal[t]).sqrt() * e) / signal[t].sqrt()).clamp(-1, 1)
            left = torch.tensor(1.0) if after is None else signal[after]
            x = left.sqrt() * clean + (1 - left).sqrt() * e
    return x


@pytest.mark.xdist_group("ddpm")
def test_sampling_is_ddim(trained):
    start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    ours = ddpm.sample(trained.unet, trained.scheduler, torch.tensor([5]), steps=4, guidance=1.5, generator=generator)
    torch.testing.assert_close(ours, _denoised(trained, start, 5, steps=4, guidance=1.5), rtol=1e-4, atol=1e-4)


# --- training, reduced ---


def test_the_same_seed_gives_the_same_model_and_global_random_states_stay():
    data, _ = digits()
    random = torch.get_rng_state()
    first, second, other = (ddpm.train(data, SHORT, seed=seed, progress=False) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first[0].parameters(), other[0].parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first[0].parameters(), first[1].parameters(), strict=True))
    assert not first[0].training
    assert not first[1].training


def test_training_lowers_the_loss():
    data, _ = digits()
    losses = [_loss(ddpm.train(data, replace(SHORT, iterations=n), progress=False)[1], data) for n in (1, 150)]
    assert losses[1] < 0.7 * losses[0]


def _loss(net, data):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(data.images.shape, generator=generator)
    t = torch.randint(1000, (len(noise),), generator=generator)
    with torch.no_grad():
        e = net(ddpm.ddpm(SHORT).add_noise(data.images, noise, t), t, class_labels=data.labels).sample
    return float((e - noise).square().mean())


def test_dropped_labels_are_the_null_label():
    data, _ = digits()
    always = replace(SHORT, iterations=5, drop=1.0)
    nothing = ddpm.train(data, always, progress=False)[1].class_embedding.weight
    start = ddpm.train(data, replace(always, lr=0.0), progress=False)[1].class_embedding.weight
    moved = (nothing - start).abs().sum(1) > 0
    assert moved.tolist() == [False] * 10 + [True]


@pytest.mark.skipif("EXPLAIN_DATA" not in os.environ, reason="EXPLAIN_DATA does not name a data folder")
def test_mnist_by_the_same_code():
    recipe = replace(ddpm.MNIST, channels=(8, 8, 8), iterations=2, batch_size=4)
    net, _ = ddpm.train(mnist()[0], recipe, progress=False)
    generator = torch.Generator().manual_seed(0)
    samples = ddpm.sample(net, ddpm.ddim(recipe), torch.tensor([1, 2]), steps=2, generator=generator)
    assert samples.shape == (2, 1, 28, 28)
    assert judge.Judge(28)(samples).shape == (2, 10)


# --- sampling ---


def test_sampling_changes_nothing_and_follows_its_generator():
    net, scheduler = ddpm.unet(SHORT).train(), ddpm.ddim(SHORT)
    labels, random = torch.tensor([1, 2]), torch.get_rng_state()
    draws = [
        ddpm.sample(net, scheduler, labels, steps=3, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].shape == (2, 1, 8, 8)
    assert net.training
    assert scheduler.num_inference_steps is None
    assert torch.equal(torch.get_rng_state(), random)


def test_sampling_with_noise_follows_its_generator_too():
    net, random = ddpm.unet(SHORT).eval(), torch.get_rng_state()
    first, second = (
        ddpm.sample(net, ddpm.ddpm(SHORT), torch.tensor([1]), steps=3, generator=torch.Generator().manual_seed(0))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), random)


# --- checkpoints ---


@pytest.mark.usefixtures("unsupervised")
def test_the_cache_gives_the_model_back(tmp_path):
    first, second = (ddpm.load_or_train(recipe=SHORT, folder=tmp_path, progress=False) for _ in range(2))
    assert (first.info.cached, second.info.cached) == (False, True)
    assert first.info.facts == second.info.facts
    assert first.info.path.suffix == ".safetensors"
    loaded, scheduler = ddpm.load(first.info.path)
    assert scheduler.config == first.scheduler.config
    for other in (second.unet, loaded):
        ours, theirs = first.unet.state_dict(), other.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not other.training
    assert all(torch.equal(first.info.last[name], second.info.last[name]) for name in first.info.last)
    assert not ddpm.load_or_train(recipe=SHORT, seed=1, folder=tmp_path, progress=False).info.cached
    assert not ddpm.load_or_train(recipe=replace(SHORT, drop=0.2), folder=tmp_path, progress=False).info.cached


@pytest.mark.usefixtures("unsupervised")
def test_a_damaged_checkpoint_is_refused_or_trained_again(tmp_path):
    first = ddpm.load_or_train(recipe=SHORT, folder=tmp_path, progress=False)
    blob = bytearray(first.info.path.read_bytes())
    blob[-1] ^= 1
    first.info.path.write_bytes(blob)
    with pytest.raises(ValueError, match="altered"):
        ddpm.load(first.info.path)
    assert not ddpm.load_or_train(recipe=SHORT, folder=tmp_path, progress=False).info.cached
    assert ddpm.load_or_train(recipe=SHORT, folder=tmp_path, progress=False).info.cached


def test_a_pickle_and_another_model_are_refused(tmp_path):
    torch.save(ddpm.unet(SHORT).state_dict(), tmp_path / "unet.pt")
    with pytest.raises(ValueError, match=r"is a pickle.*safetensors"):
        ddpm.load(tmp_path / "unet.pt")
    judge.load_or_train(epochs=1, folder=tmp_path, progress=False)
    (path,) = tmp_path.glob("Judge*")
    with pytest.raises(ValueError, match="holds a 'Judge', not these"):
        ddpm.load(path)


def test_unknown_data_and_images_of_another_size():
    with pytest.raises(ValueError, match="digits, mnist"):
        ddpm.load_or_train("letters")
    with pytest.raises(ValueError, match="the recipe is for size 28"):
        ddpm.load_or_train("digits", ddpm.MNIST)


# --- the judge ---


def test_the_judge_never_saw_what_the_generator_learned_from():
    learned, held_out = digits()
    net = judge.train(judge.Judge(8), held_out, 5, progress=False)
    assert judge.accuracy(net, learned) > 0.5
    same = torch.cdist(learned.images.flatten(1), held_out.images.flatten(1)) == 0
    assert not same.any()


def test_log_probability_is_a_payoff_with_gradients_and_keeps_the_mode():
    net = judge.Judge(8).train()
    samples = torch.zeros(3, 1, 8, 8, requires_grad=True)
    values = judge.log_probability(net, 4)(samples)
    assert values.shape == (3,)
    assert net.training
    torch.testing.assert_close(values, net.eval()(samples).log_softmax(1)[:, 4])
    values.sum().backward()
    assert samples.grad.abs().sum() > 0
