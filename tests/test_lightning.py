"""Modules of PyTorch Lightning are wrapped as they are, also those that log in their forward."""

import pytest
import torch
from torch import nn
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCNConv

import explain
from explain import Gradient, Shapley


class LightningModule(nn.Module):
    """What Lightning's module does of its trainer: out of its loops, after training as before, there is no log."""

    def log(self, name, value, **options):
        raise RuntimeError("the loop's result collection is not registered yet")

    def log_dict(self, dictionary, **options):
        raise RuntimeError("the loop's result collection is not registered yet")


class Classifier(LightningModule):
    def __init__(self, logs):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.logs = nn.Linear(3, 2), logs
        self.example_input_array = torch.zeros(1, 3)

    def forward(self, x):
        if self.logs:
            self.log("mean", x.mean(), prog_bar=True)
            self.log_dict({"most": x.max()})
        return self.net(x).tanh()


class Graphs(LightningModule):
    def __init__(self, logs):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.logs = GCNConv(34, 4), logs

    def forward(self, x, edge_index):
        if self.logs:
            self.log("mean", x.mean())
        return self.layer(x, edge_index)


class Denoiser(LightningModule):
    def __init__(self, logs):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.logs = nn.Conv2d(1, 1, 3, padding=1), logs

    def forward(self, x, t):
        if self.logs:
            self.log("mean", x.mean())
        return self.net(x) * (1 + t.view(-1, 1, 1, 1) / 20)


def of_table(module):
    return explain.wrap(module, task="classification").example(torch.tensor([1.0, -2.0, 0.5]))


def of_graph(module):
    return explain.wrap(module, KarateClub()[0]).node(4)


def of_picture(module):
    betas = torch.linspace(1e-3, 0.2, 20)
    model = explain.wrap(module, betas=betas, prediction_type="epsilon", time="step", shape=(1, 4, 4))
    return model.step(torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)), 5)


KINDS = {
    "table": (Classifier, of_table, "features"),
    "graph": (Graphs, of_graph, "nodes"),
    "picture": (Denoiser, of_picture, "patches"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_forward_logs_is_in_nobodys_way(kind):
    made, asked, players = KINDS[kind]
    module = made(logs=True)
    before = dict(vars(module))
    for explainer in (Shapley(players, seed=0), Gradient(players)):
        found, expected = (explainer.explain(asked(each)) for each in (module, made(logs=False)))
        assert torch.equal(found.scores, expected.scores)
        assert float(found.scores.abs().max()) > 0
    assert vars(module) == before
    with pytest.raises(RuntimeError, match="not registered"):
        module.log("mean", 0.0)


def test_a_method_called_log_of_another_module_is_its_own():
    class Logarithm(nn.Module):
        def log(self, x):
            return x.exp().sum(1, keepdim=True).log()

        def log_dict(self, x):
            return x

        def forward(self, x):
            return self.log_dict(torch.cat([self.log(x), x], 1))

    target = explain.wrap(Logarithm(), task="regression").example(torch.tensor([1.0, -2.0]), label=0)
    full = target.game("features")(torch.ones(1, 2, dtype=torch.bool))
    assert float(full) == pytest.approx(float(torch.tensor([1.0, -2.0]).exp().sum().log()))
