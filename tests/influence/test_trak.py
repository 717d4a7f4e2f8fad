"""TRAK in paper form, its projection, and D-TRAK."""

import warnings
from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler
from diffusion_cases import digits_like, tiny_net, tiny_unet
from influence_cases import ObjectiveTarget, digits, half_trained, logistic, module_objective
from reference import influence as reference
from torch import nn

import explain
from explain import DTrak, Trak
from explain.diffusion.model import DiffusionModel
from explain.diffusion.objective import draws
from explain.influence.projection import Projection
from explain.types import NonFinite


def asked(objective, **settings):
    return Trak(**{"seed": 0, **settings}).explain(ObjectiveTarget(objective))


def gradient_of_the_number(objective):
    params, theta = reference.flat_function(objective)
    t = theta.clone().requires_grad_()
    return torch.autograd.grad(objective.measurement(params(t)), t)[0]


def test_without_a_projection_it_is_influence_with_the_empirical_fisher_matrix():
    objective = half_trained()
    gradients = reference.loss_gradients(objective)
    fisher = gradients.T @ gradients / objective.size
    damped = fisher + 0.3 * torch.eye(len(fisher), dtype=torch.float64)
    found = asked(objective, dimensions=None, damping=0.3)
    torch.testing.assert_close(found.scores, reference.influence(objective, damped))
    assert found.checks == {"dimensions": 130, "damping": [0.3], "distortion": [0.0]}
    assert found.value == pytest.approx(float(objective.measurement(objective.params)))


def test_the_paper_form_for_classifiers():
    """Park et al. 2023, equation 17: margins, and what is left to learn of each example, with a stored projection."""
    objective = logistic()
    params, theta = reference.flat_function(objective)
    n, k = objective.size, 40
    rows, left = [], []
    for i in range(n):
        t = theta.clone().requires_grad_()
        p = (-objective.train_loss(params(t), torch.tensor([i]))[0]).exp()
        rows.append(torch.autograd.grad((p / (1 - p)).log(), t)[0])
        left.append(1 - p.detach())
    seed = int(torch.randint(2**48, (1,), generator=torch.Generator().manual_seed(0)))
    P = Projection(len(theta), k, seed).down(torch.eye(len(theta), dtype=torch.float64))
    phi = torch.stack(rows) @ P
    expected = (P.T @ gradient_of_the_number(objective)) @ torch.linalg.solve(phi.T @ phi, phi.T) * torch.stack(left)
    found = asked(objective, dimensions=k, features="margin", damping=0)
    torch.testing.assert_close(found.scores, expected)
    assert found.checks["dimensions"] == k


def test_margins_agree_in_sign_with_losses():
    objective = logistic()
    loss, margin = (asked(objective, features=features).scores for features in ("loss", "margin"))
    assert torch.corrcoef(torch.stack([loss, margin]))[0, 1] > 0.4
    exact = reference.influence(objective, reference.hessian(objective))
    assert torch.corrcoef(torch.stack([margin, exact]))[0, 1] > 0.8


def test_a_projection_is_never_stored_and_always_the_same(monkeypatch):
    x = torch.randn(2, 999, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = Projection(999, 64, 5)
    matrix = whole.down(torch.eye(999, dtype=torch.float64))
    assert set((matrix * 8).flatten().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(whole.down(x), x @ matrix)
    y = torch.randn(64, 3, dtype=torch.float64)
    torch.testing.assert_close(whole.up(y), matrix @ y)
    assert not torch.equal(Projection(999, 64, 6).down(x), whole.down(x))
    made = []
    monkeypatch.setattr("explain.influence.projection.MEMORY", 8 * 64 * 100)
    randint = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *given, **named: made.append(given[2]) or randint(*given, **named))
    Projection(999, 64, 5).down(x)
    assert len(made) == 10
    assert max(height for height, _ in made) == 100


def test_projections_keep_dot_products_on_average():
    a, b = torch.randn(2, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = torch.stack([Projection(300, 50, seed).down(torch.stack([a, b])) for seed in range(400)])
    products = (found[:, 0] * found[:, 1]).sum(1)
    assert float(products.mean()) == pytest.approx(float(a @ b), abs=4 * float(products.std()) / 20)


@pytest.mark.parametrize("features", ["loss", "margin", "norm"])
def test_a_result_does_not_depend_on_the_batch_size(features, monkeypatch):
    objective = half_trained()
    whole = asked(objective, dimensions=30, features=features)
    monkeypatch.setattr("explain.influence.example_gradients.MEMORY", 8 * 130 * 7)
    batched = asked(replace(objective, batch_size=7), dimensions=30, features=features)
    torch.testing.assert_close(batched.scores, whole.scores)


def test_several_checkpoints_are_averaged():
    objective = half_trained()
    states = [{name: p * scale for name, p in objective.params.items()} for scale in (0.5, 1.0)]
    both = asked(objective, dimensions=None, checkpoints=states, damping=0.1).scores
    each = [asked(objective, dimensions=None, checkpoints=[state], damping=0.1).scores for state in states]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_features_of_ones_own_are_of_what_the_model_answers():
    x, y, others, _ = digits(30)
    linear, found = nn.Linear(16, 4).double(), []
    answers = {nn.Identity(): lambda z: z.softmax(1).square().sum(1), nn.Softmax(1): lambda p: p.square().sum(1)}
    for end, feature in answers.items():
        model = explain.wrap(nn.Sequential(linear, end), (x, y), task="classification")
        target = model.example(others[0], payoff="log_probability", label=1)
        found.append(Trak(dimensions=None, features=feature, damping=0.1, seed=0).explain(target).scores)
    torch.testing.assert_close(*found)


def test_many_targets_at_once():
    x, y, others, _ = digits()
    torch.manual_seed(0)
    net = nn.Linear(16, 4).double()
    targets = [ObjectiveTarget(module_objective(net, x, y, asked=one[None]), net) for one in others[:6]]
    trak = Trak(dimensions=20, seed=0)
    for found, target in zip(trak.explain_all(targets), targets, strict=True):
        torch.testing.assert_close(found.scores, trak.explain(target).scores)


@pytest.fixture(scope="module")
def denoiser():
    """A denoiser, training images with labels, and an image that is asked about."""
    betas = torch.linspace(1e-3, 0.1, 100)
    model = DiffusionModel(tiny_net().double(), time="step", betas=betas, null=10, shape=(1, 8, 8), draws=3)
    return model, (digits_like(12, seed=2).double(), torch.arange(12) % 10), digits_like()[0].double()


@pytest.mark.parametrize("dimensions", [None, 40])
def test_dtrak_in_paper_form(denoiser, dimensions):
    model, train, x0 = denoiser
    step = model.step(x0, t=[20, 70], label=3, draws=2, seed=4)
    found = DTrak(dimensions=dimensions, damping=0.2, train=train, seed=0).explain(step)

    times, noise = draws(model, x0)
    net = model.denoiser.net
    size = sum(p.numel() for p in net.parameters())
    seed = int(torch.randint(2**48, (1,), generator=torch.Generator().manual_seed(0)))
    P = None if dimensions is None else Projection(size, dimensions, seed).down(torch.eye(size, dtype=torch.float64))

    def noised(i):
        x, e, label = train[0][i], noise, train[1][i]
        xs = model.process.noised(x.expand_as(e), e, times)
        return [(x_t, t, label) for x_t, t in zip(xs, times, strict=True)]

    asked = [(x_t, t, torch.tensor(3)) for x_t, t in zip(step.noised, step.times, strict=True)]
    expected = reference.d_trak(lambda *given: net(*given).sample, 12, asked, noised, 12 * 0.2, P, net)
    torch.testing.assert_close(found.scores, expected)
    assert found.value == pytest.approx(step.value())
    assert found.checks["scores"].startswith("D-TRAK: the mean square of the outputs stands for the error")
    assert found.method == "DTrak"
    assert found.settings["features"] == "norm"


def test_dtrak_is_trak_with_the_norm_on_both_sides(denoiser):
    model, train, x0 = denoiser
    size = Trak(None, features="norm", damping=0.2, train=train).explain(model.step(x0, t=20, label=3, payoff="norm"))
    found = DTrak(None, damping=0.2, train=train).explain(model.step(x0, t=20, label=3))
    # the norm is a sum over the pixels; an image that the size of the prediction falls with is behind a small error
    torch.testing.assert_close(64 * found.scores, -size.scores)
    own = Trak(None, features=lambda outputs: outputs.square().flatten(1).mean(1), damping=0.2, train=train)
    asked = model.step(x0, t=20, label=3, payoff="norm")
    torch.testing.assert_close(own.explain(asked).scores, size.scores)


def test_dtrak_is_of_the_outputs_whatever_they_are(denoiser):
    """Of a v-prediction the outputs too, on both sides; without guidance, as training is; and at a checkpoint."""
    _, train, x0 = denoiser
    betas = torch.linspace(1e-3, 0.1, 100)
    given = {"time": "step", "betas": betas, "null": 10, "shape": (1, 8, 8), "draws": 3}
    model = DiffusionModel(tiny_net().double(), prediction_type="v_prediction", **given)
    found = DTrak(None, damping=0.2, train=train)
    plain, guided = (found.explain(model.step(x0, t=20, label=3, guidance=w)).scores for w in (1.0, 5.0))
    torch.testing.assert_close(plain, guided)
    epsilon = DiffusionModel(tiny_net().double(), prediction_type="epsilon", **given)
    torch.testing.assert_close(plain, found.explain(epsilon.step(x0, t=20, label=3)).scores)
    state = {name: 0.5 * value for name, value in model.denoiser.net.state_dict().items()}
    other = DTrak(None, damping=0.2, train=train, checkpoints=[state]).explain(model.step(x0, t=20, label=3))
    halved = DiffusionModel(tiny_net().double(), **given)
    halved.denoiser.net.load_state_dict(state)
    torch.testing.assert_close(other.scores, found.explain(halved.step(x0, t=20, label=3)).scores)


def test_dtrak_asks_about_the_loss_and_nothing_else(denoiser):
    model, train, x0 = denoiser
    for payoff in ("norm", "x0", lambda x0_hat: x0_hat.mean((1, 2, 3))):
        with pytest.raises(
            ValueError, match=r"stands for the loss, .* ask model.step\(x0, t=\[...\], payoff='error'\)"
        ):
            DTrak(train=train).explain(model.step(x0, t=20, label=3, payoff=payoff))
    x, y, others, labels = digits()
    torch.manual_seed(0)
    example = explain.wrap(nn.Linear(16, 4).double(), (x, y), task="classification").example
    loss = DTrak(None, seed=0).explain(example(others[0], label=int(labels[0]), payoff="loss"))
    twin = DTrak(None, seed=0, train=(others[:1], labels[:1])).explain(
        example(others[0], label=int(labels[0]), payoff="loss")
    )
    assert loss.scores.shape == (200,)
    assert float(twin.scores) < 0  # learned from itself: its loss is lower for it
    with pytest.raises(ValueError, match=r"got 'd-trak'; explain.Trak and explain.DTrak are explainers of their own"):
        explain.Influence(solver="d-trak")


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("dimensions must be at least 1", {"dimensions": 0}),
        ("features must be one of loss, margin, norm or a function", {"features": "logit"}),
        ("damping must be auto", {"damping": -1.0}),
        ("damping must be auto", {"damping": "some"}),
        ("no checkpoints", {"checkpoints": []}),
    ],
)
def test_settings(message, settings):
    with pytest.raises(ValueError, match=message):
        Trak(**settings)


def test_what_it_cannot_do():
    with pytest.raises(ValueError, match="30 gradients in 130 dimensions is singular"):
        asked(half_trained(), dimensions=None, damping=0.0)
    with pytest.raises(ValueError, match=r"features must give one number an example, \[\d+\], got"):
        asked(half_trained(), features=lambda outputs: outputs)
    x, y, others, _ = digits()
    sure = nn.Linear(16, 4).double()
    with torch.no_grad():
        sure.weight *= 1e5
    with pytest.raises(NonFinite, match="use features='loss'"):
        asked(module_objective(sure, x, y, asked=others[:1]), features="margin")


def test_on_the_nodes_of_a_graph_and_through_attention():
    import explain
    from explain import Influence, TracIn
    from explain.influence import Ekfac
    from models.datasets import karate_club
    from models.gcn import GCN

    torch.manual_seed(0)
    data = karate_club(labelled=3)
    data.x = data.x.double()
    node = explain.wrap(GCN(34, 4, hidden=3).double().eval(), data, weight_decay=0.1).node(5)
    objective = node.objective()
    gradients = reference.loss_gradients(objective)
    fisher = gradients.T @ gradients / objective.size
    fisher = fisher + 0.1 * torch.eye(len(fisher), dtype=torch.float64)
    found = Trak(dimensions=None, damping=0.1).explain(node)
    torch.testing.assert_close(found.scores, reference.influence(objective, fisher))
    assert found.players.names[0].startswith("node")

    few = digits_like(3, seed=1), torch.tensor([1, 2, 3])
    unet = DiffusionModel(tiny_unet(), scheduler=DDPMScheduler(100), null=10, draws=2)
    step = unet.step(digits_like()[0], t=20, label=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the inverse is loose|the model is not at a minimum")
        engine = Influence(few, solver=Ekfac(samples=1), curvature="ggn", damping=1.0, seed=0)
        whys = [one.explain(step) for one in (Trak(64, train=few, seed=0), TracIn(train=few), engine)]
    assert all(why.scores.isfinite().all() and why.scores.any() for why in whys)
    assert whys[2].checks["layers"] > 15
