"""The columns of the matrix: each explainer's answer, and how far it is from brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, get_args

import torch
from torch import Tensor

import explain
from explain import Explanation
from explain.gradient import Method
from explain.influence import Influence
from explain.types import Players, Target
from models.matrix import calculus, oracles
from models.matrix.case import Case

ERRORS = 6.0  # standard errors by which an answer that draws may be off
SAMPLES = 96
DRAWS = 64  # of methods that draw
POINTS = 256  # of a path, which kinks


class Trial(NamedTuple):
    """One question to an explainer; ``gap()`` asks it and says how far the answer is from ``against``, relative."""

    players: str
    against: str
    gap: Callable[[], float]
    loose: float = 1.0  # times the tolerance of the case


def apart(found: Tensor, expected: Tensor, error: Tensor | None = None) -> float:
    """The largest difference, relative to the largest score expected, less what the draw of the answer explains.

    Raises:
        AssertionError: another number of scores.
    """
    if found.shape != expected.shape:
        raise AssertionError(f"{list(found.shape)} scores, {list(expected.shape)} expected")
    if not expected.numel():
        return 0.0
    beyond = (found.double() - expected.double()).abs()
    if error is not None:
        beyond = (beyond - ERRORS * error.double()).clamp_min(0)
    return float(beyond.max()) / max(float(expected.abs().max()), 1e-9)


def _played(
    case: Case,
    explainer: Callable[[str | Players], explain.Explainer],
    rule: Callable[[Tensor], Tensor],
    kinds: int | None = None,
) -> Iterator[tuple[str, Callable[[], float]]]:
    for kind in list(case.answers)[:kinds]:

        def gap(kind: str = kind) -> float:
            why = explainer(case.players(kind)).explain(case.target)
            return apart(why.scores, rule(case.numbers(kind)[1]), why.error)

        yield kind, gap


def shapley(case: Case) -> Iterator[Trial]:
    """Each estimator; those that draw within their standard errors."""
    for name in ("exact", "kernel", "permutation", "stratified"):
        samples, kinds = (None, None) if name == "exact" else (SAMPLES, 1)
        ask = partial(explain.Shapley, estimator=name, samples=samples, seed=0)
        for kind, gap in _played(case, ask, oracles.shapley, kinds):
            yield Trial(kind, f"all coalitions, {name}", gap)


def banzhaf(case: Case) -> Iterator[Trial]:
    """Each estimator."""
    for name in ("exact", "regression", "reuse"):
        samples, kinds = (None, None) if name == "exact" else (SAMPLES, 1)
        ask = partial(explain.Banzhaf, estimator=name, samples=samples, seed=0)
        for kind, gap in _played(case, ask, oracles.banzhaf, kinds):
            yield Trial(kind, f"all coalitions, {name}", gap)


def interactions(case: Case) -> Iterator[Trial]:
    """Both indices, of all pairs."""
    for kind in case.answers:
        for index in ("shapley", "banzhaf"):

            def gap(kind: str = kind, index: str = index) -> float:
                asked = explain.Interactions(case.players(kind), index, seed=0)
                found = asked.explain(case.target).parts["interactions"].clone()
                values = case.numbers(kind)[1]
                expected = oracles.interactions(values, index)
                found.fill_diagonal_(0)
                scale = float(oracles.shapley(values).abs().max())  # there may be no interaction
                return apart(found, expected) * float(expected.abs().max()) / max(scale, 1e-9) if len(found) else 0.0

            yield Trial(kind, f"all coalitions, {index}", gap)


def lime(case: Case) -> Iterator[Trial]:
    """The fit to every coalition."""
    for kind, gap in _played(case, partial(explain.Lime, seed=0), _fit):
        yield Trial(kind, "weighted least squares over all coalitions", gap, loose=100)  # its ridge is 1e-8


def _fit(values: Tensor) -> Tensor:
    return oracles.weighted_least_squares(values) if len(values) > 2 else oracles.left_out(values)


def occlusion(case: Case) -> Iterator[Trial]:
    """Both variants."""
    for variant, rule in (("leave_one_out", oracles.left_out), ("only_one", oracles.alone)):
        for kind, gap in _played(case, partial(explain.Occlusion, variant=variant), rule):
            yield Trial(kind, variant, gap)


def counterfactual(case: Case) -> Iterator[Trial]:
    """The smallest sets of all, that change the class where there is one, and the number."""
    for kind in case.answers:
        if case.label is not None:
            yield Trial(kind, "all sets, the class", partial(_flipped, case, kind, None))
        yield Trial(kind, "all sets, the number", partial(_half_fallen, case, kind))


def _half_fallen(case: Case, kind: str) -> float:
    values = case.numbers(kind)[1]
    return _flipped(case, kind, float(values[0] - values[-1]) / 2 or 1.0)


def _flipped(case: Case, kind: str, change: float | None) -> float:
    why = explain.Counterfactual(case.players(kind), change=change).explain(case.target)
    players, outputs = case.table(kind)
    values = case.read(outputs)
    sets = oracles.smallest_flips(outputs) if change is None else oracles.smallest_falls(values, change)
    gone = tuple(why.parts["deleted"].nonzero().view(-1).tolist())
    if bool(sets) != why.checks["flipped"] or (sets and gone not in sets):
        raise AssertionError(f"{gone} deleted, of the smallest sets {sets}")
    fall = values[-1] - values[oracles.position(gone, len(players))]
    return apart(why.scores.sum()[None], fall[None]) if sets else 0.0


def subgraphx(case: Case) -> Iterator[Trial]:
    """The best of all connected subgraphs of two nodes."""

    def gap() -> float:
        why = explain.SubgraphX(size=2, samples=256, hops=2, rollouts=60, seed=0).explain(case.target)
        players, values = case.numbers("nodes")
        best, rewards = oracles.best_subgraph(values, players, 2, 2)
        chosen = frozenset(why.parts["subgraph"].nonzero().view(-1).tolist())
        own = torch.tensor([why.checks["value"], why.checks["value"]]).double()
        return apart(own, torch.tensor([rewards[chosen], best]).double())

    yield Trial("nodes", "all connected subgraphs", gap)


def gradient(case: Case) -> Iterator[Trial]:
    """Each method: central differences, or means of slopes along the path or under noise."""
    for kind in {**case.answers, **case.smooth}:
        for method in get_args(Method):

            def gap(kind: str = kind, method: Method = method) -> float:
                steps = POINTS if method == "integrated_gradients" else DRAWS
                why = explain.Gradient(case.players(kind), method, steps=steps, seed=0).explain(case.target)
                return _slope_gap(case, kind, method, why)

            how = "central differences" if method in ("saliency", "input_x_gradient") else "slopes at other points"
            yield Trial(kind, f"{method}, {how}", gap, loose={"integrated_gradients": 2e5}.get(method, 1e3))


def _slope_gap(case: Case, kind: str, method: str, why: Explanation) -> float:
    smooth, count = case.smooth[kind](why.players), len(why.players)
    if method in ("saliency", "input_x_gradient"):
        found = calculus.slopes(smooth)
        credit = found.abs() if method == "saliency" else found * smooth.inputs
        return apart(why.scores, calculus.owned(credit, smooth.owner, count))
    if method == "integrated_gradients":
        return apart(why.scores, calculus.owned(calculus.along_path(smooth), smooth.owner, count))
    generator, drawn = torch.Generator().manual_seed(1), []
    x, base = smooth.inputs.detach(), smooth.baseline
    spread = 0.1 * float(x.max() - x.min()) or 0.1
    for _ in range(DRAWS):
        if method == "gradient_shap":
            at = base + float(torch.rand((), generator=generator)) * (x - base)
            drawn.append((x - base) * calculus.slope_at(smooth, at))
        else:
            noise = spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            drawn.append(calculus.slope_at(smooth, x + noise))
    draws = torch.stack(drawn)
    mean, error = draws.mean(0), draws.std(0) * (2 / len(draws)) ** 0.5
    mean = mean.abs() if method == "smooth_grad" else mean
    return apart(
        why.scores,
        calculus.owned(mean, smooth.owner, count),
        calculus.owned(error, smooth.owner, count),
    )


def influence(case: Case) -> Iterator[Trial]:
    """The formula with the whole Hessian; where the loss is quadratic, training again without each example."""
    yield Trial("train", "-(1/n) grad f H^-1 grad loss_i", lambda: _influence_gap(case))
    if case.training is not None and case.training.quadratic:
        yield Trial("train", "trained again without each", lambda: _retrained_gap(case))


def _engine(case: Case, newton: bool = False) -> Influence:
    if case.training is None:
        return Influence(seed=0)
    return Influence(
        case.training.train, curvature="hessian", damping=_damping(case), newton=newton, solver="exact", seed=0
    )


def _damping(case: Case) -> float:
    assert case.training is not None
    smallest = float(torch.linalg.eigvalsh(case.training.curvature)[0])
    return 0.0 if smallest > 1e-6 else 0.1 - 2 * smallest


def _inverse(case: Case) -> Tensor:
    assert case.training is not None
    H = case.training.curvature
    return torch.linalg.inv(H + _damping(case) * torch.eye(len(H), dtype=H.dtype))


def _influence_gap(case: Case) -> float:
    why, training = _engine(case).explain(case.target), _known(case)
    each = calculus.each_gradient(training.losses, training.theta)
    expected = -each @ _inverse(case) @ calculus.gradient(training.number, training.theta) / len(each)
    return apart(why.scores, expected)


def _retrained_gap(case: Case) -> float:
    why, training = _engine(case, newton=True).explain(case.target), _known(case)
    with torch.no_grad():
        ends = [training.number(calculus.newton_minimum(training, i)) for i in range(len(why.scores))]
        return apart(why.scores, training.number(calculus.newton_minimum(training)) - torch.stack(ends))


def _known(case: Case) -> calculus.Training:
    if case.training is None:
        raise AssertionError("an answer, and nothing to hold it against")
    return case.training


def self_influence(case: Case) -> Iterator[Trial]:
    """The formula with the whole Hessian."""

    def gap() -> float:
        why, training = explain.SelfInfluence(_engine(case)).explain(case.target), _known(case)
        each = calculus.each_gradient(training.losses, training.theta)
        return apart(why.scores, ((each @ _inverse(case)) * each).sum(1) / len(each))

    yield Trial("train", "(1/n) grad loss_i H^-1 grad loss_i", gap)


def relabelling(case: Case) -> Iterator[Trial]:
    """The formula with the whole Hessian."""

    def gap() -> float:
        why, training = explain.Relabelling(0, _engine(case)).explain(case.target), _known(case)
        if training.relabelled is None:
            raise AssertionError("an answer, and nothing to hold it against")
        before = calculus.each_gradient(training.losses, training.theta)
        after = calculus.each_gradient(training.relabelled, training.theta)
        slope = _inverse(case) @ calculus.gradient(training.number, training.theta)
        return apart(why.scores, (before - after) @ slope / len(before))

    yield Trial("train", "the formula with both labels", gap)


def perturbation(case: Case) -> Iterator[Trial]:
    """The inputs of the first training example, by central differences of its gradient."""

    def gap() -> float:
        why, training = explain.Perturbation(0, engine=_engine(case)).explain(case.target), _known(case)
        if training.losses_of is None or training.inputs is None:
            raise AssertionError("an answer, and nothing to hold it against")
        losses_of, inputs = training.losses_of, training.inputs
        slope = _inverse(case) @ calculus.gradient(training.number, training.theta)

        def moved(x: Tensor) -> Tensor:
            one = calculus.gradient(lambda theta: losses_of(theta, x), training.theta)
            return -(one @ slope) / len(inputs)

        smooth = calculus.Smooth(inputs[0], inputs[0], torch.zeros(()), moved)
        return apart(why.scores, calculus.slopes(smooth).reshape(-1))

    yield Trial("inputs of an example", "central differences", gap, loose=1e3)


def tracin(case: Case) -> Iterator[Trial]:
    """The formula."""

    def gap() -> float:
        train = case.training.train if case.training else None
        why = explain.TracIn(rates=0.1, train=train).explain(case.target)
        training = _known(case)
        each = calculus.each_gradient(training.losses, training.theta)
        return apart(why.scores, -0.1 * each @ calculus.gradient(training.number, training.theta) / len(each))

    yield Trial("train", "-(rate/n) grad f grad loss_i", gap)


def trak(case: Case) -> Iterator[Trial]:
    """The formula without a projection."""

    def gap() -> float:
        train = case.training.train if case.training else None
        why = explain.Trak(None, train=train, damping=0.1, seed=0).explain(case.target)
        training = _known(case)
        each = calculus.each_gradient(training.losses, training.theta)
        return apart(why.scores, -_whitened(each, calculus.gradient(training.number, training.theta)))

    yield Trial("train", "its formula, no projection", gap)


def dtrak(case: Case) -> Iterator[Trial]:
    """The formula without a projection, of the question about the loss."""

    def gap() -> float:
        train = case.training.train if case.training else None
        target = case.target if type(case.target).asking is Target.asking else case.target.asking("loss")
        why = explain.DTrak(None, train=train, damping=0.1, seed=0).explain(target)
        training = _known(case)
        if training.sizes is None or training.size is None:
            raise AssertionError("an answer, and nothing to hold it against")
        each = calculus.each_gradient(training.sizes, training.theta)
        return apart(why.scores, _whitened(each, calculus.gradient(training.size, training.theta)))

    yield Trial("train", "its formula, no projection", gap)


def _whitened(each: Tensor, asked: Tensor) -> Tensor:
    kernel = each.T @ each / len(each) + 0.1 * torch.eye(each.size(1), dtype=each.dtype)
    return each @ torch.linalg.solve(kernel, asked) / len(each)
