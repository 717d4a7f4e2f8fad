"""The denoising loss of training images is the one that was trained, and the number moves with the parameters."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusion_cases import STEPS, digits_like, tiny_net, tiny_unet
from torch.utils.data import DataLoader, Dataset, TensorDataset

from explain import examples
from explain.diffusion.model import DiffusionModel
from explain.diffusion.objective import draws
from explain.examples import Rows
from explain.influence import Influence, Shards
from explain.influence.linear_maps import Flat
from explain.influence.scores import measured_gradient
from explain.influence.shards import training_set
from explain.types import Unsupported


@pytest.fixture
def model():
    return DiffusionModel(tiny_net(), time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, draws=6)


@pytest.fixture
def train():
    return digits_like(5, seed=2), torch.tensor([1, 0, 3, 3, 9])


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_loss_of_each_image(train, prediction):
    scheduler = DDIMScheduler(STEPS, clip_sample=False, prediction_type=prediction)
    model = DiffusionModel(tiny_net(), time="step", scheduler=scheduler, null=10, draws=6)
    objective = model.step(digits_like()[0], t=20, label=3).objective(train)
    times, noise = draws(model, digits_like()[0])
    assert times.tolist() == [8, 25, 41, 58, 75, 91]
    found = objective.train_loss(objective.params, torch.tensor([3, 1]))
    for i, loss in zip((3, 1), found, strict=True):
        expected = 0.0
        for t, e in zip(times, noise, strict=True):
            a, s = scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt()
            x0 = train[0][i]
            out = model.denoiser.net((a * x0 + s * e)[None], t[None], train[1][i : i + 1]).sample[0]
            wanted = {"epsilon": e, "sample": x0, "v_prediction": a * e - s * x0}[prediction]
            expected += float(((out - wanted) ** 2).mean().detach()) / 6
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_ways_to_give_training_images(model, train):
    step = model.step(digits_like()[0], t=20, label=3)
    first = step.objective(train)
    batch = torch.arange(5)
    for other in (TensorDataset(*train), DataLoader(TensorDataset(*train), batch_size=2)):
        found = step.objective(other)
        torch.testing.assert_close(found.train_loss(found.params, batch), first.train_loss(first.params, batch))
    assert first.players.names[4] == "image 4 (9)"
    assert first.players.geometry["images"].shape == (5, 1, 8, 8)


def test_named_conditions_of_training_images(model, train):
    step = model.step(digits_like()[0], t=20, label=3)
    first, named = step.objective(train), step.objective((train[0], {"class_labels": train[1]}))
    pairs = step.objective([(image, {"class_labels": label}) for image, label in zip(*train, strict=True)])
    batch = torch.tensor([4, 1])
    for other in (named, pairs):
        torch.testing.assert_close(other.train_loss(other.params, batch), first.train_loss(first.params, batch))
        assert other.players.names[4] == "image 4"


def test_wrong_training_images(model, train):
    step = model.step(digits_like()[0], t=20, label=3)
    with pytest.raises(ValueError, match="which images was the model trained on"):
        step.objective()
    with pytest.raises(ValueError, match=r"training images must be \[n, 1, 8, 8\]"):
        step.objective((torch.zeros(3, 1, 4, 4), torch.zeros(3)))
    with pytest.raises(ValueError, match=r"5 training images need as many rows of class_labels, got \[3\]"):
        step.objective((train[0], torch.zeros(3, dtype=torch.long)))
    with pytest.raises(ValueError, match="remove must be"):
        step.objective(train, remove="pixels")


@pytest.mark.parametrize("question", ["step", "trajectory"])
def test_the_number_moves_as_its_gradient_says(train, question):
    model = DiffusionModel(tiny_unet().double(), scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, draws=2)
    if question == "step":
        target = model.step(digits_like()[0], t=20, label=3, guidance=2.0)
    else:
        target = model.trajectory(3, steps=3, guidance=2.0, payoff=lambda x: x.square().mean((1, 2, 3)))
    objective = target.objective(train)
    params = objective.params
    assert float(objective.measurement(params)) == pytest.approx(target.value(), rel=1e-9)
    name = "net.conv_in.weight"
    direction = torch.randn(params[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(amount):
        return objective.measurement({**params, name: params[name] + amount * direction})

    amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(moved(amount), amount)
    difference = (moved(torch.tensor(1e-5)) - moved(torch.tensor(-1e-5))) / 2e-5
    assert float(slope) == pytest.approx(float(difference), rel=1e-4)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # the schedulers' own arithmetic
@pytest.mark.parametrize(
    "scheduler",
    [
        DDPMScheduler,
        DEISMultistepScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        HeunDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
    ],
)
def test_runs_are_differentiated_through_any_scheduler_of_torch(train, scheduler):
    model = DiffusionModel(
        tiny_net().double(), time="step", scheduler=scheduler(STEPS), null=10, draws=2, shape=(1, 8, 8)
    )
    target = model.trajectory(3, steps=3, guidance=2.0, payoff=lambda x: x.square().mean((1, 2, 3)))
    objective = target.objective(train)
    value, gradient = measured_gradient(objective)
    assert value == pytest.approx(target.value(), rel=1e-9)
    flat = Flat(objective.params)
    theta = flat.vector(objective.params)
    direction = torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(0))
    up, down = (objective.measurement(flat.params(theta + h * direction)) for h in (1e-4, -1e-4))
    # several schedulers step in float32, which a difference of numbers feels
    assert float(gradient @ direction) == pytest.approx(float(up - down) / 2e-4, rel=0.02)


def test_a_payoff_that_leaves_torch_is_named(train):
    model = DiffusionModel(tiny_net(), time="step", scheduler=DDIMScheduler(STEPS), null=10, draws=2, shape=(1, 8, 8))
    target = model.trajectory(3, steps=3, payoff=lambda x: torch.as_tensor(np.mean(np.asarray(x), (1, 2, 3))))
    with pytest.raises(Unsupported, match="or the payoff, computes with NumPy"):
        measured_gradient(target.objective(train))
    cut = model.trajectory(3, steps=3, payoff=lambda x: x.detach().mean((1, 2, 3)))
    with pytest.warns(UserWarning, match="does not depend on the trained parameters"):
        _, gradient = measured_gradient(cut.objective(train))
    assert not gradient.any()


def test_a_payoff_with_parameters_of_its_own_is_not_followed():
    """What judges a sample may be a network: its gradients are not asked for, and must not pile up."""
    model = DiffusionModel(tiny_net(), time="step", scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, draws=2)
    judge = torch.nn.Linear(64, 1)
    target = model.trajectory(3, steps=2, payoff=lambda x: judge(x.flatten(1))[:, 0], shape=(1, 8, 8))
    value, gradient = measured_gradient(target.objective((digits_like(5, seed=2), torch.arange(5))))
    assert value == pytest.approx(target.value(), rel=1e-5)
    assert not gradient.requires_grad
    assert judge.weight.grad is None


class Watched(Dataset):
    """Images that are read a batch at a time; ``most`` is the largest."""

    def __init__(self, *columns):
        self.columns, self.most = columns, 0

    def __len__(self):
        return len(self.columns[0])

    def __getitems__(self, positions):
        self.most = max(self.most, len(positions))
        found = [[part[i] for part in self.columns] for i in positions]
        return [one[0] if len(one) == 1 else tuple(one) for one in found]


class Told(torch.nn.Module):
    """Takes an embedding, or nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, x, t, label=None):
        return (x * self.weight).tanh() + (0 if label is None else label.mean((1, 2))[:, None, None, None])


@pytest.mark.parametrize("beside", ["nothing", "classes", "embeddings", "named"])
def test_images_larger_than_memory_are_those_that_fit(model, beside, monkeypatch):
    images, classes = digits_like(40, seed=2), torch.arange(40) % 10
    columns = {
        "nothing": (images,),
        "classes": (images, classes),
        "embeddings": (images, torch.randn(40, 2, 3)),
        "named": (images, [{"class_labels": one} for one in classes]),
    }[beside]
    data = Watched(*columns)
    if beside in ("nothing", "embeddings"):
        step = DiffusionModel(Told(), time="step", betas=[0.1, 0.2]).step(images[0], t=1)
    else:
        step = model.step(images[0], t=1, label=3)
    whole = step.objective(data)
    assert isinstance(whole.images, torch.Tensor)
    monkeypatch.setattr(examples, "HELD", 0)
    monkeypatch.setattr(examples, "READ", 4 * images[0].nbytes)
    data.most = 0
    streamed = step.objective(data)
    assert isinstance(streamed.images, Rows)
    batch = torch.tensor([7, 3, 12])
    torch.testing.assert_close(
        streamed.train_loss(streamed.params, batch), whole.train_loss(whole.params, batch), rtol=1e-6, atol=0
    )
    assert streamed.players.names == whole.players.names
    assert ("classes" in streamed.players.geometry) == (beside == "classes")
    assert training_set(streamed) == training_set(whole)
    assert data.most <= 5
    again = step.objective(streamed.train)
    assert again.images.examples is streamed.images.examples
    assert again.players.names == streamed.players.names


def test_a_data_set_of_something_else(model):
    step = model.step(digits_like()[0], t=20, label=3)
    images = digits_like(3)
    for captions in ([(image, "text") for image in images], (images, ["text"] * 3)):
        with pytest.raises(TypeError, match=r"captions are given as a text encoder reads them"):
            step.objective(captions)
    with pytest.raises(TypeError, match="each example of this one has 3 parts"):
        step.objective([(image, 1, 0.5) for image in images])
    with pytest.raises(TypeError, match=r"a training set gives images, or pairs .* got \['dict'\]|got \['str'\]"):
        step.objective([{"image": image} for image in images])


def test_influence_of_images_that_are_read_as_they_are_asked_for(model, tmp_path, monkeypatch):
    data = Watched(digits_like(30, seed=2), torch.arange(30) % 10)
    targets = [model.step(digits_like()[0], t=t, label=3) for t in (20, 60)]

    def found(**settings):
        engine = Influence(train=data, solver="cg", curvature="ggn", damping=1.0, seed=0, **settings)
        return engine.explain_all(targets)

    with pytest.warns(UserWarning, match="not at a minimum"):
        whole = found()
    monkeypatch.setattr(examples, "HELD", 0)
    monkeypatch.setattr(examples, "READ", 4 * 64 * 4)
    with pytest.warns(UserWarning, match="not at a minimum"):
        streamed = found(shards=Shards(tmp_path, size=12))
    for one, other in zip(streamed, whole, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-9)
