"""Explainers are made again from what an answer says of them, or refused."""

import pytest
import torch
from diffusion_cases import digits_like, unet_model
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "add", [torch.tensor([[0, 4], [2, 1]]), [torch.tensor([[0], [2]]), torch.tensor([[4, 3], [1, 0]])]]
)
def test_edges_that_were_added_one_by_one_or_in_groups_are_added_again(add, tmp_path):
    target = graph().node(2)
    explained(explain.Influence(add=add, damping=1.0), target).save(tmp_path / "why")
    kept = explain.Explanation.load(tmp_path / "why")
    assert len(kept) == 2
    assert replay(kept, graph()).differs == ()


def table(**options):
    torch.manual_seed(0)
    return explain.wrap(
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)),
        task="classification",
        **options,
    )


def pictures():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    return explain.wrap(net.double(), task="classification")


def words():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Embedding(9, 2), torch.nn.Flatten(), torch.nn.Linear(6, 2))
    return explain.wrap(net, task="classification")


BACKGROUND = torch.arange(12.0).reshape(4, 3)
ROW, PICTURE = torch.tensor([0.1, -2.0, 3.0]), torch.linspace(0, 1, 64).double().reshape(1, 8, 8)
ASKED = {
    "table": (table, lambda model: model.example(ROW), "features"),
    "class": (table, lambda model: model.example(ROW, 0, payoff="probability", baseline="zeros"), "features"),
    "background": (lambda: table(background=BACKGROUND), lambda model: model.example(ROW), "features"),
    "tokens": (words, lambda model: model.example(torch.tensor([3, 1, 8])), "features"),
    "patches": (pictures, lambda model: model.example(PICTURE, 1), "patches"),
    "step": (unet_model, lambda model: model.step(digits_like()[0], t=10, label=3, seed=5, guidance=2.0), "patches"),
    "steps": (
        unet_model,
        lambda model: model.step(digits_like()[0], t=[5, 10], label=3, payoff="norm", draws=2),
        "patches",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ASKED)
def test_rows_pictures_and_noise_levels_are_asked_about_again_from_their_file(kind, tmp_path):
    made, ask, players = ASKED[kind]
    explained(explain.Occlusion(players), ask(made())).save(tmp_path / "why")
    kept = explain.Explanation.load(tmp_path / "why")
    found = replay(kept, made())
    assert found.identical
    assert found.differs == ()
    assert found.again.scores.abs().max() > 0


NOT_KEPT = {
    "a tensor of your own": (table, lambda model: model.example(ROW, baseline=torch.ones(3))),
    "reference images": (
        unet_model,
        lambda model: model.step(digits_like()[0], t=10, label=3, fill="reference", reference=digits_like(2)),
    ),
    "region of your own": (
        unet_model,
        lambda model: model.step(digits_like()[0], t=10, label=3, region=torch.eye(8).bool()),
    ),
    "what the run was asked": (
        unet_model,
        lambda model: model.trajectory(3, payoff=lambda samples: samples.mean((1, 2, 3)), steps=2),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", NOT_KEPT)
def test_what_a_question_hung_on_that_no_file_keeps_is_named(words):
    made, ask = NOT_KEPT[words]
    target = ask(made())
    why = explain.Occlusion(target.kinds[0]).explain(target)
    with pytest.raises(CannotReplay, match=words):
        replay(why, made())
    assert replay(explained(explain.Occlusion(target.kinds[0]), target), target).identical


def test_reference_images_are_missed_where_the_mean_was_theirs():
    target = unet_model().step(digits_like()[0], t=10, label=3, reference=digits_like(2, seed=4))
    found = replay(explained(explain.Occlusion("patches"), target), unet_model())
    assert not found.identical
    assert "reference images, if there were any, are in no file" in found.differs[-1]
    assert any(line.startswith("data digest") for line in found.differs)


def test_what_a_file_does_not_hold_is_refused():
    target = graph().node(2)
    why = explain.Occlusion("edges").explain(target)
    with pytest.raises(CannotReplay, match="did you mean 'Occlusion'"):
        explainer_of(explain.Explanation(why.scores, why.players, why.value, method="Oclusion"))
    table = explain.wrap(torch.nn.Linear(2, 1), task="regression")
    asked = explain.Shapley(explain.Players("features", torch.arange(2))).explain(table.example(torch.ones(2)))
    with pytest.raises(CannotReplay, match="features do not hold its values"):
        replay(asked, table)
    with pytest.raises(CannotReplay, match="cannot be asked of this GraphModel"):
        replay(asked, graph())
    own = explain.Shapley("edges").explain(graph().node(2, payoff=lambda outputs: outputs[:, 0]))
    with pytest.raises(CannotReplay, match="name the target itself"):
        replay(own, graph())
    with pytest.raises(TypeError, match="not wrapped"):
        replay(why, torch.nn.Linear(2, 1))
