"""Models outside of torch.func, and operations whose fused form is not differentiated twice: the plain function's."""

import pytest
import torch
from torch import nn
from torch.backends import mkldnn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_mean_pool

import explain
from explain import Influence, SelfInfluence

ASKED = {"damping": 1.0, "curvature": "hessian", "seed": 0}


class OldTanh(torch.autograd.Function):
    """Written as before torch.func: no ``setup_context``."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.o(torch.tanh(self.a(x)))


class OldFunction(Plain):
    def forward(self, x):
        return self.o(OldTanh.apply(self.a(x)))


class Item(Plain):
    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() > -1e9 else 2.0)


class Branch(Plain):
    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.o(h) if (h <= 1).all() else self.o(2 * h)


class Numpy(Plain):
    def forward(self, x):
        return super().forward(x * torch.from_numpy(1 + 0 * x.detach().numpy()))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.o = kind(1, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.o(self.layer(x[..., None])[0][:, -1])


def data():
    torch.manual_seed(0)
    return torch.randn(20, 3), torch.randint(2, (20,))


def target(net, weight_decay=0.5):
    x, y = data()
    return explain.wrap(net.eval(), task="classification", train=(x, y), weight_decay=weight_decay).example(
        x[0] + 0.1, 1
    )


def by_hand(net, x, y, asked, weight_decay=0.5, damping=1.0):
    """Scores and self-influence by the whole Hessian, by double backward in float64."""
    net, x = net.double(), x.double()
    params = list(net.parameters())

    def row(value, **options):
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, params, materialize_grads=True, **options)])

    before = mkldnn.set_flags(False, None, None, None)[0]  # its fused recurrent layers have no second derivative
    try:
        losses = cross_entropy(net(x), y, reduction="none")
        first = row(losses.mean(), create_graph=True)
        H = torch.stack([row(g, retain_graph=True) for g in first])
        H += (weight_decay + damping) * torch.eye(len(H), dtype=H.dtype)
        each = torch.stack([row(loss, retain_graph=True) for loss in losses])
        number = row(net(asked.double()[None])[0, 1])
    finally:
        mkldnn.set_flags(before, None, None, None)
    return -each @ torch.linalg.solve(H, number) / len(x), (each * torch.linalg.solve(H, each.T).T).sum(1) / len(x)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
@pytest.mark.parametrize("kind", [OldFunction, Item, Branch, Numpy, nn.LSTM, nn.GRU])
def test_a_forward_outside_of_torch_func_is_differentiated_one_by_one(kind):
    recurrent = issubclass(kind, nn.RNNBase)
    torch.manual_seed(1)
    net = Recurrent(kind) if recurrent else kind()
    asked = target(net)
    whys = [Influence(solver=solver, **ASKED).explain(asked) for solver in ("exact", "cg")]
    own = SelfInfluence(Influence(solver="exact", **ASKED)).explain(asked)
    plain = net if recurrent else Plain()
    plain.load_state_dict(net.state_dict())
    scores, self_influence = by_hand(plain, *data(), asked.x)
    for why in whys:
        assert torch.allclose(why.scores, scores, rtol=1e-4, atol=1e-6)
    assert torch.allclose(own.scores, self_influence, rtol=1e-4, atol=1e-6)
    reasons = {
        OldFunction: "loop: an autograd.Function without setup_context is called",
        Item: "loop: a number is read out of a tensor or its shape",
        Branch: "loop: a number is read out of a tensor or its shape",  # all() of it, within grad
        Numpy: "loop: a tensor is taken out of torch (numpy, tolist)",
    }
    assert recurrent or own.checks["per_example"] == reasons[kind]


class Normed(nn.Module):
    def __init__(self, norm, **options):
        super().__init__()
        self.a, self.o = norm(nn.Linear(3, 4), **options), nn.Linear(4, 2)

    def forward(self, x):
        return self.o(torch.tanh(self.a(x)))


class NormedByHand(nn.Module):
    """The same function of the same parameters, in plain operations."""

    def __init__(self, net, g, v, dim):
        super().__init__()
        self.b, self.g, self.v, self.o, self.dim = net.a.bias, g, v, net.o, dim

    def forward(self, x):
        norm = self.v.norm() if self.dim is None else self.v.norm(dim=1 - self.dim, keepdim=True)
        return self.o(torch.tanh(nn.functional.linear(x, self.g * self.v / norm, self.b)))


@pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:`torch.nn.utils.weight_norm`")
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_normalisation_has_the_hessian_of_its_function(old, dim):
    torch.manual_seed(2)
    net = Normed(nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm, dim=dim)
    before = {name: p.clone() for name, p in net.state_dict().items()}
    asked = target(net)
    why = Influence(solver="exact", **ASKED).explain(asked)
    part = None if old else net.a.parametrizations.weight
    g, v = (net.a.weight_g, net.a.weight_v) if part is None else (part.original0, part.original1)
    scores, _ = by_hand(NormedByHand(net, g, v, dim), *data(), asked.x)
    assert torch.allclose(why.scores, scores, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(p, before[name].to(p)) for name, p in net.float().state_dict().items())


class Summed(Plain):
    def forward(self, x):
        return self.o(torch.logcumsumexp(self.a(x), 1))


class SummedByHand(Plain):
    def forward(self, x):
        return self.o(self.a(x).exp().cumsum(1).log())


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
@pytest.mark.parametrize("solver", ["exact", "cg"])
def test_derivatives_that_are_not_finite_at_zero_are_taken_elsewhere(solver):
    torch.manual_seed(3)
    net, plain = Summed(), SummedByHand()
    plain.load_state_dict(net.state_dict())
    asked = target(net)
    scores, _ = by_hand(plain, *data(), asked.x)
    for curvature in ("hessian", "ggn"):
        why = Influence(solver=solver, **(ASKED | {"curvature": curvature})).explain(asked)
        assert curvature == "ggn" or torch.allclose(why.scores, scores, rtol=1e-4, atol=1e-6)


class Molecules(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.o = GCNConv(3, 4), nn.Linear(4, 2)

    def forward(self, x, edge_index, batch):
        return self.o(global_mean_pool(torch.tanh(self.c(x, edge_index)), batch))


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_the_defaults_answer_for_a_graph_classifier():
    torch.manual_seed(0)
    net = Molecules()
    graphs = [
        Data(x=torch.randn(5, 3), edge_index=torch.randint(0, 5, (2, 12)), y=torch.tensor([i % 2])) for i in range(6)
    ]
    asked = explain.wrap(net, graphs, weight_decay=0.5).graph(2, label=1)
    why = Influence(solver="exact", **ASKED).explain(asked)
    own = SelfInfluence(Influence(solver="exact", **ASKED)).explain(asked)
    assert own.checks["per_example"] == "loop: a tensor is taken out of torch (numpy, tolist)"
    x = torch.stack([graph.x for graph in graphs])

    class Stacked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):  # all graphs, or the asked one alone
            chosen = graphs if len(x) > 1 else [graphs[2]]
            edges = torch.cat([graph.edge_index + 5 * i for i, graph in enumerate(chosen)], 1)
            return self.net(x.reshape(-1, 3), edges, torch.arange(len(chosen)).repeat_interleave(5))

    scores, self_influence = by_hand(Stacked(), x, torch.arange(6) % 2, graphs[2].x)
    assert torch.allclose(why.scores, scores, rtol=1e-4, atol=1e-6)
    assert torch.allclose(own.scores, self_influence, rtol=1e-4, atol=1e-6)
    net.float()
    for explainer in (Influence(), SelfInfluence()):
        assert explainer.explain(asked).scores.isfinite().all()
