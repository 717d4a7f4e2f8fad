"""A forward that draws from a seed of its input is another network for each coalition: refused; other seeds are not."""

import random
from types import MappingProxyType

import numpy as np
import pytest
import torch
from graph_cases import random_graph
from torch import nn
from torch_geometric.nn import GCNConv

import explain


def _whole(x):
    return int(x.detach().double().abs().sum() * 1e6)


def _locally(seed):
    return torch.rand(3, generator=torch.Generator().manual_seed(seed))


def _globally(seed):
    torch.manual_seed(seed)
    return torch.rand(3)


def _by_numpy(seed):
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what is tested
    return torch.tensor(np.random.rand(3)).float()  # noqa: NPY002


def _by_python(seed):
    random.seed(seed)
    return torch.tensor([random.random() for _ in range(3)])


def _after_another(seed):
    torch.rand(5)  # of which nothing is read
    return _locally(seed)


DRAWN = [_locally, _globally, _by_numpy, _by_python, _after_another]


class Drawing(nn.Module):
    """Its last layer's columns are weighted by what is drawn, from a seed of the input or from 7."""

    assumed = MappingProxyType({"noise": "drawn once"})

    def __init__(self, layer, draw, by_input):
        super().__init__()
        self.layer, self.draw, self.by_input = layer, draw, by_input

    def forward(self, x, *others):
        return self.layer(x, *others) * self.draw(_whole(x) if self.by_input else 7)


class Denoising(Drawing):
    def forward(self, x, t, label=None):
        return x * self.draw(_whole(x) if self.by_input else 7).sum()


def _asked(family, draw, by_input):
    torch.manual_seed(0)
    if family == "graph":
        return explain.wrap(Drawing(GCNConv(5, 3), draw, by_input).eval(), random_graph()).node(2)
    if family == "supervised":
        net = Drawing(nn.Linear(4, 3), draw, by_input).eval()
        return explain.wrap(net, task="classification").example(torch.ones(4))
    net = Denoising(nn.Linear(1, 1), draw, by_input).eval()
    betas = torch.linspace(1e-4, 0.02, 10)
    model = explain.wrap(net, betas=betas, shape=(1, 4, 4), prediction_type="epsilon", time="step")
    return model.step(torch.zeros(1, 4, 4), t=5, seed=0)


@pytest.mark.parametrize("family", ["graph", "supervised", "diffusion"])
@pytest.mark.parametrize("draw", DRAWN)
def test_a_seed_of_the_input_is_refused_and_a_constant_one_is_not(family, draw):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert np.isfinite(_asked(family, draw, by_input=False).value())
    with pytest.raises(ValueError, match="from a seed that its input makes"):
        _asked(family, draw, by_input=True).value()
    torch.manual_seed(0)  # as `_asked` left it
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


@pytest.mark.parametrize("family", ["graph", "supervised", "diffusion"])
def test_what_a_module_says_of_itself_is_in_the_answer(family):
    assert _asked(family, _locally, by_input=False).describe()["assumed"]["noise"] == "drawn once"


def test_draws_whose_number_hangs_on_the_input_are_not_taken_for_seeds():
    """A constant seed; how far the generator moves hangs on the rates of the first draw."""

    def draw(x):
        generator = torch.Generator().manual_seed(3)
        return torch.poisson(x, generator) * 0 + torch.rand(4, generator=generator) * 0

    class Net(nn.Module):
        def forward(self, x):
            return x.sum(1, keepdim=True) + draw(x[0].abs() * 50).sum()

    assert explain.wrap(Net(), task="regression").example(torch.ones(4)).value() == pytest.approx(4)
