"""Everything wrong with what the user hands in is said clearly, at the border."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import explain
from explain import Gradient, Shapley
from explain.supervised import Reference, SupervisedModel
from explain.types import NonFinite, Players, Unsupported

X = torch.tensor([1.0, 2.0, 3.0])
IMAGE = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))


class Answers(nn.Module):
    """Answers whatever the function makes of the outputs."""

    def __init__(self, function, outputs=2):
        super().__init__()
        self.linear, self.function = nn.Linear(3, outputs), function

    def forward(self, x):
        return self.function(self.linear(x))


def classifier(function=lambda outputs: outputs, outputs=2, **options):
    return SupervisedModel(Answers(function, outputs), task="classification", **options)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0, 2.0, 3.0], TypeError, r"must be a torch.Tensor, got list"),
        (X.double(), TypeError, r"must be torch.float32 as the model is, got torch.float64"),
        (X.long(), TypeError, r"must be torch.float32 as the model is, got torch.int64"),
        (X[None], ValueError, r"\[features\] or \[C, H, W\], got \[1, 3\]: leave the batch dimension out"),
        (IMAGE[None], ValueError, r"got \[1, 1, 4, 4\]"),
        (torch.zeros(0), ValueError, r"got \[0\]"),
        (torch.tensor(1.0), ValueError, r"got \[\]"),
        (torch.tensor([1.0, float("nan"), 2.0]), NonFinite, "NaN or infinity in 1 of 3"),
        (torch.tensor([1.0, float("inf"), 2.0]), NonFinite, "NaN or infinity in 1 of 3"),
        (X[:2], ValueError, r"could not take inputs of shape \[1, 2\]"),
        (X.to("meta"), ValueError, "must be on cpu as the model is, got meta"),
        ((X, X), TypeError, r"one torch.Tensor, got 2: join the inputs of a model of several .* torch.cat"),
        ({"a": X, "b": X}, TypeError, r"one torch.Tensor, got 2: join the inputs of a model of several .* torch.cat"),
        (torch.rand(7, 4), ValueError, r"got \[7, 4\]: of a batch give one row; .* a series .*nn.Unflatten"),
        (X.to(torch.uint8), TypeError, r"got torch.uint8: give the numbers .* trained on, such as x.float\(\) / 255"),
    ],
)
def test_an_example_that_does_not_fit(x, error, message):
    with pytest.raises(error, match=message):
        classifier().example(x)


@pytest.mark.parametrize("kind", [AssertionError, KeyError, ZeroDivisionError])
def test_a_forward_that_fails_says_what_was_asked(kind):
    def fails(outputs):
        raise kind("no")

    said = r"explain.wrap\(Answers, \.\.\.\)\.example\(x\): .*inputs of shape \[1, 3\], torch.float32: " + kind.__name__
    with pytest.raises(ValueError, match=said) as told:
        classifier(fails).example(X)
    assert isinstance(told.value.__cause__, kind)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(20, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(self.table(ids).mean(1))


def test_token_ids():
    ids, others = torch.tensor([3, 5, 0, 19]), torch.randint(20, (8, 4), generator=torch.Generator().manual_seed(0))
    model = SupervisedModel(Words(), task="classification", background=others)
    target = model.example(ids, label=1, baseline="zeros")
    why = Shapley("features").explain(target)
    weight = model.module.out.weight[1] @ model.module.table.weight.T
    assert why.scores.tolist() == pytest.approx(((weight[ids] - weight[0]) / 4).tolist(), abs=1e-6)
    assert "token 0 stands for an absent one" in target.describe()["assumed"]["baseline"]
    averaged = Shapley("features").explain(model.example(ids, label=1))
    assert averaged.scores.tolist() == pytest.approx(((weight[ids] - weight[others].mean(0)) / 4).tolist(), abs=1e-6)
    with pytest.raises(Unsupported, match="token ids have no derivative: ask Shapley, Lime or Occlusion"):
        Gradient("features").explain(target)
    with pytest.raises(ValueError, match="token ids have no mean baseline"):
        model.example(ids, baseline="mean")
    with pytest.raises(ValueError, match=r"token ids are whole numbers: use x.long\(\)"):
        model.example(ids.float(), baseline="zeros")
    with pytest.raises(ValueError, match="ids run from 10 to 29, and the embedding has 20 rows"):
        model.example(ids + 10)


def test_a_series_is_explained_as_the_error_says():
    net, x = nn.GRU(4, 2, batch_first=True), torch.rand(7, 4, generator=torch.Generator().manual_seed(0))
    last = SupervisedModel(
        nn.Sequential(nn.Unflatten(1, (7, 4)), net), task="classification", output=lambda answer: answer[0][:, -1]
    )
    steps = Players("steps", torch.arange(7), groups=tuple(torch.arange(28).view(7, 4)))
    why = Shapley(steps).explain(last.example(x.flatten(), label=1))
    assert why.value == pytest.approx(float(net(x[None])[0][0, -1, 1].detach()), abs=1e-6)
    assert why.base == pytest.approx(float(net(torch.zeros(1, 7, 4))[0][0, -1, 1].detach()), abs=1e-6)


def test_a_model_of_two_inputs():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    with pytest.raises(ValueError, match=r"missing .* 'b'; the inputs of a model of several go in as one row"):
        SupervisedModel(Two(), task="regression").example(X)
    with pytest.raises(TypeError, match="tuple of 3: join the inputs of a model of several"):
        explain.wrap(Two(), (X[None], X[None], torch.tensor([1])), task="classification")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda out: out * float("nan"), NonFinite, "the model answers NaN or infinity"),
        (lambda out: out / 0, NonFinite, "the model answers NaN or infinity"),
        (lambda out: out + torch.randn(()), ValueError, "not deterministic"),
        (lambda out: out.argmax(1), ValueError, r"floating-point logits \[rows, outputs\], got torch.int64"),
        (lambda out: out[:, :, None], ValueError, r"here \[1, outputs\], got \[2, 1\]"),
        (lambda out: out[:, :0], ValueError, r"got \[1, 0\]"),
        (lambda out: out.mean(), ValueError, r"got \[\] of torch.float32"),
        (lambda out: {"loss": out.sum()}, ValueError, r"got dict of 'loss': \[\]"),
        (lambda out: [out, out * 2], ValueError, "several parts that may be the outputs .*output=1"),
        (lambda out: ("no", "tensor"), ValueError, "got tuple"),
        (lambda out: out.tolist(), ValueError, "got list"),
        (lambda out: None, ValueError, "got NoneType"),
    ],
)
def test_a_model_whose_answers_do_not_fit(function, error, message):
    with pytest.raises(error, match=message):
        classifier(function).example(X)


@pytest.mark.parametrize(
    "function", [lambda out: (out, "aux"), lambda out: {"logits": out}, lambda out: {"scores": out, "loss": 1}]
)
def test_outputs_in_tuples_and_mappings_are_understood(function):
    model = classifier(function)
    assert model.example(X, label=1).value() == pytest.approx(model.module.linear(X)[1].item())


def test_a_row_that_is_squeezed_away_is_said():
    with pytest.raises(ValueError, match=r"got \[\] .*squeeze\(-1\) does not"):
        classifier(torch.squeeze, 1).example(X)


def test_one_column_is_a_binary_logit():
    model = classifier(outputs=1)
    logit = model.module.linear(X).item()
    assert model.example(X).label == int(logit > 0)
    assert model.example(X, label=1).value() == pytest.approx(logit)
    assert model.example(X, label=0).value() == pytest.approx(-logit)
    assert model.example(X, label=0, payoff="probability").value() == pytest.approx(
        1 / (1 + torch.tensor(logit).exp().item())
    )
    flat = classifier(lambda out: out[:, 0])
    assert flat.example(X, label=1).value() == pytest.approx(flat.module.linear(X)[0].item())


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (2, ValueError, "from 0 to 1, got 2"),
        (-1, ValueError, "from 0 to 1, got -1"),
        (0.5, ValueError, "from 0 to 1, got 0.5"),
        (True, ValueError, "from 0 to 1, got True"),
        ("cat", ValueError, "from 0 to 1, got 'cat'"),
    ],
)
def test_an_unknown_label(label, error, message):
    with pytest.raises(error, match=message):
        classifier().example(X, label)


def test_a_label_may_be_a_tensor():
    assert classifier().example(X, torch.tensor(1)).label == 1


def test_a_regressor_with_several_outputs_asks_which():
    model = SupervisedModel(Answers(lambda out: out, 3), task="regression")
    with pytest.raises(ValueError, match="which of the regressor's 3 outputs"):
        model.example(X)
    with pytest.raises(ValueError, match="which of the regressor's 3 outputs"):
        model.example(X, 3)
    assert model.example(X, 2).value() == pytest.approx(model.module.linear(X)[2].item())
    total = model.example(X, payoff=lambda outputs: outputs.sum(1))
    assert total.value() == pytest.approx(model.module.linear(X).sum().item())


@pytest.mark.parametrize(
    ("payoff", "message"),
    [
        ("margin", "payoff must be one of"),
        (lambda out: out, r"one number a row, a tensor \[4\], got \[4, 2\]"),
    ],
)
def test_an_unknown_payoff(payoff, message):
    with pytest.raises(ValueError, match=message):
        classifier().example(X, payoff=payoff)


def test_a_regressor_has_no_probability():
    with pytest.raises(ValueError, match="needs classes"):
        SupervisedModel(Answers(lambda out: out, 1), task="regression").example(X, payoff="probability")


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("blur", ValueError, "baseline must be 'zeros'"),
        ("mean", ValueError, "needs a background"),
        ("conditional", ValueError, "needs a background"),
        (torch.zeros(2), ValueError, r"must be for examples \[3\], got \[2\]"),
        (torch.zeros(5, 2), ValueError, r"must be for examples \[3\]"),
        (torch.zeros(0, 3), ValueError, r"must be for examples \[3\]"),
        (torch.tensor([0.0, float("nan"), 0.0]), NonFinite, "baseline holds NaN"),
        (Reference(torch.zeros(4)), ValueError, r"must be for examples \[3\], got \[4\]"),
        (Reference(torch.zeros(3).double()), ValueError, "must be torch.float32 on cpu .* got torch.float64"),
        (0.5, TypeError, "a name, a tensor or a baseline, got float"),
    ],
)
def test_a_baseline_that_does_not_fit(baseline, error, message):
    with pytest.raises(error, match=message):
        classifier().example(X, baseline=baseline)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"background": torch.zeros(3)}, ValueError, r"background must be \[m, features\]"),
        ({"background": torch.zeros(0, 3)}, ValueError, r"background must be \[m, features\]"),
        ({"background": [[0.0] * 3]}, TypeError, "background must be a torch.Tensor"),
        ({"background": torch.zeros(2, 3).double()}, TypeError, "background must be torch.float32"),
        ({"background": torch.full((2, 3), float("nan"))}, NonFinite, "background holds NaN"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be a number, 0 or more"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"task": "ranking"}, ValueError, "task must be 'classification' or 'regression', got 'ranking'"),
        ({"module": len}, TypeError, "must be a torch.nn.Module, got builtin_function"),
    ],
)
def test_settings_that_do_not_fit(options, error, message):
    settings = {"module": nn.Linear(3, 2), "task": "classification"} | options
    with pytest.raises(error, match=message):
        SupervisedModel(settings.pop("module"), **settings)


def test_feature_names_count():
    with pytest.raises(ValueError, match=r"2 feature names need x \[2\], got \[3\]"):
        classifier(feature_names=("a", "b")).example(X)


@pytest.mark.parametrize(
    ("players", "error", "message"),
    [
        ("nodes", Unsupported, r"are features or groups of your own as a Players, got 'nodes'"),
        ("patches", Unsupported, "are features"),
        (Players("groups", torch.arange(1), groups=(torch.tensor([7]),)), ValueError, "atoms outside 0 to 2"),
        (Players("groups", torch.arange(1), groups=(torch.tensor([-1]),)), ValueError, "atoms outside 0 to 2"),
        (
            Players("groups", torch.arange(2), groups=(torch.tensor([0, 1]), torch.tensor([1]))),
            ValueError,
            "must not overlap",
        ),
        (Players("pairs", torch.zeros(1, 2).long()), ValueError, "need an index"),
        (
            Players("x", torch.arange(1), geometry={"labels": torch.zeros(4, 4).long()}),
            ValueError,
            r"labels must be \[3\]",
        ),
        (
            Players("x", torch.arange(1), geometry={"labels": torch.ones(3).long()}),
            ValueError,
            "labels must be from -1 to 0",
        ),
    ],
)
def test_players_that_do_not_fit(players, error, message):
    with pytest.raises(error, match=message):
        classifier().example(X).game(players)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("features", {}, "patches, superpixels"),
        ("patches", {"size": 0}, "from 1 to 4 pixels, got 0"),
        ("patches", {"size": 5}, "from 1 to 4 pixels, got 5"),
        ("patches", {"size": 1.5}, "got 1.5"),
        ("superpixels", {"segments": 1}, "at least 2, got 1"),
        ("superpixels", {"segments": 2, "compactness": 0.1}, "single superpixel"),
    ],
)
def test_image_players_that_do_not_fit(kind, options, message):
    target = SupervisedModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), task="classification").example(IMAGE)
    with pytest.raises((ValueError, Unsupported), match=message):
        target.players(kind, **options)


def test_rows_that_see_one_another_are_evaluated_alone():
    mixes = classifier(lambda out: out - out.mean(0) + out.detach() ** 2)
    with pytest.warns(UserWarning, match="see one another"):
        target = mixes.example(X, label=0)
    game = target.game("features")
    assert game.checks["batched"] is False
    masks = torch.eye(3).bool()
    by_hand = [(mixes.module.linear(X * mask) ** 2)[0].item() for mask in masks]
    assert game(masks).tolist() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (None, ValueError, "no training examples"),
        (torch.zeros(4, 3), TypeError, "got Tensor"),
        ([1, 2, 3], TypeError, "got list of int, int, int"),
        ((torch.zeros(4, 2), torch.zeros(4).long()), ValueError, r"inputs \[n, 3\] and as many labels, got \[4, 2\]"),
        ((torch.zeros(4, 3), torch.zeros(5).long()), ValueError, r"got \[4, 3\] and \[5\]"),
        ((torch.zeros(0, 3), torch.zeros(0).long()), ValueError, "training"),
        (TensorDataset(torch.zeros(0, 3), torch.zeros(0).long()), ValueError, "empty"),
        ((torch.zeros(4, 3), torch.full((4,), 0.5)), ValueError, "which loss was trained"),
        ((torch.zeros(4, 3), torch.full((4,), 2)), ValueError, "from 0 to 1"),
        ((torch.zeros(4, 3), torch.full((4,), -1)), ValueError, "from 0 to 1"),
        ((torch.zeros(4, 3).double(), torch.zeros(4).long()), TypeError, "training inputs must be torch.float32"),
        ((torch.full((4, 3), float("nan")), torch.zeros(4).long()), NonFinite, "training inputs hold NaN"),
    ],
)
def test_training_sets_that_do_not_fit(train, error, message):
    with pytest.raises(error, match=message):
        classifier().example(X).objective(train)


def test_only_labels_can_be_removed():
    with pytest.raises(ValueError, match="remove must be 'labels' for a supervised model, got 'nodes'"):
        classifier().example(X).objective((torch.zeros(4, 3), torch.zeros(4).long()), remove="nodes")
