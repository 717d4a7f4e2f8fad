"""Explainers are made again from what an answer says of them, or refused."""

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, HeteroConv, SAGEConv, global_mean_pool

import explain
from explain.cli.making import CannotReplay, explainer_of
from explain.cli.replaying import explained, replay
from explain.influence.solvers.lissa import Lissa


def graph():
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 2, 3, 4, 1], [1, 2, 3, 4, 0, 3]])
    data = Data(torch.eye(5), edges, y=torch.tensor([0, 1, 0, 1, 0]), train_mask=torch.ones(5).bool())
    return explain.wrap(GCN(5, 4, 2, 2), data, weight_decay=0.1)


class Typed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        kinds = {("a", "to", "b"): SAGEConv(2, 2), ("b", "to", "a"): SAGEConv(2, 2)}
        self.conv = HeteroConv(kinds)

    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)["b"]


class Pairs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = SAGEConv(5, 2)

    def forward(self, x, edge_index, edge_label_index):
        z = self.conv(x, edge_index)
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


class Whole(Pairs):
    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.conv(x, edge_index), batch)


def typed():
    torch.manual_seed(0)
    data = HeteroData()
    data["a"].x, data["b"].x = torch.rand(3, 2), torch.rand(3, 2)
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1, 2], [0, 1, 2]])
    data["b", "to", "a"].edge_index = torch.tensor([[0, 1, 2], [1, 2, 0]])
    return explain.wrap(Typed(), data, task="node")


QUESTIONS = {
    "node": (graph, lambda model: model.node(2)),
    "edge": (lambda: explain.wrap(Pairs(), graph().data, task="edge"), lambda model: model.edge(1, 3)),
    "graph": (lambda: explain.wrap(Whole(), [graph().data] * 2, task="graph"), lambda model: model.graph(1)),
    "typed": (typed, lambda model: model.node(("b", 2))),
}


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_question_is_asked_again_from_its_file(kind, tmp_path):
    made, ask = QUESTIONS[kind]
    model = made()
    explained(explain.Shapley("edges"), ask(model)).save(tmp_path / "why")
    kept = explain.Explanation.load(tmp_path / "why")
    assert replay(kept, model).differs == ()
    assert replay(kept, made()).identical


@pytest.mark.filterwarnings("ignore")  # doubts of a network that was never trained
@pytest.mark.parametrize(
    "explainer",
    [
        explain.Shapley("edges", "permutation", samples=20),
        explain.Lime("nodes", samples=9, seed=4),
        explain.Influence(solver=Lissa(depth=20), damping=1.0),
        explain.SelfInfluence(explain.Influence(damping=1.0)),
        explain.Gradient("edges", "integrated_gradients", steps=3),
        explain.Mask("edges", epochs=2, repeats=2),
    ],
    ids=lambda explainer: type(explainer).__name__,
)
def test_an_explainer_is_made_again(explainer):
    target = graph().node(2)
    why = explained(explainer, target)
    found = replay(why, target)
    assert found.identical, found.differs
    assert found.again is not why


@pytest.mark.filterwarnings("ignore")
def test_players_of_ones_own_are_those_of_the_answer():
    target = graph().node(2)
    some = target.players("edges", undirected=True)
    for explainer in (explain.Occlusion(some), explain.Influence(remove=target.players("edges"), damping=1.0)):
        assert replay(explained(explainer, target), target).identical


def test_what_a_file_does_not_hold_is_refused():
    target = graph().node(2)
    why = explain.Occlusion("edges").explain(target)
    with pytest.raises(CannotReplay, match="did you mean 'Occlusion'"):
        explainer_of(explain.Explanation(why.scores, why.players, why.value, method="Oclusion"))
    table = explain.wrap(torch.nn.Linear(2, 1), task="regression")
    asked = explain.Shapley("features").explain(table.example(torch.ones(2)))
    with pytest.raises(CannotReplay, match="name the target itself"):
        replay(asked, table)
    own = explain.Shapley("edges").explain(graph().node(2, payoff=lambda outputs: outputs[:, 0]))
    with pytest.raises(CannotReplay, match="name the target itself"):
        replay(own, graph())
    with pytest.raises(TypeError, match="not wrapped"):
        replay(why, torch.nn.Linear(2, 1))
