"""A curvature is checked by a central difference of first derivatives, and a wrong second derivative is refused."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN

import explain
from explain import Influence, SelfInfluence
from explain.influence.curvature import GaussNewton, Hessian
from explain.influence.differences import hvp_checks
from explain.types import Unsupported
from models.optimum import fit

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 2


class Cube(torch.autograd.Function):
    """``x^3`` whose backward is right and, as it reads a detached ``x``, is not differentiated rightly."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0].detach() ** 2


class Cubed(nn.Module):
    def __init__(self, cube):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.cube = nn.Linear(3, 4), nn.Linear(4, 2), cube

    def forward(self, x):
        return self.b(self.cube(self.a(x)))


class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), activation, nn.BatchNorm1d(8), nn.Linear(8, 2))
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, x):
        return self.net(x) * self.scale + torch.zeros(len(x), 2, dtype=x.dtype)


def asked(net, x=X, y=Y):
    return explain.wrap(net.eval(), task="classification", train=(x, y), weight_decay=0.1).example(x[0], 1)


def checks(net, kind, x=X):
    return hvp_checks(kind(asked(net, x).objective()), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.Softplus()])
def test_right_derivatives_agree_in_the_precision_of_the_model(activation, kind, double):
    net, x = Net(activation), X
    if double:
        net, x = net.double(), x.double()
    found = checks(net, kind, x)
    assert 0 <= found["hvp_error"] < (1e-7 if double else 1e-4)
    assert "hvp_note" not in found


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("weight_decay", [0.01, 0.1])  # the second leaves hardly a weight
def test_at_a_minimum_where_the_gradient_is_rounding_double_precision_still_proves(kind, weight_decay):
    net = fit(Net(nn.Tanh()).double().eval(), X.double(), Y, weight_decay=weight_decay).float()
    assert checks(net, kind)["hvp_error"] < 1e-4


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_where_examples_lie_on_a_kink_it_is_said_and_not_refused(kind, double):
    net = Net(nn.ReLU()).double().eval()
    with torch.no_grad():  # as a minimum often leaves them: each unit's threshold runs through an example
        first = net.net[0]
        first.bias.copy_(-(first.weight * X[:8].double()).sum(1))
    net, x = (net, X.double()) if double else (net.float(), X)
    found = checks(net, kind, x)
    assert "kink" in found["hvp_note"]


@pytest.mark.parametrize("double", [False, True])
def test_a_wrong_second_derivative_is_refused_and_the_plain_form_is_not(double):
    wrong, right, x = Cubed(Cube.apply), Cubed(lambda x: x**3), X
    if double:
        wrong, right, x = wrong.double(), right.double(), x.double()
    given = Influence(curvature="hessian", damping=5.0, seed=0)
    for explainer in (given, SelfInfluence(given)):
        with pytest.raises(Unsupported, match=r"the hessian of this model is wrong.*second derivative.*plain torch"):
            explainer.explain(asked(wrong, x))
    assert given.explain(asked(right, x)).checks["hvp_error"] < 1e-4
    ggn = Influence(curvature="ggn", damping=5.0, seed=0)  # takes first derivatives of the model, which are right
    torch.testing.assert_close(ggn.explain(asked(wrong, x)).scores, ggn.explain(asked(right, x)).scores)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_wrong_hessian_chooses_nothing_and_the_gauss_newton_matrix_needs_none():
    net, plain = Cubed(Cube.apply), Cubed(lambda x: x**3)
    plain.load_state_dict(net.state_dict())
    for given in (Influence(seed=0), Influence(curvature="hessian", damping=5.0, seed=0)):
        with pytest.raises(Unsupported, match=r"the hessian of this model is wrong.*use curvature='ggn'"):
            given.explain(asked(net))
    found, right = (Influence(curvature="ggn", seed=0).explain(asked(each)) for each in (net, plain))
    torch.testing.assert_close(found.scores, right.scores, rtol=1e-4, atol=1e-6)


def test_a_loss_with_a_wrong_second_derivative_is_refused_in_both_curvatures():
    def loss(outputs, labels):
        return Cube.apply(outputs).square().sum(1) + nn.functional.cross_entropy(outputs, labels, reduction="none")

    model = explain.wrap(nn.Linear(3, 2), task="classification", train=(X, Y), weight_decay=0.1, loss=loss)
    for curvature in ("hessian", "ggn"):
        with pytest.raises(Unsupported, match=f"the {curvature} of this model is wrong"):
            Influence(curvature=curvature, damping=50.0, seed=0).explain(model.example(X[0], 1))


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_kink_is_said():
    class Kinked(nn.Module):  # every pre-activation is exactly 0
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
            nn.init.zeros_(self.a.weight)
            nn.init.zeros_(self.a.bias)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    found = Influence(curvature="hessian", damping=5.0, seed=0).explain(asked(Kinked()))
    assert "the loss has a kink here" in found.checks["hvp_note"]


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("net", [GCN(4, 6, 2, 2), GAT(4, 6, 2, 2, heads=2)])
def test_graph_networks(net, kind):
    generator = torch.Generator().manual_seed(0)
    edges, x = torch.randint(0, 8, (2, 20), generator=generator), torch.randn(8, 4, generator=generator)
    data = Data(x=x, edge_index=edges, y=torch.arange(8) % 2, train_mask=torch.ones(8) > 0)
    objective = explain.wrap(net, data, weight_decay=0.1).node(0).objective()
    assert hvp_checks(kind(objective), torch.Generator().manual_seed(0))["hvp_error"] < 1e-4


def test_a_gauss_newton_matrix_of_zero_is_said():
    """-log p is linear in log p: of a function of the user's own nothing tells that logits were meant."""

    def likelihood(outputs, labels):
        return nn.functional.nll_loss(outputs, labels, reduction="none")

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.LogSoftmax(1))
    own, named = (
        explain.wrap(net, task="classification", train=(X, Y), weight_decay=0.1, loss=loss).example(X[0], 1)
        for loss in (likelihood, "cross_entropy")
    )
    with pytest.warns(UserWarning, match=r"Gauss-Newton matrix of this loss is zero.*loss='cross_entropy'"):
        explain.Influence(curvature="ggn", solver="exact").explain(own)
    assert explain.Influence(curvature="ggn", solver="exact").explain(named).checks["lambda_max"] > 0.11
