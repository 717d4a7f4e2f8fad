"""Asked under inference mode, without gradients or under autocast, a model answers what it answers otherwise."""

import copy

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN

import explain
from explain import Attention, Gradient, Influence, Mask, SelfInfluence, Shapley

MODES = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 2


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def gcn():
    torch.manual_seed(0)
    return GCN(4, 6, 2, 2)


def gat():
    torch.manual_seed(0)
    return GAT(4, 6, 2, 2)


def row(net, x=X, y=Y):
    return explain.wrap(net, task="classification", train=(x, y), weight_decay=0.1).example(x[0], 1)


def small_graph():
    generator = torch.Generator().manual_seed(0)
    edges, x = torch.randint(0, 8, (2, 20), generator=generator), torch.randn(8, 4, generator=generator)
    return Data(x=x, edge_index=edges, y=torch.arange(8) % 2, train_mask=torch.ones(8) > 0)


def node(net, data=None):
    return explain.wrap(net, small_graph() if data is None else data, weight_decay=0.1).node(3, 1)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x, t):
        return self.b(torch.tanh(self.a(x) + t.view(-1, 1, 1, 1) / 100))


def denoiser():
    torch.manual_seed(0)
    return Denoiser()


def step(net):
    model = explain.wrap(net, scheduler=DDIMScheduler(100, clip_sample=False), draws=2, time="step")
    return model.step(IMAGE, t=30, seed=0)


IMAGE = torch.linspace(-1, 1, 16).view(1, 4, 4)


GGN = {"curvature": "ggn", "damping": 0.1, "seed": 0}
QUESTIONS = {
    "table influence": (Influence(seed=0), linear, row),
    "table self-influence": (SelfInfluence(Influence(seed=0)), linear, row),
    "table gradient": (Gradient("features"), linear, row),
    "graph influence": (Influence(**GGN), gcn, node),
    "graph removal": (Influence(remove="edges", **GGN), gcn, node),
    "graph gradient": (Gradient("edges"), gcn, node),
    "graph mask": (Mask("edges", epochs=5, seed=0), gcn, node),
    "graph attention": (Attention("edges"), gat, node),
    "graph shapley": (Shapley("edges", samples=64, seed=0), gcn, node),
    "step influence": (Influence(train=IMAGE * torch.arange(1, 7).view(-1, 1, 1, 1) / 6, **GGN), denoiser, step),
    "step gradient": (Gradient("patches"), denoiser, step),
}


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_the_mode_of_the_call_changes_nothing(question, mode):
    explainer, build, ask = QUESTIONS[question]
    net = build()
    usual, before = explainer.explain(ask(net)), ask(net)
    with MODES[mode]():
        asked_within, made_within = explainer.explain(before), explainer.explain(ask(net))
    assert usual.scores.any()
    for found in (asked_within, made_within):
        torch.testing.assert_close(found.scores, usual.scores)
        assert found.value == pytest.approx(usual.value)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_examples_made_under_inference_mode_are_examples():
    with torch.inference_mode():
        x, y, data = X.clone(), Y.clone(), small_graph().apply(torch.clone)
    for explainer in (Influence(seed=0), Gradient("features")):
        torch.testing.assert_close(*(explainer.explain(asked).scores for asked in (row(linear(), x, y), row(linear()))))
    for explainer in (Influence(**GGN), Gradient("edges"), Mask("edges", epochs=3, seed=0)):
        torch.testing.assert_close(*(explainer.explain(asked).scores for asked in (node(gcn(), data), node(gcn()))))


def test_a_model_made_under_inference_mode_is_refused_with_the_remedy():
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"'0\.weight'.*copy\.deepcopy\(model\)"):
        explain.wrap(net, task="classification")
    explain.wrap(copy.deepcopy(net), task="classification")


@pytest.mark.parametrize("explainer", [Mask("edges", epochs=3, seed=0), Gradient("edges"), Attention("edges")])
@pytest.mark.parametrize("own", [torch.float32, torch.float64])
def test_the_default_dtype_is_not_the_models(explainer, own):
    data, net = small_graph(), gat().to(own)
    data.x = data.x.to(own)
    usual, target = explainer.explain(node(net, data)).scores, node(net, data)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = explainer.explain(target).scores
    finally:
        torch.set_default_dtype(default)
    torch.testing.assert_close(found, usual)


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
def test_pg_explainer_has_the_models_dtype(own):
    data, net = small_graph(), gat().to(own)
    data.x = data.x.to(own)
    fitted = Mask("edges", method="pg_explainer", epochs=3, seed=0).fit([node(net, data)])
    assert fitted.explain(node(net, data)).scores.isfinite().all()
