"""The experiments at two sizes: in full on MNIST and Cora, or reduced on the digits of scikit-learn."""

from __future__ import annotations

from models import all_cnn
from models.koh_liang.attack import Poisoning, poisoning
from models.koh_liang.components import Terms
from models.koh_liang.components import terms as _terms
from models.koh_liang.costs import Costs
from models.koh_liang.costs import costs as _costs
from models.koh_liang.data import ones_and_sevens, ten_digits, two_digits
from models.koh_liang.domain import Domain
from models.koh_liang.domain import domain as _domain
from models.koh_liang.hinge import C, Hinge
from models.koh_liang.hinge import hinge as _hinge
from models.koh_liang.kernels import Kernels, enlarged
from models.koh_liang.kernels import kernels as _kernels
from models.koh_liang.leave_one_out import LeaveOneOut
from models.koh_liang.leave_one_out import leave_one_out as _leave_one_out
from models.koh_liang.nonconvex import NonConvex, Size
from models.koh_liang.nonconvex import nonconvex as _nonconvex
from models.koh_liang.wrong_labels import WrongLabels, topics
from models.koh_liang.wrong_labels import wrong_labels as _wrong_labels
from models.leave_one_out import Retraining

SMALL = Size(60, 200, 4, Retraining(steps=30, lr=0.05), 2, (0.1,), (0.01,))


def terms(full: bool) -> Terms:
    """K1, K2."""
    return _terms(ones_and_sevens(_source(full)))


def leave_one_out(full: bool) -> LeaveOneOut:
    """K3, K4."""
    return _leave_one_out(ten_digits(_source(full)), 500 if full else 40)


def nonconvex(full: bool) -> NonConvex:
    """K5, K6."""
    return _nonconvex(ten_digits(_source(full)), Size() if full else SMALL)


def hinge(full: bool) -> Hinge:
    """K7, K8."""
    return _hinge(ones_and_sevens(_source(full)), 100 if full else 30, C if full else 0.02)


def kernels(full: bool) -> Kernels:
    """K9."""
    return _kernels(ones_and_sevens(_source(full)), _network(full).embedded, range(4 if full else 2))


def attack(full: bool) -> Poisoning:
    """K10, K11, K12."""
    if full:
        return poisoning(two_digits("mnist", 4, 9, 100), 1 / 255, _network(full).below(8))
    return poisoning(two_digits("digits", 4, 9, 50), 1 / 16, None, (1, 10), tests=4, together=4, iterations=5)


def domain(full: bool) -> Domain:
    """K13."""
    return _domain(ten_digits(_source(full)))


def wrong_labels(full: bool) -> WrongLabels:
    """K14."""
    if full:
        return _wrong_labels(topics(), repeats=40)
    split = ones_and_sevens("digits")
    return _wrong_labels(split, repeats=20, fractions=(0.1, 0.2), retrained=1, data="digits of 8 x 8")


def costs(full: bool) -> Costs:
    """K15."""
    return _costs(ten_digits(_source(full)))


def _source(full: bool) -> str:
    return "mnist" if full else "digits"


def _network(full: bool) -> all_cnn.AllCNN:
    """That of K5."""
    size = Size() if full else SMALL
    split = ten_digits(_source(full), size.images)
    return all_cnn.load_or_train(enlarged(split.x), split.y, steps=size.steps)
