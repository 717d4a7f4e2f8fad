"""K-FAC and EK-FAC: in paper form, where they are exact, and what they do with other layers."""

import warnings
from dataclasses import replace

import pytest
import torch
from diffusion_cases import digits_like, tiny_net
from influence_cases import ObjectiveTarget, digits, logistic, module_objective
from reference import influence as reference
from torch import nn

import explain
from explain.diffusion.model import DiffusionModel
from explain.influence import Ekfac, GaussNewton, Indefinite, Influence, Kfac
from explain.influence.directions import directions
from explain.influence.layers import matrix, watched
from explain.types import Unsupported

BOTH = [Kfac(), Ekfac()]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def objective_of(net, count=40, y=None, **options):
    x, labels, others, _ = digits()
    y = labels[:count] if y is None else y
    made = module_objective(net.double(), x[:count], y, asked=others[:1], **{"weight_decay": 0.01, **options})
    return replace(made, module=net)


def approximated(solver, objective):
    """The matrix whose inverse the solver applies, without penalty and damping."""
    A = GaussNewton(objective)
    inverse = solver.solve(A, torch.eye(A.size), None, generator()).x
    return torch.linalg.inv(inverse) - objective.weight_decay * torch.eye(A.size, dtype=torch.float64)


@pytest.fixture(scope="module")
def two_layers():
    torch.manual_seed(0)
    return objective_of(nn.Sequential(nn.Linear(16, 3), nn.Tanh(), nn.Linear(3, 4)))


@pytest.mark.filterwarnings("ignore:the inverse is loose", "ignore:the model is not at a minimum")
@pytest.mark.parametrize("solver", ["kfac", "ekfac", *BOTH])
def test_no_other_matrix_is_measured_than_the_one_it_approximates(two_layers, solver, monkeypatch):
    given = Influence(solver=solver, seed=0)
    monkeypatch.setattr("explain.influence.solvers.choice.Hessian", None)  # would be called
    found = given.explain(ObjectiveTarget(two_layers, two_layers.module))
    name = solver if isinstance(solver, str) else solver.name
    assert (found.checks["curvature"], found.checks["why_curvature"]) == ("ggn", f"what {name} approximates")
    assert found.checks["hessian_lambda_min"] is None


@pytest.fixture(scope="module")
def convolutions():
    torch.manual_seed(0)
    return objective_of(
        nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 2, 3, padding=1, stride=2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.LayerNorm(8),
            nn.Linear(8, 4),
        )
    )


@pytest.mark.parametrize("solver", BOTH, ids=repr)
def test_one_layer_and_squares_are_exact(solver):
    """The Gauss-Newton matrix is then a Kronecker product: a transposed eigenvector would show at once."""
    targets = torch.randn(40, 3, dtype=torch.float64, generator=generator(1))
    objective = objective_of(nn.Linear(16, 3), y=targets)
    torch.testing.assert_close(
        approximated(solver, objective), reference.gauss_newton(objective) - 0.01 * torch.eye(51), check_dtype=False
    )
    A, b = GaussNewton(objective), torch.randn(51, 2, dtype=torch.float64, generator=generator(2))
    found = solver.solve(A, b, None, generator())
    assert found.residual < 1e-9
    one = solver.solve(A, b[:, 1], None, generator())
    torch.testing.assert_close(one.x, found.x[:, 1])


def paper_form(objective, corrected):
    """Block by block, with the second layer's inputs computed by hand."""
    x, _, _, _ = digits()
    net = objective.module
    seen = {"0": lambda i: x[i], "2": lambda i: net[1](net[0](x[i])).detach()}
    blocks = []
    for name, inputs in seen.items():
        a_l, g_l = reference.kronecker(objective, inputs, f"{name}.bias")
        values = torch.linalg.eigvalsh(g_l)[:, None] * torch.linalg.eigvalsh(a_l)
        if corrected:
            values = reference.corrected_eigenvalues(objective, a_l, g_l, f"{name}.weight", f"{name}.bias")
        basis = torch.kron(torch.linalg.eigh(g_l)[1], torch.linalg.eigh(a_l)[1])
        block = basis @ torch.diag(values.reshape(-1)) @ basis.T  # rows: out, then in + 1
        order = torch.arange(values.numel()).view(values.shape)
        order = torch.cat([order[:, :-1].reshape(-1), order[:, -1]])  # as the parameters come: weight, then bias
        blocks.append(block[order][:, order])
    return torch.block_diag(*blocks)


@pytest.mark.parametrize("solver", BOTH, ids=repr)
def test_paper_form(solver, two_layers):
    expected = paper_form(two_layers, solver.corrected)
    torch.testing.assert_close(approximated(solver, two_layers), expected, rtol=1e-6, atol=1e-9)


def test_the_correction_comes_closer(two_layers, convolutions):
    """Of all diagonals in that basis it is the nearest (George et al. 2018, proposition 1)."""
    for objective in (two_layers, convolutions):
        whole = reference.gauss_newton(objective) - 0.01 * torch.eye(GaussNewton(objective).size)
        plain, corrected = (approximated(solver, objective) for solver in BOTH)
        distances = []
        for found in (plain, corrected):
            on_blocks = torch.where(found.abs() > 1e-12, whole, 0.0)
            distances.append(float((found - on_blocks).norm()))
        assert distances[1] < distances[0]
        assert float(corrected.trace()) == pytest.approx(float(whole.trace()))


def test_other_parameters_get_their_diagonal(convolutions):
    whole = reference.gauss_newton(convolutions)
    start = sum(convolutions.params[name].numel() for name in ("1.weight", "1.bias"))
    norm = slice(start, start + 16)
    expected = torch.diag(torch.diag(whole)[norm] - 0.01)
    for solver in BOTH:
        found = approximated(solver, convolutions)
        torch.testing.assert_close(found[norm, norm], expected)
        assert not found[norm, :start].abs().max() > 1e-9
        checks = solver.solve(GaussNewton(convolutions), torch.ones(72), None, generator()).checks
        assert checks == {"layers": 2, "kronecker_parameters": 56, "diagonal_parameters": 16}


@pytest.mark.parametrize("solver", BOTH, ids=repr)
def test_a_result_does_not_depend_on_the_batch_size(solver, convolutions):
    batched = replace(convolutions, batch_size=7)
    torch.testing.assert_close(approximated(solver, batched), approximated(solver, convolutions))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (5, 6)),
        (nn.Linear(6, 4, bias=False), (5, 3, 6)),
        (nn.Conv2d(2, 3, 3, padding=1, stride=2), (5, 2, 6, 7)),
        (nn.Conv2d(2, 3, (2, 3), padding="same", dilation=2), (5, 2, 6, 7)),
        (nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular", bias=False), (5, 2, 6, 7)),
        (nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), (5, 2, 9)),
        (nn.Conv1d(2, 3, 4, padding="valid", stride=3), (5, 2, 9)),
    ],
    ids=repr,
)
def test_rows_times_the_matrix_are_the_outputs(layer, shape):
    x = torch.randn(shape, generator=generator())
    params = {name: p.detach() for name, p in layer.named_parameters()}

    class Asked:
        module = layer

        def __init__(self):
            self.params = params

        def outputs(self, p, batch):
            return torch.func.functional_call(layer, p, (x[batch],))

    outputs, uses = watched(Asked(), torch.arange(5))
    (use,) = uses
    expected = use.rows() @ matrix(params, use.name).double().T
    torch.testing.assert_close(use.output_rows(outputs.detach()), expected, rtol=1e-4, atol=1e-5)
    assert not layer._forward_hooks


def test_directions_make_up_the_hessian_of_the_loss(two_layers):
    batch = torch.arange(6)
    outputs = two_layers.outputs(two_layers.params, batch)
    expected = outputs.softmax(1).diag_embed() - outputs.softmax(1)[:, :, None] * outputs.softmax(1)[:, None]
    every = sum(z[:, :, None] * z[:, None] for z in directions(two_layers, outputs, batch, None, generator()))
    torch.testing.assert_close(every, expected)
    some = sum(z[:, :, None] * z[:, None] for z in directions(two_layers, outputs, batch, 4000, generator()))
    torch.testing.assert_close(some, expected, rtol=0, atol=0.02)


def test_many_outputs_are_sampled():
    """The 2 x 64 outputs of an image: the matrix is right on average."""
    model = DiffusionModel(
        tiny_net().double(),
        time="step",
        betas=torch.linspace(1e-3, 0.1, 100),
        shape=(1, 8, 8),
        draws=2,
        weight_decay=0.1,
    )
    train = digits_like(4, seed=2).double(), torch.tensor([1, 0, 3, 3])
    step = model.step(digits_like()[0].double(), t=20, label=3)
    objective = step.objective(train)
    whole = float((reference.gauss_newton(objective).diag() - 0.1).sum())
    assert float(approximated(Ekfac(samples=30), objective).trace()) == pytest.approx(whole, rel=0.05)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the inverse is loose|the model is not at a minimum")
        found = Influence(train=train, solver="ekfac", curvature="ggn", damping=0.1, seed=0).explain(step)
    assert found.checks["layers"] == 2
    assert found.checks["diagonal_parameters"] == 88  # the embedding of the labels


def test_layers_of_graph_networks_are_found_by_what_they_do():
    from models.datasets import karate_club
    from models.gcn import GCN

    torch.manual_seed(0)
    data = karate_club(labelled=2)
    model = explain.wrap(GCN(34, 4, hidden=3).double().eval(), _doubled(data), weight_decay=0.1)
    objective = model.node(5).objective()
    whole = reference.gauss_newton(objective).diag() - 0.1
    found = approximated(Ekfac(samples=60), objective)
    assert float(found.trace()) == pytest.approx(float(whole.sum()), rel=0.15)
    A = GaussNewton(objective)
    assert Kfac().solve(A, torch.ones(A.size), None, generator()).checks["layers"] == 2


def _doubled(data):
    data = data.clone()
    data.x = data.x.double()
    return data


def test_a_layer_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.layer(self.layer(x).tanh()))

    objective = objective_of(Twice(), count=10)
    found = Ekfac().solve(GaussNewton(objective), torch.ones(340), None, generator())
    assert found.checks["layers"] == 2
    assert found.x.isfinite().all()


def test_by_name_with_the_true_residual(two_layers):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the inverse is loose|the model is not at a minimum")
        whys = {
            name: Influence(solver=name, curvature="ggn", damping=0.1, seed=0).explain(ObjectiveTarget(two_layers))
            for name in ("kfac", "ekfac", "exact")
        }
    for name in ("kfac", "ekfac"):
        assert whys[name].checks["residual"] > 0.01
        assert torch.corrcoef(torch.stack([whys[name].scores, whys["exact"].scores]))[0, 1] > 0.9


def test_what_it_cannot_do(two_layers):
    with pytest.raises(Unsupported, match="no `module`"):
        Kfac().solve(GaussNewton(logistic()), torch.ones(68), None, generator())
    A = GaussNewton(replace(two_layers, weight_decay=0.0))
    with pytest.raises(Indefinite, match="damping="):
        Kfac().solve(A, torch.ones(A.size), None, generator())
    with pytest.raises(ValueError, match="samples must be at least 1"):
        Ekfac(samples=0)
