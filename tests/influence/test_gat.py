"""A trained GAT on the karate club: its Hessian is indefinite, and Influence says what it did instead."""

import pytest
import torch
from influence_cases import ObjectiveTarget
from torch.func import functional_call
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GAT

from explain.influence import Indefinite, Influence
from explain.training import TrainingObjective, trainable
from explain.types import Players


@pytest.fixture(scope="module")
def target():
    data = KarateClub()[0]
    torch.manual_seed(0)
    net = GAT(34, 4, 2, 4, heads=4, act="elu")
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=5e-4)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(data.x, data.edge_index), data.y).backward()
        optimiser.step()
    net.eval()

    def outputs(params):
        return functional_call(net, params, (data.x, data.edge_index))

    objective = TrainingObjective(
        trainable(net),
        Players("train", torch.arange(34)),
        lambda p, at: outputs(p)[at],
        data.y,
        lambda p: outputs(p)[8, data.y[8]],
        weight_decay=5e-4,
    )
    return ObjectiveTarget(objective, net)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum of its training loss .gradient norm")
def test_the_documented_answers(target):
    with pytest.raises(Indefinite, match=r"smallest eigenvalue is -.*Use damping=") as raised:
        Influence(curvature="hessian", damping=0, seed=0).explain(target)
    with pytest.warns(UserWarning, match=r"Hessian's smallest eigenvalue is -.*Inverted instead: ggn with damping"):
        found = Influence(seed=0).explain(target)
    assert found.checks["curvature"] == "ggn"
    assert found.checks["hessian_lambda_min"] < 0 < found.checks["lambda_min"]
    assert found.checks["residual"] < 1e-6

    damping = float(str(raised.value).split("damping=")[1].split(",")[0])
    damped = Influence(curvature="hessian", damping=damping, seed=0).explain(target)
    assert damped.checks["lambda_min"] > 0


@pytest.mark.filterwarnings("ignore:the model is not at a minimum of its training loss")
def test_the_solvers_agree(target):
    exact, *others = (Influence(solver=s, seed=0).explain(target) for s in ("exact", "cg", "lissa"))
    for other in others:
        assert (other.scores - exact.scores).norm() <= 0.02 * exact.scores.norm()
        assert other.checks["residual"] <= 1e-4
