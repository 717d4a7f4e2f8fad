"""`damping="auto"` of a Gauss-Newton matrix: what the curvature of half of the examples foretells of the others'."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from explain import Influence, wrap
from explain.influence import GaussNewton, held_out
from explain.influence.example_gradients import example_gradients
from explain.influence.held_out import grid, held_out_damping, judged
from explain.supervised.model import SupervisedModel

EXAMPLES, LABELS = 40, 3
ASKED = torch.full((6,), 0.5, dtype=torch.float64)


def memorised(examples: int = EXAMPLES, copies: int = 1) -> SupervisedModel:
    """123 parameters that learned points by heart."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(examples, 6, generator=g).double(), torch.randint(LABELS, (examples,), generator=g)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, LABELS)).double()
    optimizer = torch.optim.Adam(net.parameters(), 0.02, weight_decay=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    train = x.repeat(copies, 1), y.repeat(copies)
    return wrap(net, task="classification", train=train, weight_decay=1e-3)


def overgrown(examples: int = EXAMPLES, copies: int = 1) -> GaussNewton:
    """Its curvature."""
    return GaussNewton(memorised(examples, copies).example(ASKED).objective(None))


def by_hand(A: GaussNewton, splits: int, columns: int, dampings: Tensor) -> Tensor:
    """Every matrix whole, each system solved anew."""
    generator = torch.Generator().manual_seed(0)
    G = torch.cat([rows for _, rows in example_gradients(A.objective)])
    total = torch.zeros(len(dampings), dtype=torch.float64)
    for _ in range(splits):
        order = torch.randperm(A.objective.size, generator=generator)
        asked, rest = order[:columns], order[columns:]
        one, other = (A.on(half).dense() for half in rest.tensor_split(2))
        for a, b in ((one, other), (other, one)):
            for k, d in enumerate(dampings):
                g = nn.functional.normalize(G[asked]).T
                x = torch.linalg.solve(a + d * torch.eye(len(a)), g)
                total[k] += ((x * (b @ x)).sum(0) / 2 - (g * x).sum(0)).mean()
    return total


def test_it_is_the_best_of_the_grid_by_systems_solved_one_by_one(monkeypatch):
    monkeypatch.setattr(held_out, "STEPS", 20)
    A = overgrown()
    largest = float(torch.linalg.eigvalsh(A.dense())[-1])
    best = grid(largest)[by_hand(A, held_out.SPLITS, EXAMPLES // 4, grid(largest)).argmin()]
    assert held_out_damping(A, largest) == pytest.approx(float(best), rel=1e-9)
    assert grid(largest)[0] < best < grid(largest)[-1]


def test_few_steps_find_nearly_the_same():
    A = overgrown()
    largest = float(torch.linalg.eigvalsh(A.dense())[-1])
    losses = by_hand(A, held_out.SPLITS, EXAMPLES // 4, grid(largest))
    at = int((grid(largest) - held_out_damping(A, largest)).abs().argmin())
    assert losses[at] < 0.98 * losses.min() < 0  # of what the best of all gains, all but 2 %


def test_a_krylov_space_judges_as_dense_matrices_do():
    g = torch.Generator().manual_seed(1)
    A = overgrown()
    first, second = A.on(torch.arange(20)), A.on(torch.arange(20, 40))
    rows = torch.randn(A.size, 5, generator=g, dtype=torch.float64)
    dampings = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    for d, found in zip(dampings, judged(first, second, rows, dampings), strict=True):
        x = torch.linalg.solve(first.dense() + d * torch.eye(A.size), rows)
        expected = ((x * (second.dense() @ x)).sum(0) / 2 - (rows * x).sum(0)).mean()
        assert float(found) == pytest.approx(float(expected), rel=0.02 if d < 0.1 else 1e-3)


def test_halves_that_bend_alike_need_less():
    once, often = overgrown(), overgrown(copies=16)
    assert held_out_damping(often, 1.0) < held_out_damping(once, 1.0) / 5


def test_of_few_examples_there_is_none():
    A = overgrown(11)
    assert held_out_damping(A, 1.0) is None


def test_one_too_large_for_memory_has_none(monkeypatch):
    monkeypatch.setattr(held_out, "MEMORY", 1000)
    assert held_out_damping(overgrown(), 1.0) is None


def test_examples_without_a_gradient_have_none():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    model = wrap(net, task="regression", train=(x, net(x).detach()))
    assert held_out_damping(GaussNewton(model.example(x[0]).objective(None)), 1.0) is None


def test_influence_says_so_and_no_seed_moves_it():
    target = memorised().example(ASKED)
    whys = [Influence(curvature="ggn", seed=seed).explain(target) for seed in (0, 1)]
    assert whys[0].checks["damping"] == whys[1].checks["damping"] > 0
    assert "half of the examples foretell" in whys[0].checks["why_curvature"]


def test_a_linear_model_with_a_penalty_is_not_damped():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=g).double(), torch.randint(2, (30,), generator=g)
    model = wrap(nn.Linear(4, 2).double(), task="classification", train=(x, y), weight_decay=0.1)
    with pytest.warns(UserWarning, match="not at a minimum"):
        why = Influence(curvature="ggn").explain(model.example(x[0]))
    assert why.checks["damping"] == 0
