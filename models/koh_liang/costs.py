"""What influence costs: seconds and errors of the solvers (section 3)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import explain
from explain import Influence
from explain.influence import ConjugateGradient, Exact, Lissa
from explain.influence.solvers.solution import Solver
from models.koh_liang.data import Split
from models.koh_liang.rows import Row
from models.linear import Linear
from models.optimum import fitted

WEIGHT_DECAY = 0.01
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 1e-3)


@dataclass(frozen=True)
class Costs:
    """Influence on one test digit's loss, by solver and tolerance.

    Args:
        seconds: wall time of each, the measured spectrum included.
        errors: relative L2 distance of the influence of all training digits from that of the reference.
        reference: the direct solution up to 3,000 parameters, else conjugate gradients to 1e-8.
        scale: of LiSSA, found by itself.
        largest: eigenvalue of the curvature.
    """

    seconds: dict[str, list[float]]
    errors: dict[str, list[float]]
    reference: explain.Explanation
    scale: float
    largest: float

    def rows(self) -> list[Row]:
        """K15."""
        n, p = self.reference.checks["examples"], self.reference.checks["parameters"]
        to_two = "; ".join(f"{name} {_reached(*found)}" for name, found in self._curves().items())
        return [
            Row(
                "K15",
                "Sec. 3: costs",
                "exact O(n p^2 + p^3), CG O(n p) a step, LiSSA O(n p + r t p); scale by hand",
                f"{self.reference.checks['solver']} {self.reference.seconds:.2f} s; to 2 % of it: {to_two} (n {n:,}, p "
                f"{p:,}); LiSSA's scale {self.scale:.2f} by itself, largest eigenvalue {self.largest:.2f}",
                "another machine; the spectrum is measured first, and is part of the time",
                self.scale >= self.largest and min(self.errors["lissa"]) <= 0.02,
            )
        ]

    def _curves(self) -> Mapping[str, tuple[list[float], list[float]]]:
        return {name: (self.seconds[name], self.errors[name]) for name in self.seconds}


def costs(split: Split) -> Costs:
    """Multinomial logistic regression, the first test digit."""
    net = fitted(Linear(split.x[0].numel(), 10), split.x, split.y, weight_decay=WEIGHT_DECAY)
    model = explain.wrap(net, train=(split.x, split.y), task="classification", weight_decay=WEIGHT_DECAY)
    target = model.example(split.test_x[0], label=int(split.test_y[0]), payoff="loss")
    few = sum(p.numel() for p in net.parameters()) <= 3000
    reference = _asked(target, Exact() if few else ConjugateGradient(tolerance=1e-8))
    seconds: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for name, kind in (("cg", ConjugateGradient), ("lissa", Lissa)):
        found = [_asked(target, kind(tolerance=tolerance)) for tolerance in TOLERANCES]
        seconds[name] = [why.seconds for why in found]
        errors[name] = [float((why.scores - reference.scores).norm() / reference.scores.norm()) for why in found]
    checks = found[-1].checks
    return Costs(seconds, errors, reference, checks["scale"], checks["lambda_max"])


def _asked(target: explain.Target, solver: Solver) -> explain.Explanation:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the inverse is loose")  # on purpose
        return Influence(solver=solver, seed=0).explain(target)


def _reached(seconds: list[float], errors: list[float], error: float = 0.02) -> str:
    within = [s for s, e in zip(seconds, errors, strict=True) if e <= error]
    return f"{min(within):.2f} s" if within else "not reached"
