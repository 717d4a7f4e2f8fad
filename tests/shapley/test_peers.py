"""Other libraries answer about the same Game."""

import numpy as np
import pytest
import shap
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from shapley_cases import tabled

from explain.shapley import Shapley

GAMES = {"structureless": table_function(random_table(8, 0)), "smooth": smooth_function(8, 0)}


@pytest.mark.parametrize("name", GAMES)
def test_shapiq_agrees(name):
    shapiq = pytest.importorskip("shapiq")
    target = GameTarget(GAMES[name], 8)
    game = target.game("nodes")
    theirs = shapiq.ExactComputer(game=game, n_players=len(game.players))("SV").get_n_order_values(1)
    np.testing.assert_allclose(Shapley("nodes").explain(target).scores.numpy(), theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", GAMES)
def test_shap_agrees(name):
    """Eight players are few enough for its KernelExplainer to enumerate; ExactExplainer would compile for long."""
    target = GameTarget(GAMES[name], 8)
    theirs = shap.KernelExplainer(target.game("nodes"), np.zeros((1, 8)))
    values = theirs.shap_values(np.ones((1, 8)), silent=True)
    np.testing.assert_allclose(Shapley("nodes").explain(target).scores.numpy(), values[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("estimator", ["kernel", "stratified"])
@pytest.mark.parametrize("name", ["smooth", "sparse"])
def test_ours_are_nearer_than_shap_at_the_same_budget(name, estimator):
    function = table_function(tabled(name, 13, 1))
    exact = Shapley("nodes").explain(GameTarget(function, 13)).scores
    ours, theirs = [], []
    for seed in range(8):
        target = GameTarget(function, 13)
        ours.append(Shapley("nodes", estimator, 400, seed=seed).explain(target).scores)
        np.random.seed(seed)  # noqa: NPY002 - shap draws from the global state
        other = shap.KernelExplainer(target.game("nodes"), np.zeros((1, 13)))
        found = other.shap_values(np.ones((1, 13)), nsamples=398, l1_reg=False, silent=True)
        theirs.append(torch.from_numpy(found[0]))
    gaps = [float((torch.stack(found) - exact).norm()) for found in (ours, theirs)]
    assert gaps[0] < gaps[1]
