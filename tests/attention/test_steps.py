"""Attention of runs over several steps: maps of a step are not chained to those of the one before."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import explain
from explain import Attention
from explain.attention.rollout import NoChain
from explain.diffusion.categorical import Categorical

NODES = 4


class Reader(nn.Module):
    """Logits of tokens by attention over all of them."""

    def __init__(self):
        super().__init__()
        self.places, self.time, self.into = nn.Parameter(torch.randn(NODES, 3)), nn.Linear(1, 3), nn.Linear(2, 3)
        self.looks, self.out = nn.Linear(3, 9), nn.Linear(3, 2)

    def forward(self, y_t, t):
        h = self.into(y_t.view(-1, NODES, 2)) + self.places + self.time(t.view(-1)[:1, None].to(y_t))
        q, k, v = self.looks(h).chunk(3, -1)
        return self.out((q @ k.mT).softmax(-1) @ v).reshape(-1, 2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    known = torch.tensor([True, False, False, True])
    edges = torch.empty(2, 0, dtype=torch.long)
    data = Data(edge_index=edges, y=torch.tensor([0, 1, 0, 1]), train_mask=known, num_nodes=NODES)
    process = Categorical.uniform(torch.full((3,), 0.3), 2)
    return explain.wrap(Reader().double().eval(), data, process=process, time="step", classes=2)


def test_a_run_has_the_mean_of_its_steps_and_no_rollout(model):
    run = model.trajectory(2, 0, draws=1)
    why, mean = Attention("nodes").explain(run), Attention("nodes", aggregate="mean").explain(run)
    assert why.checks["maps"] == 3
    by_hand = torch.stack([why.parts[f"attention.{step}"][0, 0, 2] for step in range(3)]).mean(0)
    assert torch.equal(why.scores, mean.scores)
    assert torch.allclose(why.scores, by_hand[why.players.index], atol=1e-12)
    with pytest.raises(NoChain, match=r"3 steps of a run.*use aggregate='mean' or 'last', or one step, steps=1"):
        Attention("nodes", aggregate="rollout").explain(run)
    one = Attention("nodes", aggregate="rollout", residual=0.0, steps=1).explain(run)
    assert torch.allclose(one.scores, why.parts["attention.2"][0, 0, 2][one.players.index], atol=1e-12)


def test_draws_are_looked_at_one_by_one_and_averaged(model):
    step, run = model.step(t=2, node=2, draws=4), model.trajectory(2, 0, draws=3, seed=5)
    why = Attention("nodes", residual=0.0).explain(step)
    net = model.net
    each = []
    for noised in step.noised:
        h = net.into(noised) + net.places + net.time(torch.tensor([[2.0]]).double())
        q, k, _ = net.looks(h).chunk(3, -1)
        each.append((q @ k.T).softmax(-1)[2].detach())
    torch.testing.assert_close(why.scores, torch.stack(each).mean(0)[why.players.index])
    assert (why.checks["draws"], why.checks["maps"]) == (4, 1)
    torch.testing.assert_close(why.parts["attention.0"][0, 0, 2], torch.stack(each).mean(0))
    of_runs = Attention("nodes").explain(run)
    alone = [Attention("nodes").explain(model.trajectory(2, 0, draws=1, seed=5 + draw)) for draw in range(3)]
    torch.testing.assert_close(of_runs.scores, torch.stack([one.scores for one in alone]).mean(0))
    assert "draws" not in alone[0].checks
    assert not torch.equal(alone[0].scores, of_runs.scores)
