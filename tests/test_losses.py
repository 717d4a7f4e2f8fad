"""Losses against torch's own, and which of them outputs and labels leave no doubt about."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import explain
from explain.losses import NAMES, alternatives, focal, trained_loss
from explain.outputs import Meaning

Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
CLASSES = torch.tensor([0, 1, 2, 2, 1, 0])
YES = torch.tensor([0, 1, 1, 0, 1, 0])
TASKS = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 1]]).double()
HOT = F.one_hot(CLASSES).double()
REAL = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()


def mean(name, meaning, outputs, labels):
    found = trained_loss(name, meaning, labels)
    return found.of(outputs, found.labels).mean()


@pytest.mark.parametrize(
    ("name", "kind", "outputs", "labels", "expected"),
    [
        ("cross_entropy", "logits", Z, CLASSES, F.cross_entropy(Z, CLASSES)),
        ("cross_entropy", "logits", Z, CLASSES.double()[:, None], F.cross_entropy(Z, CLASSES)),
        ("cross_entropy", "probabilities", Z.softmax(1), CLASSES, F.cross_entropy(Z, CLASSES)),
        ("cross_entropy", "log_probabilities", Z.log_softmax(1), CLASSES, F.nll_loss(Z.log_softmax(1), CLASSES)),
        ("cross_entropy", "logits", Z, REAL.softmax(1), F.cross_entropy(Z, REAL.softmax(1))),
        ("bce", "logits", Z[:, :1], YES, F.binary_cross_entropy_with_logits(Z[:, 0], YES.double())),
        ("bce", "logits", Z[:, :1], YES.double(), F.binary_cross_entropy_with_logits(Z[:, 0], YES.double())),
        (
            "bce",
            "probabilities",
            Z[:, :1].sigmoid(),
            YES.bool(),
            F.binary_cross_entropy(Z[:, 0].sigmoid(), YES.double()),
        ),
        ("bce", "logits", Z, TASKS, F.binary_cross_entropy_with_logits(Z, TASKS)),
        ("bce", "probabilities", Z.sigmoid(), TASKS, F.binary_cross_entropy(Z.sigmoid(), TASKS)),
        ("mse", "values", Z, REAL, F.mse_loss(Z, REAL)),
        ("mse", "values", Z[:, :1], REAL[:, 0], F.mse_loss(Z[:, 0], REAL[:, 0])),
        ("mae", "values", Z, REAL, F.l1_loss(Z, REAL)),
        ("huber", "values", Z, REAL, F.huber_loss(Z, REAL)),
        ("poisson", "values", Z[:, :1], CLASSES, F.poisson_nll_loss(Z[:, 0], CLASSES)),
        ("hinge", "logits", Z[:, :1], 2 * YES - 1, (1 - (2 * YES - 1) * Z[:, 0]).relu().mean()),
        ("multi_margin", "logits", Z, CLASSES, F.multi_margin_loss(Z, CLASSES)),
        ("multi_margin", "logits", Z, F.one_hot(CLASSES), F.multi_margin_loss(Z, CLASSES)),
        ("multi_margin", "probabilities", Z.softmax(1), CLASSES, F.multi_margin_loss(Z.softmax(1), CLASSES)),
        ("brier", "logits", Z, CLASSES, 3 * F.mse_loss(Z.softmax(1), HOT)),
        ("brier", "probabilities", Z.softmax(1), HOT.long(), 3 * F.mse_loss(Z.softmax(1), HOT)),
        ("brier", "log_probabilities", Z.log_softmax(1), HOT, 3 * F.mse_loss(Z.softmax(1), HOT)),
        ("brier", "logits", Z, REAL.softmax(1), 3 * F.mse_loss(Z.softmax(1), REAL.softmax(1))),
        ("brier", "logits", Z[:, :1], YES, F.mse_loss(Z[:, 0].sigmoid(), YES.double())),
        ("brier", "probabilities", Z[:, :1].sigmoid(), YES.double(), F.mse_loss(Z[:, 0].sigmoid(), YES.double())),
        ("brier", "logits", Z, TASKS, F.mse_loss(Z.sigmoid(), TASKS)),
    ],
)
def test_losses_are_torchs_own(name, kind, outputs, labels, expected):
    meaning = Meaning(kind, outputs.size(1), exclusive=labels is not TASKS)
    torch.testing.assert_close(mean(name, meaning, outputs, labels), expected.double())


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("cross_entropy", "probabilities", torch.tensor([0, 1])),
        ("bce", "probabilities", torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
        ("bce", "log_probabilities", torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
    ],
)
def test_of_probabilities_of_exactly_0_and_1_all_is_finite(name, kind, labels):
    z = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)  # right, and as wrong as can be
    meaning = Meaning(kind, 2, exclusive=name == "cross_entropy")
    p = z.softmax(1) if name == "cross_entropy" else z.sigmoid()
    found = trained_loss(name, meaning, labels)
    losses = found.of(p if kind == "probabilities" else F.logsigmoid(z), found.labels)
    (gradient,) = torch.autograd.grad(losses.sum(), z, create_graph=True)
    (curve,) = torch.autograd.grad(gradient.sum(), z)
    assert losses[0] < 1e-30
    assert 80 < losses[1] <= 200
    assert gradient.isfinite().all()
    assert curve.isfinite().all()


def test_cross_entropy_of_a_sigmoid_each_is_of_the_labels_own():
    for kind, outputs in (("probabilities", Z.sigmoid()), ("log_probabilities", F.logsigmoid(Z))):
        found = mean("cross_entropy", Meaning(kind, 3, exclusive=False), outputs, CLASSES)
        torch.testing.assert_close(found, F.nll_loss(F.logsigmoid(Z), CLASSES))


def test_unknown_labels_of_some_tasks_are_left_out_of_the_mean():
    some = TASKS.clone()
    some[0, 1] = some[3, 2] = float("nan")
    known = ~some.isnan()
    tasks = Meaning("logits", 3, exclusive=False)
    expected = F.binary_cross_entropy_with_logits(Z[known], some[known])
    torch.testing.assert_close(mean("bce", tasks, Z, some), expected)
    torch.testing.assert_close(mean("brier", tasks, Z, some), F.mse_loss(Z[known].sigmoid(), some[known]))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_the_focal_loss_is_that_of_the_paper(gamma):
    log_p = Z.log_softmax(1).gather(1, CLASSES[:, None])[:, 0]
    torch.testing.assert_close(focal("cross_entropy", gamma)(Z, CLASSES), -((1 - log_p.exp()) ** gamma) * log_p)
    log_p = torch.where(TASKS == 1, F.logsigmoid(Z), F.logsigmoid(-Z))
    torch.testing.assert_close(focal("bce", gamma)(Z, TASKS), (-((1 - log_p.exp()) ** gamma) * log_p).mean(1))
    sure = torch.tensor([[900.0, 0.0]], requires_grad=True)
    assert torch.autograd.grad(focal("cross_entropy", gamma)(sure, torch.tensor([0])).sum(), sure)[0].isfinite().all()


@pytest.mark.parametrize("name", ["multi_margin", "brier"])
@pytest.mark.parametrize("row", range(3))
def test_losses_are_convex_in_what_they_take(name, row):
    meaning = Meaning("logits", 3)
    found = trained_loss(name, meaning, CLASSES)
    at = found.link(Z)[row : row + 1]
    curve = torch.autograd.functional.hessian(lambda o: found.loss_of(o, CLASSES[row : row + 1]).sum(), at)
    assert float(torch.linalg.eigvalsh(curve.view(3, 3)).min()) >= 0


@pytest.mark.parametrize(
    ("meaning", "labels", "name"),
    [
        (Meaning("logits", 3), CLASSES, "cross_entropy"),
        (Meaning("logits", 3), CLASSES.double(), "cross_entropy"),
        (Meaning("logits", 1), YES, "bce"),
        (Meaning("logits", 1), YES.float(), "bce"),
        (Meaning("logits", 1), YES.bool()[:, None], "bce"),
        (Meaning("logits", 3, exclusive=False), TASKS, "bce"),
        (Meaning("probabilities", 3), F.one_hot(CLASSES), "cross_entropy"),
        (Meaning("logits", 3), REAL.softmax(1), "cross_entropy"),
        (Meaning("values", 3), REAL, "mse"),
        (Meaning("values", 1), CLASSES.float(), "mse"),
    ],
)
def test_what_is_not_in_doubt_is_taken_and_said(meaning, labels, name):
    found = trained_loss(None, meaning, labels)
    assert found.name == name
    assert found.assumed.startswith(name)
    assert trained_loss(name, meaning, labels).assumed is None


@pytest.mark.parametrize(
    ("meaning", "labels"),
    [
        (Meaning("logits", 3), F.one_hot(CLASSES)),  # softmax or a sigmoid each
        (Meaning("logits", 1), 2 * YES - 1),  # hinge or a logistic loss
        (Meaning("logits", 1), REAL[:, 0]),
        (Meaning("values", 1), YES),
        (Meaning("values", 1), YES + 1),  # classes counted from 1, or counts
        (Meaning("probabilities", 3, exclusive=False), CLASSES),  # a sigmoid each is not trained by its own class alone
    ],
)
def test_what_is_in_doubt_is_asked(meaning, labels):
    with pytest.raises(ValueError, match=r"which loss was trained\?.*loss='cross_entropy' \| 'bce'"):
        trained_loss(None, meaning, labels)


@pytest.mark.parametrize(
    ("name", "meaning", "labels", "message"),
    [
        ("cross_entropy", Meaning("logits", 1), YES, "take 'bce' for one output"),
        (
            "cross_entropy",
            Meaning("logits", 3),
            CLASSES + 1,
            "from 0 to 2.*: classes that are counted from 1 are labels - 1",
        ),
        ("cross_entropy", Meaning("logits", 3), CLASSES - 100, "leave unlabelled examples .an ignore_index. out"),
        ("bce", Meaning("logits", 1), 2 * YES - 1, r"as classes they are \(labels \+ 1\) // 2"),
        ("bce", Meaning("logits", 3), CLASSES, r"give rows of 0 and 1, \[n, 3\], one for each output"),
        ("bce", Meaning("logits", 1), REAL[:, 0], "bce needs labels from 0 to 1"),
        ("bce", Meaning("values", 1), YES, "or say outputs='logits'"),
        ("hinge", Meaning("logits", 3), CLASSES, "hinge is a loss of one output, the model has 3: take 'multi_margin'"),
        ("multi_margin", Meaning("logits", 1), YES, "several classes, the model has 1 logits: take 'hinge'"),
        ("multi_margin", Meaning("logits", 3), REAL.softmax(1), r"classes from 0 to 2 are \[n\]"),
        ("brier", Meaning("values", 1), YES, "or say outputs='logits'"),
        ("brier", Meaning("logits", 1), REAL[:, 0], "brier needs labels from 0 to 1"),
        ("mse", Meaning("values", 3), REAL[:, :2], r"give real labels \[n, 3\]"),
        ("square", Meaning("values", 3), REAL, "loss must be one of cross_entropy"),
    ],
)
def test_what_does_not_fit_is_refused(name, meaning, labels, message):
    with pytest.raises(ValueError, match=message):
        trained_loss(name, meaning, labels)


def test_alternatives_are_those_that_the_labels_allow():
    meaning = Meaning("probabilities", 3)
    taken = trained_loss(None, meaning, CLASSES)
    found = {each.name: each for each in alternatives(taken, meaning, CLASSES)}
    assert list(found) == [
        "cross_entropy on the outputs as if they were logits",
        "multi_margin",
        "brier",
        "brier on the outputs as if they were logits",
    ]
    twice = found["cross_entropy on the outputs as if they were logits"]  # softmax inside, and again in the loss
    torch.testing.assert_close(twice.of(Z.softmax(1), CLASSES).mean(), F.cross_entropy(Z.softmax(1), CLASSES))
    assert twice.option == "outputs='logits'"
    assert found["brier on the outputs as if they were logits"].option == "outputs='logits', loss='brier'"
    yes = Meaning("logits", 1)
    names = [each.name for each in alternatives(trained_loss(None, yes, YES), yes, YES)]
    assert names == ["mse", "mae", "huber", "hinge", "poisson", "brier"]
    assert set(names) < set(NAMES)


OWN = {  # losses of users' own that are none of each example
    "broadcast": (lambda out, y: (out - y).square().mean(1), "looks across rows.* take outputs"),
    "centred": (lambda out, y: (out[:, 0] - out[:, 0].mean() - y).square(), "looks across rows"),
    "random": (lambda out, y: (out[:, 0] - y + torch.randn(len(y)) / 9).square(), "the loss is random"),
    "mean": (lambda out, y: (out[:, 0] - y).square().mean(), r"one number an example, \[4\], got \[\]"),
}


@pytest.mark.parametrize("name", OWN)
def test_a_loss_of_ones_own_is_that_of_each_example(name):
    loss, message = OWN[name]
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    net, data = nn.Linear(3, 1), Data(x=x, edge_index=torch.tensor([[0, 1], [1, 2]]), y=REAL[:, 0].float())
    table = explain.wrap(net, (x, data.y), task="regression", loss=loss).example(x[0])
    graph = explain.wrap(GCNConv(3, 1), data, outputs="values", loss=loss).node(1)
    for ask in (table.objective, lambda: graph.objective(torch.arange(6))):
        with pytest.raises(ValueError, match=message):
            ask()


def test_a_loss_of_ones_own_may_use_the_labels_as_it_likes():
    x, weighted = torch.randn(6, 3), torch.stack([REAL[:, 0], REAL[:, 1].abs()], 1).float()
    net = nn.Linear(3, 1)
    target = explain.wrap(
        net, (x, weighted), task="regression", loss=lambda out, y: y[:, 1] * (out[:, 0] - y[:, 0]).square()
    ).example(x[0])
    objective = target.objective()
    expected = weighted[:, 1] * (net(x)[:, 0] - weighted[:, 0]).square()
    torch.testing.assert_close(objective.train_loss(objective.params, torch.arange(6)), expected)
