"""Models trained to a minimum are at one, and leaving an example out is what an independent minimiser says it is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch.func import functional_call

from models import all_cnn
from models.all_cnn import AllCNN
from models.koh_liang.data import ones_and_sevens, ten_digits
from models.leave_one_out import Retraining, retrained
from models.linear import Linear
from models.logistic import hessian, without_each
from models.optimum import fit, fit_without, fitted
from models.rbf import CholeskyFeatures, rbf_kernel
from models.svm import SmoothHinge, support_vector_machine


@pytest.fixture(scope="module")
def split():
    return ten_digits("digits", 300)


@pytest.fixture(scope="module")
def net(split):
    return fit(Linear(64, 10), split.x, split.y, weight_decay=0.01)


def test_logistic_regression_is_that_of_scikit_learn(split, net):
    peer = LogisticRegression(C=1 / (300 * 0.01), fit_intercept=False, tol=1e-10, max_iter=5000)
    peer.fit(split.x.flatten(1).numpy(), split.y.numpy())
    assert np.allclose(net.layer.weight.detach().numpy(), peer.coef_, atol=1e-5)


def test_a_minimum_that_is_not_reached_is_said(split):
    with pytest.raises(RuntimeError, match="no minimum after 3 iterations"):
        fit(Linear(64, 10), split.x, split.y, weight_decay=0.01, iterations=3)


def test_the_hessian_is_that_of_autograd(split, net):
    x = split.x.flatten(1)[:20, 20:24]
    small = Linear(4, 3)
    with torch.no_grad():
        small.layer.weight.copy_(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))

    def loss(weight):
        found = F.cross_entropy(functional_call(small, {"layer.weight": weight.view(3, 4)}, (x,)), split.y[:20] % 3)
        return found + 0.1 / 2 * weight.square().sum()

    expected = torch.autograd.functional.hessian(loss, small.layer.weight.detach().reshape(-1))
    torch.testing.assert_close(hessian(small, x, 0.1), expected)


def test_many_retrainings_at_once_are_those_one_by_one(split, net):
    together = without_each(net, split.x, split.y, [3, 7, 100], weight_decay=0.01, together=2)
    for row, example in enumerate((3, 7, 100)):
        alone = fit_without(net, example, split.x, split.y, weight_decay=0.01)
        torch.testing.assert_close(together[row], alone.layer.weight.detach(), atol=1e-6, rtol=0)
        assert not torch.allclose(alone.layer.weight, net.layer.weight, atol=1e-6)


def test_the_cache_keeps_one_minimum_a_configuration(split, tmp_path):
    def make(weight_decay, loss=SmoothHinge(1.0)):  # noqa: B008 - a frozen value
        x, y = split.x[:50], split.y[:50] % 2
        return fitted(Linear(64), x, y, weight_decay=weight_decay, loss=loss, folder=tmp_path)

    first = make(0.1)
    assert torch.equal(make(0.1).layer.weight, first.layer.weight)
    assert len(list(tmp_path.iterdir())) == 1
    make(0.2)
    make(0.1, SmoothHinge(0.5))
    assert len(list(tmp_path.iterdir())) == 3


def test_the_machine_minimises_the_hinge(split):
    digits = ones_and_sevens("digits")
    machine = support_vector_machine(digits.x, digits.y, weight_decay=0.1)

    def total(weight):
        margins = (2 * digits.y - 1) * (digits.x.flatten(1) @ weight)
        return float((1 - margins).relu().mean() + 0.05 * weight.square().sum())

    best = machine.layer.weight.detach()[0]
    draws = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).double()
    assert all(total(best) < total(best + 1e-3 * draw) for draw in draws)
    without = support_vector_machine(digits.x, digits.y, weight_decay=0.1, without=0).layer.weight
    kept = support_vector_machine(digits.x[1:], digits.y[1:], weight_decay=0.1 * 237 / 236).layer.weight  # the same C
    torch.testing.assert_close(without, kept, atol=1e-5, rtol=0)


def test_the_smooth_hinge_nears_the_hinge_and_stays_finite():
    margins, ones = torch.linspace(-3, 3, 25).double()[:, None], torch.ones(25).long()
    hinge = SmoothHinge(0.0)(margins, ones)
    assert torch.equal(hinge, (1 - margins[:, 0]).relu())
    for t in (0.1, 0.001):
        smooth = SmoothHinge(t)(margins, ones)
        assert float((smooth - hinge).min()) >= -1e-12
        assert float((smooth - hinge).max()) <= t * np.log(2) + 1e-12
    torch.testing.assert_close(SmoothHinge(0.1)(margins, 1 - ones), SmoothHinge(0.1)(-margins, ones))
    with pytest.raises(ValueError, match="0 or more"):
        SmoothHinge(-1.0)


def test_cholesky_features_have_the_kernel_as_inner_product():
    digits = ones_and_sevens("digits")
    x, other = digits.x.flatten(1)[:40], digits.test_x.flatten(1)[:7]
    phi = CholeskyFeatures(x, 0.5)
    torch.testing.assert_close(phi(x) @ phi(x).T, rbf_kernel(x, x, 0.5))
    torch.testing.assert_close(phi(other) @ phi(x).T, rbf_kernel(other, x, 0.5))


@pytest.fixture(scope="module")
def small_images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 28, 28, generator=generator), torch.arange(8) % 4


def test_retrainings_at_once_are_those_of_a_plain_optimiser(small_images):
    x, y = small_images
    torch.manual_seed(0)
    net, recipe = AllCNN(), Retraining(steps=3, lr=0.1, batch_size=8, momentum=0.9)
    found = retrained(net, x, y, [None, 2, 5], recipe, weight_decay=0.01, seed=0, together=2)
    for row, without in enumerate((None, 2, 5)):
        plain = AllCNN()
        plain.load_state_dict(net.state_dict())
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(3):  # the batch is all of them, whatever their order
            optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 3)
            optimizer.zero_grad()
            losses = F.cross_entropy(plain(x), y, reduction="none")
            (losses.sum() - (0 if without is None else losses[without])).div(8).backward()
            optimizer.step()
        for name, value in plain.named_parameters():
            torch.testing.assert_close(found[name][row], value.detach(), atol=1e-5, rtol=1e-4)


def test_the_same_seed_sees_the_same_batches(small_images):
    x, y = small_images
    recipe = Retraining(steps=4, batch_size=3)
    first, again, other = (retrained(_same(), x, y, [None], recipe, weight_decay=0.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def _same() -> AllCNN:
    torch.manual_seed(0)
    return AllCNN()


def test_the_network_is_trained_once_and_its_lower_layers_are_copies(small_images, tmp_path):
    x, y = small_images
    random = torch.get_rng_state()
    first, again = (all_cnn.load_or_train(x, y, steps=5, folder=tmp_path) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(first.head.weight, again.head.weight)
    assert len(list(tmp_path.iterdir())) == 1
    lower = first.below(4)
    assert lower(x.double()).shape == (8, 8 * 12 * 12)
    torch.testing.assert_close(lower(x.double()).float(), first.features[:4](x).flatten(1).detach())
    assert first.head.weight.dtype == first.features[0].weight.dtype == torch.float32  # the original stays
    assert not any(p.requires_grad for p in lower.parameters())
