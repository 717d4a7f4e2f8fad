"""Objectives that the influence tests share, in float64 and small enough for the whole Hessian."""

from __future__ import annotations

from functools import cache

import torch
from reference import influence as reference
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn
from torch.func import functional_call

from explain.influence import refit
from explain.supervised import SupervisedModel
from explain.training import TrainingObjective, trainable
from explain.types import Players, Target


class ObjectiveTarget(Target):
    """A target that offers nothing but its objective."""

    def __init__(self, objective, module=None):
        self.module = module or nn.Identity()
        self.own = objective

    def objective(self, train=None, remove="labels"):
        return self.own

    def describe(self):
        return {"family": "test"}


def module_objective(module: nn.Module, x: Tensor, y: Tensor, *, asked: Tensor, output: int = 0, **options):
    """The objective of a plain module; the number is one output for ``asked [1, ...]``."""

    def number(params):
        return functional_call(module, params, (asked,))[0, output]

    players = Players("train", torch.arange(len(x)))
    return TrainingObjective(
        trainable(module), players, lambda p, at: functional_call(module, p, (x[at],)), y, number, **options
    )


@cache
def digits(count: int = 200, classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs ``[count, 16]`` (2 x 2 means) and labels, and two hundred more of each."""
    data, target = load_digits(n_class=classes, return_X_y=True)
    x = torch.tensor(data).reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16) / 16
    y = torch.tensor(target)
    return x[:count], y[:count], x[count : count + 200], y[count : count + 200]


@cache
def logistic(weight_decay: float = 0.01, count: int = 200) -> TrainingObjective:
    """L2 logistic regression at its minimum; the number is the loss of the test digit it is least sure of."""
    x, y, others, labels = digits(count)

    def predict(params, inputs):
        return inputs @ params["w"].T + params["b"]

    def build(params, asked):
        def number(p):
            return -predict(p, others[asked : asked + 1]).log_softmax(1)[0, labels[asked]]

        players = Players("train", torch.arange(count))
        return TrainingObjective(params, players, lambda p, at: predict(p, x[at]), y, number, weight_decay=weight_decay)

    start = {"w": torch.zeros(4, 16, dtype=torch.float64), "b": torch.zeros(4, dtype=torch.float64)}
    theta = reference.trained(build(start, 0))
    params = {"w": theta[:64].reshape(4, 16), "b": theta[64:]}
    losses = -predict(params, others).log_softmax(1).gather(1, labels[:, None])[:, 0]
    return build(params, int(losses.argmax()))


@cache
def half_trained(steps: int = 3) -> TrainingObjective:
    """A tanh network long before its minimum: an indefinite Hessian."""
    torch.manual_seed(0)
    x, y, others, _ = digits(30)
    net = nn.Sequential(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5, weight_decay=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return module_objective(net, x, y, asked=others[:1], output=2, weight_decay=1e-3)


def settled(module: nn.Module, x: Tensor, y: Tensor, *, task: str = "classification", **options):
    """The wrapped module at the minimum of its training loss, ``train=(x, y)``."""
    model = SupervisedModel(module, task=task, train=(x, y), **options)
    objective = model.example(x[0], payoff=lambda outputs: outputs[:, 0]).objective()
    with torch.no_grad():
        for name, p in refit(objective).items():
            module.get_parameter(name).copy_(p)
    return model


@cache
def tumours(count: int = 300) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Breast cancer, standardised: inputs ``[count, 30]`` and classes to learn from, and the rest."""
    data, target = load_breast_cancer(return_X_y=True)
    x, y = torch.tensor(data), torch.tensor(target)
    x = (x - x.mean(0)) / x.std(0)
    return x[:count], y[:count], x[count:], y[count:]


@cache
def tumour_model(outputs: int = 1, weight_decay: float = 0.01):
    """L2 logistic regression on breast cancer at its minimum."""
    x, y, _, _ = tumours()
    torch.manual_seed(0)
    return settled(nn.Linear(30, outputs, bias=False).double(), x, y, weight_decay=weight_decay)


@cache
def ridge(count: int = 40, features: int = 5, weight_decay: float = 0.1):
    """A least squares line with a penalty, at its minimum: inputs, targets, another input, and the wrapped model."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, features, generator=generator, dtype=torch.float64)
    y = x @ torch.arange(1.0, features + 1).double()[:, None] + torch.randn(count, 1, generator=generator).double()
    asked = torch.randn(features, generator=generator, dtype=torch.float64)
    net = nn.Linear(features, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(reference.ridge(x, y, weight_decay).T)
    return x, y, asked, SupervisedModel(net, task="regression", train=(x, y), weight_decay=weight_decay)
