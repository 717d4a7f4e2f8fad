"""H @ v and GGN @ v against whole matrices by autograd."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from influence_cases import digits, half_trained, logistic, module_objective
from reference import influence as reference
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

import explain
from explain.influence import GaussNewton, Hessian
from explain.influence.solvers.choice import choose_solver
from explain.influence.spectrum import extreme_eigenvalues, largest_of
from explain.training import TrainingObjective, trainable
from explain.types import NonFinite, Players, Unsupported


def vectors(count, columns=None, seed=0):
    shape = (count,) if columns is None else (count, columns)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def agrees(objective, tolerance=1e-10):
    block = vectors(Hessian(objective).size, 9)
    for kind, slow in ((Hessian, reference.hessian), (GaussNewton, reference.gauss_newton)):
        with sdpa_kernel(SDPBackend.MATH):  # for the slow one: the fused kernel has no second derivative
            expected = slow(objective)
        for v in (block, block[:, 0], block[:, :2]):
            error = (kind(objective) @ v - expected @ v).norm() / (expected @ v).norm()
            assert error < tolerance, (kind.name, v.shape, float(error))


def test_products_are_those_of_the_whole_matrix():
    agrees(half_trained())


def test_the_penalty_is_in_it_and_damping_is_added():
    objective = half_trained()
    v = vectors(Hessian(objective).size)
    expected = reference.hessian(objective) @ v + 0.3 * v
    assert (Hessian(objective, 0.3) @ v).allclose(expected)
    assert (Hessian(objective).damped(0.3) @ v).allclose(expected)
    assert Hessian(objective, 0.3).dense().allclose(reference.hessian(objective) + 0.3 * torch.eye(len(v)).double())


def test_gauss_newton_of_a_linear_model_is_the_hessian():
    objective = logistic()
    v = vectors(68, 3)
    assert (GaussNewton(objective) @ v).allclose(Hessian(objective) @ v)


ENDS = {  # the same network with its softmax or sigmoids in the loss, in the network, or in it with a logarithm
    "softmax": (4, "cross_entropy", ((), (nn.Softmax(1),), (nn.LogSoftmax(1),))),
    "sigmoid": (1, "bce", ((), (nn.Sigmoid(),), (nn.LogSigmoid(),))),
    "sigmoids": (4, "bce", ((), (nn.Sigmoid(),), (nn.LogSigmoid(),))),
}


@pytest.mark.parametrize("end", ENDS)
def test_gauss_newton_does_not_ask_whether_the_softmax_is_in_the_network_or_in_the_loss(end):
    x, y, others, _ = digits(30)
    count, loss, ends = ENDS[end]
    y = F.one_hot(y, 4) if end == "sigmoids" else y if count == 4 else y % 2
    torch.manual_seed(0)
    layers = (nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, count))
    nets = [nn.Sequential(*layers, *end).double() for end in ends]
    objectives = [
        explain.wrap(net, (x, y), task="classification", loss=loss).example(others[0], label=1).objective()
        for net in nets
    ]
    v = vectors(GaussNewton(objectives[0]).size, 3)
    one, everyone = objectives[0], torch.arange(30)
    expected = GaussNewton(one) @ v
    assert expected.abs().max() > 0.01
    for other in objectives[1:]:
        torch.testing.assert_close(GaussNewton(other) @ v, expected)
        torch.testing.assert_close(Hessian(other) @ v, Hessian(one) @ v)
        torch.testing.assert_close(other.train_loss(one.params, everyone), one.train_loss(one.params, everyone))
        torch.testing.assert_close(other.unlinked.outputs(one.params, everyone), other.predict(one.params, everyone))


def test_once_the_matrix_is_made_products_use_it():
    A = Hessian(half_trained())
    v = vectors(A.size, 2)
    before = A @ v
    A.dense()
    spent = A.products
    assert (A.damped(0.0) @ v).allclose(before)
    assert A.products == spent


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
@pytest.mark.parametrize("batch_size", [1, 7, 29, 30])
def test_the_batch_size_changes_nothing(kind, batch_size):
    objective = half_trained()
    v = vectors(kind(objective).size, 3)
    expected = kind(objective) @ v
    assert (kind(replace(objective, batch_size=batch_size)) @ v).allclose(expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_batches_of_their_own_for_each_repeat(kind):
    A = kind(half_trained(), damping=0.1)
    batches = torch.randint(30, (5, 8), generator=torch.Generator().manual_seed(1))
    block = vectors(A.size, 10).T.reshape(5, A.size, 2)
    expected = torch.stack([A.on(batch) @ columns for batch, columns in zip(batches, block, strict=True)])
    assert A.sampled(batches, block).allclose(expected)
    assert A.sampled(batches, block[..., :1]).allclose(expected[..., :1])


def test_the_mean_over_batches_is_the_whole():
    A = Hessian(half_trained())
    v = vectors(A.size)
    each = torch.stack([A.on(torch.tensor([i])) @ v for i in range(30)])
    assert each.mean(0).allclose(A @ v)


def test_batch_norm_as_in_evaluation_frozen_and_tied():
    torch.manual_seed(0)
    x, y, others, _ = digits(30)
    net = nn.Sequential(nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 4)).double()
    net(x)  # running statistics that are not the batch's
    net.eval()
    net[3].bias = net[0].bias
    net[4].bias.requires_grad_(False)
    objective = module_objective(net, x, y, asked=others[:1])
    assert Hessian(objective).size == 16 * 5 + 5 + 5 + 5 + 25 + 20
    agrees(objective)


@pytest.mark.parametrize("layer", [GCNConv, SAGEConv, lambda i, o: GATConv(i, o, heads=2, concat=False)])
def test_graph_layers(layer):
    torch.manual_seed(0)
    edges = torch.randint(12, (2, 40))
    x, y, train = torch.randn(12, 3).double(), torch.randint(2, (12,)), torch.tensor([0, 3, 5, 8])
    first, last = layer(3, 4).double(), layer(4, 2).double()
    net = nn.ModuleList([first, last])

    def forward(params):
        hidden = torch.func.functional_call(first, {k[2:]: v for k, v in params.items() if k[0] == "0"}, (x, edges))
        return torch.func.functional_call(
            last, {k[2:]: v for k, v in params.items() if k[0] == "1"}, (hidden.tanh(), edges)
        )

    objective = TrainingObjective(
        trainable(net),
        Players("train", train),
        lambda p, at: forward(p)[train[at]],
        y[train],
        lambda p: forward(p)[7, 1],
    )
    agrees(objective)


def test_attention_although_its_fused_kernels_have_no_second_derivative():
    torch.manual_seed(0)
    x, y, others, _ = digits(3)
    body = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True)
    net = nn.Sequential(nn.Unflatten(1, (4, 4)), body, nn.Flatten(), nn.Linear(16, 4)).double().eval()
    agrees(module_objective(net, x, y, asked=others[:1]))


def test_the_usual_squared_error_of_torch():
    """``jvp(grad(F.mse_loss))`` raises in torch 2.13."""
    x, _, others, _ = digits(20)
    net = nn.Sequential(nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 2)).double()

    def loss(outputs, labels):
        return F.mse_loss(outputs, labels, reduction="none").mean(1)

    agrees(module_objective(net, x, x[:, :2].clone(), asked=others[:1], loss_of=loss))


def test_an_operation_without_a_second_derivative_is_named():
    def predict(params, at):
        return torch.segment_reduce(params["p"], "sum", lengths=torch.tensor([2, 3]))[at][:, None]

    objective = TrainingObjective(
        {"p": torch.rand(5)}, Players("train", torch.arange(2)), predict, torch.zeros(2), lambda p: p["p"].sum()
    )
    for kind in (Hessian, GaussNewton):
        with pytest.raises(Unsupported, match=r"second derivatives.*_segment_reduce_backward"):
            kind(objective) @ torch.ones(5)


def test_wrong_shapes_and_values():
    A = Hessian(half_trained())
    with pytest.raises(ValueError, match=rf"\[{A.size}\] or \[{A.size}, k\]"):
        A @ torch.ones(3)
    x, y, others, _ = digits(5)
    spoilt = x.clone()
    spoilt[2, 1] = torch.nan
    broken = Hessian(module_objective(nn.Linear(16, 4).double(), spoilt, y, asked=others[:1]))
    with pytest.raises(NonFinite, match="second derivative"):
        broken @ torch.ones(broken.size)


def test_a_float32_model_is_summed_in_float64():
    torch.manual_seed(0)
    x, y, others, _ = digits(40)
    net = nn.Sequential(nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 4))
    A = Hessian(module_objective(net, x.float(), y, asked=others[:1].float(), batch_size=7))
    v = vectors(A.size)
    expected = reference.hessian(module_objective(net.double(), x, y, asked=others[:1])) @ v
    assert (A @ v).dtype == torch.float64
    assert ((A @ v) - expected).norm() < 1e-5 * expected.norm()


def test_linearisations_are_kept_within_a_memory_budget(monkeypatch):
    objective = replace(half_trained(), batch_size=7)
    v = vectors(Hessian(objective).size)
    kept, lean = Hessian(objective), Hessian(objective)
    first = kept @ v
    assert len(kept._kept.linear) == 5
    assert (kept @ v).equal(first)
    monkeypatch.setattr("explain.influence.curvature.MEMORY", 1000)
    assert (lean @ v).allclose(first, rtol=1e-12)
    assert not lean._kept.linear
    assert (lean @ v).allclose(first, rtol=1e-12)


def test_outputs_that_are_linear_in_the_parameters_are_noticed():
    assert Hessian(logistic()).gauss_newton
    assert Hessian(logistic()).floor == pytest.approx(0.01)
    assert Hessian(replace(logistic(), convex=False)).floor is None
    assert not Hessian(half_trained()).gauss_newton
    assert Hessian(half_trained()).floor is None
    assert GaussNewton(half_trained(), 0.2).floor == pytest.approx(0.201)


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_first_example_that_is_all_zeros_does_not_make_a_network_linear(batch_size):
    """Without biases its outputs are zero, whatever the parameters."""
    x, y, others, _ = digits(30)
    x = x * (torch.arange(30) > 0)[:, None]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 5, bias=False), nn.Tanh(), nn.Linear(5, 4, bias=False)).double()
    assert not Hessian(module_objective(net, x, y, asked=others[:1], batch_size=batch_size)).gauss_newton


def test_a_linear_head_is_assembled_without_products():
    for objective in (logistic(), replace(logistic(), batch_size=33), logistic().edited(4)):
        A = Hessian(objective, 0.1)
        expected = reference.hessian(objective) + 0.1 * torch.eye(68, dtype=torch.float64)
        assert A.dense().allclose(expected, atol=1e-14)
        assert A.products == 0
    A = GaussNewton(half_trained())  # outputs share the parameters of the first layer
    assert A.dense().allclose(reference.gauss_newton(half_trained()))
    assert A.products == A.size


def test_a_matrix_whose_products_cost_too_much_is_not_made(monkeypatch):
    objective, generator = half_trained(), torch.Generator().manual_seed(0)
    dense = extreme_eigenvalues(Hessian(objective), generator)
    assert choose_solver("auto", GaussNewton(objective, 0.1))[0].name == "exact"
    assert dense.how == "dense"
    monkeypatch.setattr("explain.influence.curvature.WORK", 0)
    solver, why = choose_solver("auto", GaussNewton(objective, 0.1))
    found = extreme_eigenvalues(Hessian(objective), generator)
    assert solver.name == "cg"
    assert "a product takes" in why
    assert found.how == "lanczos"
    assert found.smallest == pytest.approx(dense.smallest, rel=1e-3)
    assert found.largest == pytest.approx(dense.largest, rel=1e-3)


def test_the_whole_matrix_is_made_where_it_costs_less_than_the_solutions_asked_for(monkeypatch):
    A = GaussNewton(half_trained(), 0.1)
    monkeypatch.setattr("explain.influence.solvers.choice.DIRECT", 10)
    few = choose_solver("auto", A, columns=5)
    many, why = choose_solver("auto", A, columns=100, blocks=6)
    assert few[0].name == "cg"
    assert many.name == "exact"
    assert why == f"600 right-hand sides are worth the whole matrix of {A.size} parameters"
    monkeypatch.setattr("explain.influence.solvers.choice.MATRIX", 8 * A.size**2 - 1)
    assert choose_solver("auto", A, columns=100, blocks=6)[0].name == "cg"


def test_the_largest_eigenvalue_of_a_matrix_of_zeros_is_zero():
    """The Hessian of a loss that is flat but for weight decay, turned round: ARPACK calls it an error."""
    generator = torch.Generator().manual_seed(0)
    assert largest_of(torch.zeros_like, 40, generator) == (0.0, 0.0)
    assert largest_of(lambda v: 3 * v, 40, generator)[0] == pytest.approx(3)
