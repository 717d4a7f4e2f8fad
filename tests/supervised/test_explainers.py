"""Every explainer on tables and images: known answers, second opinions, and nothing left behind."""

import random
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from reference.shapley import by_pairs, of_masks
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from explain.comparison import compare
from explain.gradient import Gradient
from explain.influence import Influence
from explain.lime import Lime
from explain.shapley import Shapley
from explain.supervised import SupervisedModel
from explain.training import TrainingObjective, trainable
from explain.types import NonFinite, Players

FEATURES = 7


def small_net(outputs, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, outputs)).to(dtype).eval()


def some_rows(count=12):
    return torch.randn(count, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("baseline", ["zeros", "background", "conditional"])
def test_shapley_is_the_brute_force(task, baseline):
    rows = some_rows()
    model = SupervisedModel(small_net(3 if task == "classification" else 1), task=task, background=rows)
    target = model.example(rows[0] * 2, baseline=baseline)
    why = Shapley("features", estimator="exact").explain(target)
    expected = by_pairs(cache(of_masks(target.game("features"), FEATURES)), FEATURES)
    torch.testing.assert_close(why.scores, expected, rtol=1e-6, atol=1e-12)
    assert why.scores.sum().item() == pytest.approx(why.value - why.base, rel=1e-9)
    assert why.target["removal"] == {"zeros": "features", "background": "interventional"}.get(baseline, baseline)
    assert "v(S)" in why.checks["value_function"]


@pytest.mark.parametrize("payoff", ["logit", "probability", "log_probability", "loss"])
def test_shap_agrees_on_a_table(payoff):
    shap = pytest.importorskip("shap")
    rows, net = some_rows(), small_net(3)
    x = rows[0] * 2

    def numbers(table):
        with torch.no_grad():
            outputs = net(torch.as_tensor(np.asarray(table)))
        log_p = outputs.log_softmax(1)
        found = {"logit": outputs, "probability": log_p.exp(), "log_probability": log_p, "loss": -log_p}[payoff]
        return found[:, 1].numpy()

    target = SupervisedModel(net, task="classification", background=rows).example(x, label=1, payoff=payoff)
    why = Shapley("features", estimator="exact").explain(target)
    masker = shap.maskers.Independent(rows.numpy(), max_samples=len(rows))
    exact = shap.ExactExplainer(numbers, masker)(x.numpy()[None])
    assert why.scores.numpy() == pytest.approx(exact.values[0], rel=1e-6, abs=1e-9)
    assert why.base == pytest.approx(exact.base_values[0], rel=1e-9)
    kernel = shap.KernelExplainer(numbers, rows.numpy()).shap_values(x.numpy(), nsamples=2**FEATURES, silent=True)
    assert why.scores.numpy() == pytest.approx(kernel, rel=1e-5, abs=1e-7)


def test_shap_agrees_on_a_linear_model():
    shap = pytest.importorskip("shap")
    rows = some_rows()
    linear = nn.Linear(FEATURES, 1).double()
    why = Shapley("features").explain(SupervisedModel(linear, task="regression", background=rows).example(rows[3] * 3))
    masker = shap.maskers.Independent(rows.numpy(), max_samples=len(rows))
    weights = (linear.weight[0].detach().numpy(), linear.bias.item())
    theirs = shap.LinearExplainer(weights, masker).shap_values(rows[3].numpy()[None] * 3)[0]
    assert why.scores.numpy() == pytest.approx(theirs, rel=1e-8)


def test_lime_recovers_a_linear_model():
    torch.manual_seed(3)
    linear, x = nn.Linear(FEATURES, 1).double(), torch.randn(FEATURES, dtype=torch.float64)
    why = Lime("features", samples=2000, seed=0).explain(SupervisedModel(linear, task="regression").example(x))
    expected = linear.weight[0].detach() * x
    torch.testing.assert_close(why.scores, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert why.checks["r2"] > 0.999


def test_integrated_gradients_are_captums():
    from captum.attr import IntegratedGradients

    net, rows = small_net(3), some_rows()
    target = SupervisedModel(net, task="classification", background=rows).example(rows[0], label=2, baseline="mean")
    why = Gradient("features", steps=32).explain(target)
    theirs = IntegratedGradients(net).attribute(rows[:1], rows.mean(0, keepdim=True), target=2, n_steps=32)
    torch.testing.assert_close(why.scores, theirs[0].detach())
    assert why.checks["completeness_gap"] < 1e-3


class Digits(nn.Module):
    """A small convolutional net on 8 x 8 digits."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8 * 36, 10)

    def forward(self, x):
        return {"logits": self.head(self.body(x).flatten(1))}


@pytest.fixture(name="digits", scope="module")
def trained_digits():
    images, classes = load_digits(return_X_y=True)
    images, classes = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(classes)
    torch.manual_seed(0)
    net = Digits()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[:500])["logits"], classes[:500]).backward()
        optimizer.step()
    net.zero_grad()
    net.eval()
    accuracy = (net(images[500:])["logits"].argmax(1) == classes[500:]).double().mean()
    assert accuracy > 0.8
    return net, images, classes


def test_patches_of_a_digit(digits):
    net, images, _ = digits
    target = SupervisedModel(net, task="classification", background=images[:5]).example(images[1700])
    patches = target.players("patches", size=3)
    assert len(patches) == 9
    why = Shapley(patches, estimator="exact").explain(target)
    expected = by_pairs(cache(of_masks(target.game(patches), 9)), 9)
    torch.testing.assert_close(why.scores, expected, rtol=1e-6, atol=1e-9)
    assert why.players.geometry["labels"].shape == (8, 8)


def test_patches_gradient_and_shapley_agree_on_a_linear_picture():
    torch.manual_seed(5)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 5, 1)).double()
    target = SupervisedModel(net, task="regression").example(torch.rand(2, 5, 5, dtype=torch.float64))
    patches = target.players("patches", size=2)
    by_shapley = Shapley(patches, estimator="exact").explain(target)
    by_gradient = Gradient(patches).explain(target)
    torch.testing.assert_close(by_shapley.scores, by_gradient.scores)


def test_superpixels_of_a_digit(digits):
    net, images, _ = digits
    target = SupervisedModel(net, task="classification").example(images[1700])
    players = target.players("superpixels", segments=9)
    assert 2 <= len(players) <= 20
    why = Shapley(players, samples=512, seed=0).explain(target)
    assert why.scores.sum().item() == pytest.approx(why.value - why.base, rel=1e-6)


def logistic_case():
    torch.manual_seed(2)
    x = torch.randn(40, FEATURES, dtype=torch.float64)
    y = (x @ torch.randn(FEATURES, dtype=torch.float64) + torch.randn(40) > 0).long()
    net = nn.Linear(FEATURES, 2).double()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=200, tolerance_grad=1e-10)

    def closure():
        optimizer.zero_grad()
        penalty = sum(p.square().sum() for p in net.parameters())
        loss = nn.functional.cross_entropy(net(x), y) + 0.1 / 2 * penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    return net, x, y


@pytest.mark.parametrize("form", ["pair", "dataset", "loader", "shuffled loader", "model's own"])
def test_influence_through_the_family_is_that_of_the_objective_by_hand(form):
    net, x, y = logistic_case()
    dataset = TensorDataset(x, y)
    train = {
        "pair": (x, y),
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=7),
        "shuffled loader": DataLoader(dataset, batch_size=7, shuffle=True),
        "model's own": None,
    }[form]
    own = {"train": (x, y)} if train is None else {}
    model = SupervisedModel(net, task="classification", weight_decay=0.1, **own)
    why = Influence(train=train, solver="exact", seed=0).explain(model.example(x[5] * 2, label=1))

    by_hand = TrainingObjective(
        params=trainable(net),
        players=Players("train", torch.arange(40)),
        predict=lambda params, at: x[at] @ params["weight"].T + params["bias"],
        labels=y,
        number=lambda params: (2 * x[5] @ params["weight"].T + params["bias"])[1],
        weight_decay=0.1,
    )

    class ByHand(type(model.example(x[5]))):
        def objective(self, train=None, remove="labels"):
            return by_hand

    asked = model.example(x[5] * 2, label=1)
    expected = Influence(solver="exact", seed=0).explain(ByHand(**vars(asked)))
    torch.testing.assert_close(why.scores, expected.scores, rtol=1e-10, atol=1e-14)
    assert why.players.names[17] == "train 17"
    assert len(why.scores.unique()) == 40


def test_influence_foretells_leaving_one_out():
    net, x, y = logistic_case()
    model = SupervisedModel(net, task="classification", weight_decay=0.1, train=(x, y))
    target = model.example(x[5] * 2, label=1)
    why = Influence(solver="exact").explain(target)
    objective, changes = target.objective(), []
    for player in range(0, 40, 4):
        edited = objective.edited(player)
        params = {name: p.clone().requires_grad_() for name, p in objective.params.items()}
        optimizer = torch.optim.LBFGS(list(params.values()), max_iter=200, tolerance_grad=1e-10)

        def closure(edited=edited, params=params, optimizer=optimizer):
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in params.values())
            loss = edited.train_loss(params, torch.arange(40)).sum() / 40 + 0.1 / 2 * penalty
            loss.backward()
            return loss

        optimizer.step(closure)
        changes.append(why.value - objective.measurement(params).item())
    assert np.corrcoef(why.scores[::4].numpy(), changes)[0, 1] > 0.99


def test_influence_of_a_regressor_uses_the_squared_error():
    torch.manual_seed(4)
    x, y = torch.randn(30, FEATURES), torch.randint(0, 5, (30,))  # integer targets are numbers here
    net = nn.Linear(FEATURES, 1)
    objective = SupervisedModel(net, task="regression", train=(x, y)).example(x[0]).objective()
    losses = objective.train_loss(objective.params, torch.arange(30))
    torch.testing.assert_close(losses, (net(x)[:, 0] - y).square().detach())


def test_small_training_images_travel_along(digits):
    net, images, classes = digits
    target = SupervisedModel(net, task="classification", train=(images[:20], classes[:20])).example(images[30])
    assert target.objective().players.geometry["images"].shape == (20, 1, 8, 8)


EXPLAINERS = [
    Shapley("features", samples=64, estimator="kernel", seed=0),
    Shapley("features", samples=64, estimator="permutation", seed=0),
    Lime("features", samples=64, seed=0),
    Gradient("features"),
    Gradient("features", method="gradient_shap", steps=4, seed=0),
    Influence(solver="cg", damping=1.0, curvature="ggn", seed=0),
]


class Touchy(nn.Module):
    """A net in mixed modes, with a hook, a frozen weight, a buffer that counts, and noise that eval mode silences."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.dropout = nn.Dropout(0.5)
        self.first.weight.requires_grad_(False)
        self.seen = []
        self.register_forward_hook(lambda *_: None)

    def forward(self, x):
        return self.last(self.dropout(self.norm(self.first(x)).tanh()))


def state_of(net):
    return (
        [module.training for module in net.modules()],
        [{name: list(hooks) for name, hooks in vars(module).items() if "hooks" in name} for module in net.modules()],
        [(name, p.requires_grad, p.grad, p.detach().clone()) for name, p in net.named_parameters()],
        [buffer.clone() for buffer in net.buffers()],
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global state is what is guarded
        torch.get_rng_state(),
    )


def assert_same(before, after):
    assert before[:2] == after[:2]
    for (name, flag, grad, p), (other_name, other_flag, other_grad, q) in zip(before[2], after[2], strict=True):
        assert (name, flag, grad is None) == (other_name, other_flag, other_grad is None)
        assert torch.equal(p, q)
    assert all(torch.equal(a, b) for a, b in zip(before[3], after[3], strict=True))
    assert before[4:6] == after[4:6]
    assert torch.equal(before[6], after[6])


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "raises"])
@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: f"{type(e).__name__}-{list(vars(e).values())[1]}")
@pytest.mark.filterwarnings("ignore:the model was in training mode", "ignore:.*standard errors", "ignore:.*minimum")
def test_the_model_and_the_random_states_are_untouched(explainer, fails):
    torch.manual_seed(0)
    net = Touchy().train()
    net.norm.eval()  # a frozen BatchNorm stays frozen
    rows = torch.randn(20, FEATURES)
    before = state_of(net)
    payoff = "logit"
    if fails:
        calls = []

        def payoff(outputs):
            return outputs[:, 0] * (float("nan") if calls else 1.0)

    model = SupervisedModel(net, task="classification", train=(rows, (rows[:, 0] > 0).long()))
    target = model.example(torch.ones(FEATURES), label=0, payoff=payoff)
    assert_same(before, state_of(net))
    if fails:
        calls.append("from now on")
        with pytest.raises(NonFinite):
            explainer.explain(target)
    else:
        first, again = explainer.explain(target), explainer.explain(target)
        # not bit-identical: float32 kernels round by where the memory happens to start
        torch.testing.assert_close(first.scores, again.scores, rtol=1e-4, atol=1e-6 * float(first.scores.abs().max()))
    assert_same(before, state_of(net))


def test_questions_outside_an_explainer_leave_no_trace_either():
    torch.manual_seed(0)
    net = Touchy().eval()
    rows = torch.randn(20, FEATURES)
    net.train()
    before = state_of(net)
    model = SupervisedModel(net, task="classification", train=DataLoader(TensorDataset(rows, torch.zeros(20).long())))
    with pytest.warns(UserWarning, match="training mode"):
        target = model.example(torch.ones(FEATURES))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model was in training mode")
        first, again = target.value(), target.value()
        _, full = target.game("features").ends()
        target.run()
        objective = target.objective()
    assert first == again == pytest.approx(full, rel=1e-6)
    objective.measurement(objective.params)
    inputs, _, f, *_ = target.differentiable("features")
    assert f(inputs).item() == pytest.approx(first, rel=1e-6)
    assert_same(before, state_of(net))


@pytest.mark.parametrize("baseline", ["mean", "background"])
def test_compare_tells_the_gradients_question_from_another(baseline):
    rows = some_rows()
    target = SupervisedModel(small_net(3), task="classification", background=rows).example(rows[0], baseline=baseline)
    by_coalitions = Shapley("features").explain(target)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        by_gradient = Gradient("features").explain(target)
        compare(by_coalitions, by_gradient)
    told = [str(warning.message) for warning in said if issubclass(warning.category, UserWarning)]
    assert any("removal is Shapley interventional" in text for text in told) == (baseline == "background")
    assert any("mean stands for" in text for text in told) == (baseline == "background")
