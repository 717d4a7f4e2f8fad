import itertools
import math

import graph_cases
import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool

import explain
from explain import Shapley, SubgraphX
from explain.subgraphx import Neighbours, Rewards, _most_promising, _State


def shapley_of(game, nodes, around):
    """The Shapley value of a set as one player among its neighbours, everyone else present, coalition by coalition."""
    total = 0.0
    for size in range(len(around) + 1):
        for present in itertools.combinations(around, size):
            mask = torch.ones(2, len(game.players)).bool()
            mask[:, list(around)] = False
            mask[:, list(present)] = True
            mask[:, list(nodes)] = torch.tensor([[True], [False]])
            joined, alone = game(mask).tolist()
            total += (joined - alone) / ((len(around) + 1) * math.comb(len(around), size))
    return total


def member(name="gcn", nodes=11, edges=13, seed=0):
    data = graph_cases.doubled(graph_cases.random_graph(nodes=nodes, edges=edges, seed=seed))
    return explain.wrap(graph_cases.network(name, double=True), data).node(2)


def connected_sets(target, most):
    """Every set of up to ``most`` players that is connected with the explained node."""
    players = target.players("nodes")
    graph = nx.Graph(target.graph.flat_edges.t().tolist())
    numbers = players.geometry["node"].tolist()
    for size in range(1, most + 1):
        for each in itertools.combinations(range(len(players)), size):
            if nx.is_connected(graph.subgraph([2, *(numbers[i] for i in each)])):
                yield each


@pytest.mark.parametrize("name", ["gcn", "gin", "gat"])
def test_the_best_connected_subgraph_is_found(name):
    target = member(name)
    game = target.game("nodes")
    neighbours = Neighbours(game.players)
    values = {
        each: shapley_of(game, each, sorted(neighbours.around(frozenset(each), 2)))
        for each in connected_sets(target, 3)
    }
    best = max(values, key=values.__getitem__)
    why = SubgraphX(size=3, rollouts=60, samples=2**10, children=20, seed=0).explain(target)
    assert why.parts["subgraph"].nonzero().view(-1).tolist() == list(best)
    assert why.checks["value"] == pytest.approx(values[best])
    assert why.checks["value_error"] is None
    assert float(why.scores.sum()) == pytest.approx(values[best])


def test_a_subgraph_nobody_has_seen_is_tried_where_all_rewards_are_negative():
    seen, unseen = _State(frozenset({0}), prior=-0.5), _State(frozenset({1}), prior=-0.1)
    seen.visits, seen.total = 1000, -500.0  # its reward, a thousand times
    assert _most_promising([seen, unseen], explore=5.0) is unseen


def test_a_sampled_reward_is_the_shapley_value_within_its_error():
    target = member(nodes=14, edges=24)
    exact = SubgraphX(size=1, rollouts=1, samples=2**13, hops=9, seed=0).explain(target)
    drawn = SubgraphX(size=1, rollouts=1, samples=2000, hops=9, seed=0).explain(target)
    assert exact.checks["value_error"] is None
    assert drawn.checks["value_error"] > 0
    who = exact.parts["subgraph"]
    assert torch.equal(who, drawn.parts["subgraph"])
    assert abs(drawn.checks["value"] - exact.checks["value"]) < 4 * drawn.checks["value_error"]
    assert exact.checks["nodes"] == 1
    shapley = Shapley("nodes").explain(target)  # everyone is within nine hops
    assert exact.checks["value"] == pytest.approx(float(shapley.scores[who]), rel=1e-12)


def test_subgraphs_too_large_to_be_the_answer_cost_a_quarter():
    game = member(nodes=14, edges=24).game("nodes")
    rewards = Rewards(game, Neighbours(game.players), 16, 2, 9, torch.Generator().manual_seed(0))
    few, many = (len(rewards._coalitions(frozenset(range(size)))[0]) for size in (2, 3))
    assert (few, many) == (2 * 16, 2 * 4)


class Motif(nn.Module):
    """One where three marked nodes are all there, else zero: whatever else the graph holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, edge_index, batch):
        return (global_add_pool(x[:, :1], batch) * self.weight - 2).relu()


def test_a_planted_motif_of_a_graph_is_found():
    x = torch.zeros(8, 2)
    x[[2, 3, 4], 0] = 1.0
    path = torch.stack([torch.arange(7), torch.arange(1, 8)])
    data = Data(x=x, edge_index=torch.cat([path, path.flip(0)], 1))
    target = explain.wrap(Motif(), [data]).graph(0)
    why = SubgraphX(size=3, samples=256, rollouts=30, hops=2, seed=0).explain(target)
    assert why.players.index[why.parts["subgraph"]].tolist() == [2, 3, 4]
    assert why.value == 1.0


def test_it_is_the_same_for_the_same_seed():
    one, other = (SubgraphX(size=3, samples=8, rollouts=5, seed=3).explain(member()) for _ in range(2))
    assert torch.equal(one.scores, other.scores)


def test_nobody_around_leaves_an_empty_answer():
    target = explain.wrap(graph_cases.network("gcn"), graph_cases.random_graph()).node(23)
    why = SubgraphX().explain(target)
    assert len(why.scores) == 0
    assert why.checks["nodes"] == 0


def test_other_players_are_refused():
    with pytest.raises(explain.Unsupported, match="nodes of a graph"):
        SubgraphX(players="edges").explain(member())


@pytest.mark.parametrize(
    ("setting", "value"), [("size", 0), ("rollouts", 1.5), ("samples", True), ("samples", 1), ("explore", -1.0)]
)
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=setting):
        SubgraphX(**{setting: value})
