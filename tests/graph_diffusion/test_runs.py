"""Runs that label a graph: each coalition is the run of the paper on the edited graph, with the same noise."""

import pytest
import torch
from label_denoisers import BETAS, Colouring, T, by_hand, exact_shapley, small_ladder
from torch import nn
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import explain
from explain import Gradient, Lime, Mask, Occlusion, Shapley, Unsupported
from explain.attention.capture import NothingCaptured


@pytest.fixture(scope="module")
def data():
    return small_ladder()


@pytest.fixture(scope="module")
def net():
    return Colouring()


@pytest.fixture(scope="module")
def model(net, data):
    return explain.wrap(net, data, betas=BETAS, time="step")


@pytest.mark.parametrize("options", [{}, {"temperature": 0.3}, {"constrained": False}])
def test_a_run_is_that_of_the_paper(model, net, data, options):
    for node in (4, 9):
        found = model.trajectory(node, int(data.y[node]), draws=4, seed=2, **options).value()
        assert found == by_hand(net, data, data.train_mask, node, int(data.y[node]), 4, seed=2, **options)


def test_shapley_values_of_known_labels_are_those_of_every_subset_with_the_same_noise(model, net, data):
    node, label = 4, int(data.y[4])
    why = Shapley("known_labels").explain(model.trajectory(node, label, draws=4))

    def value(held):
        known = torch.zeros(10, dtype=torch.bool).index_fill(0, torch.tensor(sorted(held), dtype=torch.long), True)
        return by_hand(net, data, known, node, label, 4)

    players = data.train_mask.nonzero().view(-1).tolist()
    assert why.players.index.tolist() == players
    assert why.scores.tolist() == pytest.approx(exact_shapley(value, players), abs=1e-12)
    assert why.checks["removal"] == "unknown, and sampled with the others"
    assert 0 < float(why.scores.sum()) == pytest.approx(why.value - why.base)


def test_an_edge_that_is_taken_away_is_gone_and_moves_nobodys_noise(model, net, data):
    node, label = 3, int(data.y[3])
    game = model.trajectory(node, label, draws=3).game("edges")
    masks = torch.rand(6, 26, generator=torch.Generator().manual_seed(0)) < 0.35
    expected = [by_hand(net, data, data.train_mask, node, label, 3, edges=mask) for mask in masks]
    assert game(masks).tolist() == expected
    assert len(set(expected)) > 1


def test_a_node_that_is_taken_away_loses_edges_features_and_its_known_label(model, net, data):
    node, label, gone = 4, int(data.y[4]), [2, 8]
    players = model.trajectory(node, label, draws=4).players("nodes")
    assert node not in players.index.tolist()
    mask = ~torch.isin(players.index, torch.tensor(gone))
    kept = ~torch.isin(data.edge_index, torch.tensor(gone)).any(0)
    known = data.train_mask.clone().index_fill(0, torch.tensor(gone), False)
    other = data.clone()
    other.x = other.x.index_fill(0, torch.tensor(gone), 0.0)
    found = model.trajectory(node, label, draws=4).game(players)(mask[None])
    assert found.item() == by_hand(net, other, known, node, label, 4, edges=kept)


@pytest.mark.parametrize("kind", ["known_labels", "nodes", "edges", "features", "steps", "guidance"])
def test_values_are_the_same_in_batches_of_any_size(model, data, kind):
    asked = [model.trajectory(4, 0, payoff="state", draws=2, batch_size=size) for size in (1, 3, 64)]
    players = asked[0].players(kind)
    masks = torch.rand(7, len(players), generator=torch.Generator().manual_seed(1)) < 0.5
    one, few, all_of_them = (target.game(players)(masks) for target in asked)
    torch.testing.assert_close(few, one, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(all_of_them, one, rtol=1e-9, atol=1e-9)


def test_labels_out_of_reach_get_nothing_and_those_within_reach_all(net):
    """Two ladders without a rung between them: what is known of the other says nothing."""
    one, other = small_ladder(3, 0.4), small_ladder(3, 0.4)
    both = Data(
        x=torch.cat([one.x, other.x]),
        edge_index=torch.cat([one.edge_index, other.edge_index + 6], 1),
        y=torch.cat([one.y, 1 - other.y]),
        train_mask=torch.cat([one.train_mask, other.train_mask]),
    )
    node = int((~one.train_mask).nonzero()[0])
    model = explain.wrap(net, both, betas=BETAS, time="step")
    plain = Shapley("known_labels").explain(model.trajectory(node, int(both.y[node]), draws=16, constrained=False))
    near = plain.players.index < 6
    assert plain.scores[~near].abs().max() < 1e-12
    assert plain.value - plain.base > 0.1
    asked = model.trajectory(node, int(both.y[node]), draws=16)
    why = Shapley("known_labels").explain(asked)  # every known label is in the distance that a correction is divided by
    assert why.scores[near].abs().sum() > 0.95 * why.scores.abs().sum()
    assert why.value - why.base > 0.2
    within = asked.players("known_labels", hops=6)
    assert within.index.tolist() == why.players.index[near].tolist()


def test_steps_look_or_hold_to_what_was_foreseen_and_guidance_corrects(model, data):
    asked = model.trajectory(4, int(data.y[4]), payoff="state", draws=3)
    steps = asked.players("steps", size=4)
    assert steps.names == ("t=7", "t=3")
    assert steps.geometry["t"].tolist() == [7, 3]
    none, every = asked.game(steps).ends()
    assert every == pytest.approx(asked.value(), abs=1e-12)
    assert none == pytest.approx(0.5, abs=1e-9)  # nobody looked: all classes alike
    plain = model.trajectory(4, int(data.y[4]), payoff="state", draws=3, constrained=False)
    assert asked.game("guidance").ends() == pytest.approx((plain.value(), asked.value()), abs=1e-12)
    with pytest.raises(ValueError, match="no guidance to play with"):
        plain.players("guidance")


def test_settling_and_labels_together(model, data):
    run = model.trajectory(4, draws=6, seed=1)
    ends, times = run.labels(), run.commit_times()
    foreseen = run.foreseen()
    assert foreseen.shape == (T, 10, 2)
    torch.testing.assert_close(foreseen.sum(-1), torch.ones(T, 10).double())
    assert bool((ends[:, data.train_mask] == data.y[data.train_mask]).all())
    assert (times.shape, int(times.min()) >= 0, int(times.max()) <= T) == ((6, 10), True, True)
    last = foreseen[-1].argmax(-1)[data.train_mask]
    assert torch.equal(last, data.y[data.train_mask])
    found = run.together()
    right = (ends == data.y).double()
    hidden = (~data.train_mask).nonzero().view(-1).tolist()
    hoods = {n: [n, *data.edge_index[0][data.edge_index[1] == n].tolist()] for n in hidden}
    assert found.node == pytest.approx(float(right[:, hidden].mean()))
    assert found.subgraph == pytest.approx(sum(float(right[:, own].prod(1).mean()) for own in hoods.values()) / 6)
    assert found.independent == pytest.approx(sum(float(right.mean(0)[own].prod()) for own in hoods.values()) / 6)
    plain = model.trajectory(4, draws=32, constrained=False).together()
    assert plain.subgraph > plain.independent + 0.05  # other than the neighbours: right together, or wrong together
    moved = run.corrections()
    assert moved.shape == (T, 6)
    assert bool((moved[:3] > 0).all())
    assert not moved[-1].any()  # the last step is not corrected


def test_any_function_of_all_labels(model, data):
    def proper(states):  # is every edge between two classes?
        classes = states.argmax(-1)
        return (classes[:, data.edge_index[0]] != classes[:, data.edge_index[1]]).all(1).double()

    asked = model.trajectory(payoff=proper, draws=8)
    classes = asked.labels()
    expected = (classes[:, data.edge_index[0]] != classes[:, data.edge_index[1]]).all(1).double().mean()
    assert asked.value() == pytest.approx(float(expected))
    why = Occlusion("known_labels").explain(asked)
    assert why.value == pytest.approx(float(expected))
    assert "proper" in asked.describe()["payoff"]
    with pytest.raises(ValueError, match="looks across rows"):
        model.trajectory(payoff=lambda states: states[:, 0, 0] - states[:, 0, 0].mean())


def test_gradients_go_through_a_run_to_known_labels_and_features(model, data):
    asked = model.trajectory(4, int(data.y[4]), payoff="state", draws=2, steps=4, constrained=False)
    question = asked.differentiable("known_labels")
    x = question.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(question.f(x).sum(), x)
    row, column = (int(part[0]) for part in (gradient[0].abs() == gradient.abs().max()).nonzero(as_tuple=True))
    step = torch.zeros_like(x.detach())
    step[0, row, column] = 1e-6
    with torch.no_grad():
        slope = float(question.f(x + step) - question.f(x - step)) / 2e-6
    assert float(gradient[0, row, column]) == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-3
    why = Gradient("known_labels", steps=256).explain(asked)
    assert why.checks["completeness_gap"] < 0.05
    assert why.checks["removal"] == "a label that says nothing, all classes alike"
    assert Gradient("features", method="saliency").explain(asked).checks["value_gap"] < 1e-9


def test_what_makes_no_sense_is_refused_in_words(model):
    share = model.trajectory(4, 0, draws=1)
    with pytest.raises(Unsupported, match=r"no derivative: .*payoff='state'"):
        Gradient("known_labels").explain(share)
    with pytest.raises(Unsupported, match="gradients are over the features, and of a run over its known labels"):
        Gradient("edges").explain(share)
    with pytest.raises(Unsupported, match="learned masks"):
        Mask("edges").explain(share)
    with pytest.raises(Unsupported, match="does not offer objective"):
        explain.Influence().explain(share)
    with pytest.raises(ValueError, match="labels on a graph play with known_labels, nodes"):
        Shapley("patches").explain(share)
    with pytest.raises(NothingCaptured):
        explain.Attention("edges").explain(share)


def test_lime_agrees_with_shapley_on_who_matters(model, data):
    asked = model.trajectory(4, int(data.y[4]), draws=8)
    lime, fair = Lime("known_labels", seed=0).explain(asked), Shapley("known_labels").explain(asked)
    assert int(lime.scores.argmax()) == int(fair.scores.argmax())


def test_the_model_and_random_states_are_as_before(net, data):
    net.train()
    before = {name: part.clone() for name, part in net.state_dict().items()}
    graph = {name: part.clone() for name, part in data.to_dict().items()}
    state = torch.get_rng_state()
    Shapley("known_labels").explain(explain.wrap(net, data, betas=BETAS, time="step").trajectory(4, draws=1))
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert all(torch.equal(part, graph[name]) for name, part in data.to_dict().items())
    net.eval()


class Centred(nn.Module):
    """Looks at all nodes of its batch: two copies side by side see one another."""

    def __init__(self):
        super().__init__()
        self.inner = Colouring()

    def forward(self, x, y_t, t, edge_index):
        return self.inner(x, y_t, t, edge_index) + 0.1 * y_t.mean()


def test_copies_that_would_see_one_another_are_run_by_themselves(data):
    model = explain.wrap(Centred(), data, betas=BETAS, time="step", prediction_type="epsilon", scale="0/1")
    assert model.assumed["batch"].endswith("each is run by itself")
    asked = model.trajectory(4, 0, payoff="state", draws=2)
    masks = torch.eye(4).bool()
    alone = torch.cat([asked.game("known_labels")(mask[None]) for mask in masks])
    assert torch.equal(asked.game("known_labels")(masks), alone)


def test_a_graph_with_weights_and_other_fields_follows_its_edges(net, data):
    weighted = data.clone()
    weighted.edge_weight = torch.arange(26).double()
    weighted.note = "ladder"

    class Weighted(Colouring):
        def forward(self, x, y_t, t, edge_index, edge_weight, note):
            assert len(edge_weight) == edge_index.size(1)
            assert note == "ladder"
            return super().forward(x, y_t, t, edge_index) + 0 * edge_weight.sum()

    asked = explain.wrap(Weighted(), weighted, betas=BETAS, time="step").trajectory(3, 0, draws=2)
    plain = explain.wrap(net, data, betas=BETAS, time="step").trajectory(3, 0, draws=2)
    masks = torch.rand(4, 26, generator=torch.Generator().manual_seed(3)) < 0.5
    assert torch.equal(asked.game("edges")(masks), plain.game("edges")(masks))
    pairs = plain.players("edges", undirected=True, hops=1)
    assert to_undirected(pairs.geometry["ends"]).size(1) == 2 * len(pairs)
