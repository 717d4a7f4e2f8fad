"""Learned masks find planted causes, meet the right messages, and never touch the user's model."""

from __future__ import annotations

import copy

import graph_cases
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.datasets import KarateClub
from torch_geometric.explain import GNNExplainer, PGExplainer
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import GCN, GATConv, GCNConv, MessagePassing, SAGEConv, SGConv, SimpleConv, TAGConv
from torch_geometric.utils import to_undirected

from explain.graph.model import GraphModel
from explain.mask import FittedMask, Mask
from explain.mask.algorithms import PG
from explain.mask.messages import aligned_masks, columns_of
from explain.supervised import SupervisedModel
from explain.types import Call, Game, Players, Target, Unsupported


class Asked(Target):
    """A class of one row of a graph network; its game multiplies features or messages of the first layer's input."""

    def __init__(self, module, x, edge_index, row=0, label=0, task="node", players=None):
        self.module, self.x, self.edge_index = module, x, edge_index
        self.row, self.label, self.task, self.only = row, label, task, players

    def value(self):
        with torch.no_grad():
            return float(self.module(self.x, self.edge_index)[self.row].reshape(-1)[self.label if self.wide else 0])

    @property
    def wide(self):
        with torch.no_grad():
            return self.module(self.x, self.edge_index).dim() > 1 and self.module(self.x, self.edge_index).size(1) > 1

    def players(self, kind, **options):
        if self.only is not None:
            return self.only
        count = {"edges": self.edge_index.size(1), "nodes": len(self.x), "features": self.x.size(1)}[kind]
        return Players(kind, torch.arange(count))

    def game(self, players):
        if players.kind != "features":
            raise Unsupported("features only")

        def numbers(masks):
            with torch.no_grad():
                return torch.stack([self.module(self.x * m, self.edge_index)[self.row, self.label] for m in masks])

        return Game(players, numbers, checks={"removal": "features"})

    def module_copy(self):
        nodes, edges = torch.arange(len(self.x)), torch.arange(self.edge_index.size(1))
        return Call(
            copy.deepcopy(self.module), self.x, self.edge_index, {}, self.task, self.row, self.label, nodes, edges
        )

    def describe(self):
        return {"removal": "delete"}


class Planted(nn.Module):
    """Two sum layers; a node speaks for class 0 by feature 0, against it by feature 1, not at all by feature 2."""

    def __init__(self, own=0.0):
        super().__init__()
        self.layers = nn.ModuleList([SAGEConv(1, 1, aggr="sum", bias=False) for _ in range(2)])
        for layer in self.layers:
            layer.lin_l.weight.data.fill_(1.0)
            layer.lin_r.weight.data.fill_(own)

    def forward(self, x, edge_index):
        z = (x[:, :1] - x[:, 1:2]) * 3
        for layer in self.layers:
            z = layer(z, edge_index)
        return torch.cat([z, -z], 1)


# 0 <- {1, 2, 3}; 1 <- 4 (for), 2 <- 5 (against), 3 <- 6 (silent); 7 <- 8 cannot reach 0
STAR = torch.tensor([[1, 2, 3, 4, 5, 6, 8], [0, 0, 0, 1, 2, 3, 7]])
VOICES = torch.zeros(9, 3)
VOICES[4, 0] = VOICES[5, 1] = VOICES[6, 2] = 1.0
LOOPED = torch.cat([torch.arange(9).repeat(2, 1), STAR], 1)


def planted(**arguments):
    return Asked(Planted().eval(), VOICES, STAR, **arguments)


def test_edges_that_speak_for_the_class_stay_and_those_against_it_go():
    found = Mask("edges", epochs=150, lr=0.1, repeats=2, seed=0).explain(planted())
    scores = found.scores
    assert min(scores[0], scores[3]) > 0.8
    assert max(scores[1], scores[4]) < 0.3
    assert scores[6] == 0  # cannot reach the row
    assert ((scores >= 0) & (scores <= 1)).all()
    assert found.checks["removal"] == "message"
    assert found.checks["unmasked"] == 0
    assert found.checks["final_loss"] > 0
    assert found.base is None
    assert found.calls == 300


def test_nodes_and_features():
    small = {"node_feat_size": 0.1}
    nodes = Mask("nodes", epochs=150, lr=0.1, repeats=1, seed=0, coefficients=small).explain(planted())
    assert nodes.scores[4] > 0.8
    assert nodes.scores[5] < 0.3
    features = Mask("features", epochs=150, lr=0.1, repeats=1, seed=0, coefficients=small, top_k=1).explain(planted())
    assert features.scores[0] > 0.8
    assert features.scores[1] < 0.3
    assert features.scores[2] == 0
    assert features.checks["removal"] == "features"
    assert features.checks["fidelity_top_k"] == pytest.approx(3)  # only the voice for it
    assert features.checks["fidelity_rest"] == pytest.approx(-3)
    assert features.checks["fidelity_removal"] == "features"
    assert nodes.checks["fidelity_top_k"] is None  # no game over nodes


def test_repeats_tell_how_sure_and_the_seed_decides():
    target = planted()
    explainer = Mask("edges", epochs=5, repeats=3, seed=1)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first = explainer.explain(target)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.scores, explainer.explain(target).scores)
    assert not torch.equal(first.scores, Mask("edges", epochs=5, repeats=3, seed=2).explain(target).scores)
    assert first.error.shape == (7,)
    assert -1 <= first.checks["run_to_run"] <= 1
    alone = Mask("edges", epochs=5, repeats=1, seed=1).explain(target)
    assert alone.error is None
    assert alone.checks["run_to_run"] is None


def test_pairs_get_the_mean_of_their_edges():
    single = Mask("edges", epochs=20, seed=0).explain(planted()).scores
    pairs = Players("edges", torch.tensor([0, 1]), groups=(torch.tensor([0, 3]), torch.tensor([1, 4, 6])))
    grouped = Mask(pairs, epochs=20, seed=0).explain(planted()).scores
    torch.testing.assert_close(grouped, torch.stack([single[[0, 3]].mean(), single[[1, 4, 6]].mean()]))


def test_a_single_logit_is_a_binary_classifier():
    class Single(Planted):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index)[:, :1]

    for label, stays, goes in ((1, 3, 4), (0, 4, 3)):
        target = Asked(Single().eval(), VOICES, STAR, label=label)
        scores = Mask("edges", epochs=150, lr=0.1, repeats=1, seed=0).explain(target).scores
        assert scores[stays] > 0.8
        assert scores[goes] < 0.3


def test_coefficients_change_the_loss_of_this_run_only():
    defaults = dict(GNNExplainer.default_coeffs), copy.deepcopy(PGExplainer.coeffs)
    dense = Mask("edges", epochs=100, lr=0.1, seed=0, coefficients={"edge_size": 0.0}).explain(planted())
    small = Mask("edges", epochs=100, lr=0.1, seed=0, coefficients={"edge_size": 5.0}).explain(planted())
    assert float(small.scores.sum()) < float(dense.scores.sum())
    Mask(method="pg_explainer", epochs=1, repeats=1, coefficients={"temp": [3.0, 1.0]}).fit([planted()])
    assert (GNNExplainer.default_coeffs, PGExplainer.coeffs) == defaults


def attributes(module: nn.Module) -> list:
    return [
        (name, part.training, part.explain, part._edge_mask, part._loop_mask, len(part._propagate_forward_pre_hooks))
        for name, part in module.named_modules()
        if isinstance(part, MessagePassing)
    ] + [sorted(part._parameters) for part in module.modules()]


def test_the_users_model_is_as_before():
    target = planted()
    target.module.layers[0].train()  # a deliberate mixture of modes
    before, weights = attributes(target.module), copy.deepcopy(target.module.state_dict())
    Mask("edges", epochs=3, repeats=2).explain(target)
    Mask(method="pg_explainer", epochs=2, repeats=1).fit([target]).explain(target)
    assert attributes(target.module) == before
    for name, value in target.module.state_dict().items():
        assert torch.equal(value, weights[name])
    target.edge_index.data[0, 0] = 99
    with pytest.raises(IndexError):
        Mask("edges", epochs=3).explain(target)
    target.edge_index.data[0, 0] = 1
    assert attributes(target.module) == before


@pytest.mark.parametrize("build", [GCNConv, GATConv, SAGEConv])
@pytest.mark.parametrize("loops", ["first", "some", "none"])
def test_masks_meet_their_own_messages(build, loops):
    edge_index = {"first": LOOPED, "some": torch.cat([STAR[:, :3], LOOPED[:, :3], STAR[:, 3:]], 1), "none": STAR}[loops]
    torch.manual_seed(0)
    layer = build(3, 4).eval()
    x, mask = torch.randn(9, 3), torch.rand(edge_index.size(1))
    adds_loops = build is not SAGEConv
    messages, ends = {}, []

    def keep(_, inputs):
        ends.append(inputs[0])

    def scale(_, __, output):
        amount = torch.ones(ends[0].size(1))
        for position, (u, v) in enumerate(ends[0].T.tolist()):
            for column, (s, t) in enumerate(edge_index.T.tolist()):
                if (u, v) == (s, t):
                    amount[position] = mask[column]
        messages["amount"] = amount
        return output * amount.view(-1, *[1] * (output.dim() - 1))

    by_hand = copy.deepcopy(layer)
    by_hand.register_propagate_forward_pre_hook(keep)
    by_hand.register_message_forward_hook(scale)
    expected = by_hand(x, edge_index)
    assert (messages["amount"] == 1).sum() == (9 - (edge_index[0] == edge_index[1]).sum() if adds_loops else 0)
    copied = copy.deepcopy(layer)
    with aligned_masks(copied, edge_index) as unmasked:
        set_masks(copied, mask, edge_index, apply_sigmoid=False)
        found = copied(x, edge_index)
    torch.testing.assert_close(found, expected)
    assert set(unmasked.values()) == {0}


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**16), st.integers(0, 12), st.integers(0, 12))
def test_every_propagated_edge_finds_its_column(seed, stored_size, propagated_size):
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randint(3, (2, stored_size), generator=generator)
    propagated = torch.randint(3, (2, propagated_size), generator=generator)
    free, expected = list(enumerate(stored.T.tolist())), []
    for edge in propagated.T.tolist():  # slow: take the first column with these ends that is not taken yet
        match = next((item for item in free if item[1] == edge), (-1, None))
        expected.append(match[0])
        free = [item for item in free if item[0] != match[0]]
    if not torch.equal(stored, propagated):
        assert columns_of(propagated, stored).tolist() == expected


def test_edges_that_the_model_makes_itself_are_reported():
    class Undirecting(Planted):
        def forward(self, x, edge_index):
            return super().forward(x, to_undirected(edge_index))

    with pytest.warns(UserWarning, match="7 edges that are not in edge_index"):
        found = Mask("edges", epochs=2, repeats=1).explain(Asked(Undirecting().eval(), VOICES, STAR))
    assert found.checks["unmasked"] == 7


def test_pg_explainer_learns_over_targets_and_explains_others():
    with pytest.raises(ValueError, match=r"fitted = Mask\(method='pg_explainer'\)\.fit"):
        Mask(method="pg_explainer").explain(planted())
    reached = Players("edges", torch.arange(6))
    net = Planted(own=1.0).eval()  # its last layer tells the voices apart, which is all that PGExplainer sees
    target = Asked(net, VOICES, STAR, players=reached)
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    explainer = Mask(method="pg_explainer", epochs=60, lr=0.02, repeats=2, seed=0, coefficients={"edge_size": 0.01})
    fitted = explainer.fit([target])
    assert torch.equal(torch.rand(1), expected)
    assert isinstance(fitted, FittedMask)
    found = fitted.explain(target)
    assert min(found.scores[[0, 3]]) > max(found.scores[[1, 4]]) + 0.3
    assert torch.equal(found.scores, fitted.explain(target).scores)
    torch.testing.assert_close(found.scores, explainer.fit([target]).explain(target).scores)
    assert found.seed == 0
    assert found.settings["method"] == "pg_explainer"
    assert found.settings["fitted_on"] == 1
    assert found.checks["final_loss"] == fitted.final_loss
    assert fitted.explain(Asked(net, VOICES, STAR, row=1)).scores.shape == (7,)


def test_a_target_of_pg_explainer_is_prepared_once_for_all_epochs(monkeypatch):
    prepared, lesson = [], PG.lesson
    monkeypatch.setattr(PG, "lesson", lambda *given: prepared.append(given) or lesson(*given))
    net = Planted().eval()
    targets = [Asked(net, VOICES, STAR, row=row, players=Players("edges", torch.arange(6))) for row in (0, 1)]
    Mask(method="pg_explainer", epochs=3, repeats=2, seed=0).fit(targets)
    assert len(prepared) == 2 * 2


def test_fit_says_what_it_needs():
    with pytest.raises(ValueError, match="at least one target"):
        Mask(method="pg_explainer").fit([])
    with pytest.raises(ValueError, match="all of one model, got 2"):
        Mask(method="pg_explainer").fit([planted(), planted()])
    with pytest.raises(ValueError, match="fit is for"):
        Mask().fit([planted()])
    with pytest.raises(ValueError, match="at least one edge"):
        Mask(method="pg_explainer").fit([planted(players=Players("edges", torch.arange(0)))])
    with pytest.raises(Unsupported, match="node and graph tasks, got 'edge'"):
        Mask(method="pg_explainer").fit([planted(task="edge")])


def test_no_players_is_an_empty_answer():
    found = Mask("edges").explain(planted(players=Players("edges", torch.arange(0))))
    assert found.scores.shape == (0,)
    assert found.value == 0


def test_a_plain_torch_network_has_features_but_no_edges():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, edge_index):
            return self.linear(x.new_zeros(len(x), 3).index_add(0, edge_index[1], x[edge_index[0]]))

    target = Asked(Dense().eval(), VOICES + 1, STAR)
    with pytest.raises(Unsupported, match="message-passing layers"):
        Mask("edges").explain(target)
    assert Mask("features", epochs=3).explain(target).scores.shape == (3,)


@pytest.mark.parametrize("mask", [Mask(), Mask("features"), Mask(method="pg_explainer")])
def test_a_question_about_no_graph_is_told_who_answers_it(mask):
    target = SupervisedModel(nn.Linear(3, 2), task="classification").example(torch.ones(3))
    ask = mask.explain if mask.method == "gnn_explainer" else lambda one: mask.fit([one])
    with pytest.raises(Unsupported, match=r"learned masks are of .* a graph, and ExampleTarget .* by Shapley, .*Lime"):
        ask(target)


def test_settings_are_checked_when_built():
    for settings_, message in (
        ({"method": "subgraphx"}, "method must be one of gnn_explainer, pg_explainer"),
        ({"players": "relations"}, "players must be edges or nodes or features"),
        ({"players": "nodes", "method": "pg_explainer"}, "players must be edges for pg_explainer"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"repeats": 1.5}, "repeats must be a whole number"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"coefficients": {"size": 1}}, "edge_size"),
    ):
        with pytest.raises(ValueError, match=message):
            Mask(**settings_)


@pytest.fixture(scope="module")
def karate():
    data = KarateClub()[0]
    torch.manual_seed(0)
    net = GCN(34, 8, num_layers=2, out_channels=4).eval()
    return GraphModel(net, data)


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_on_a_graph_model(karate, kind):
    target = karate.node(5)
    found = Mask(kind, epochs=10, repeats=2, seed=0, top_k=3).explain(target)
    assert len(found.scores) == len(found.players) == len(target.players(kind))
    best = torch.zeros(len(found.players), dtype=torch.bool)
    best[found.scores.argsort(descending=True, stable=True)[:3]] = True
    assert found.checks["fidelity_top_k"] == pytest.approx(float(target.game(found.players)(best[None])[0]))
    assert found.checks["fidelity_removal"] == target.game(found.players).checks["removal"]
    if kind == "edges":
        carries = torch.isin(found.players.index, target.players("edges", degrees=False).index)
        assert torch.equal(found.scores > 0, carries)  # an edge that only counts in a degree carries no message


def test_pg_explainer_on_a_graph_model(karate):
    fitted = Mask(method="pg_explainer", epochs=3, repeats=1, seed=0).fit([karate.node(5), karate.node(0)])
    found = fitted.explain(karate.node(33))
    assert len(found.scores) == len(karate.node(33).players("edges"))
    assert (found.scores > 0).all()


def test_a_filled_cache_does_not_answer_for_the_masks(karate):
    torch.manual_seed(0)
    cached, plain = SGConv(34, 4, K=2, cached=True).eval(), SGConv(34, 4, K=2).eval()
    plain.load_state_dict(cached.state_dict())
    data = karate.data
    cached(data.x, data.edge_index)  # as after training
    kept = cached._cached_x
    mask = Mask("edges", epochs=5, repeats=1, seed=0)
    targets = [GraphModel(net, data).node(11) for net in (cached, plain)]
    found, expected = (mask.explain(target) for target in targets)
    assert torch.equal(found.scores, expected.scores)
    assert int((found.scores > 0).sum()) == len(targets[0].players("edges", degrees=False))
    assert cached._cached_x is kept


def test_layers_written_without_the_names_that_annotations_need(karate):
    net = TAGConv(34, 4, K=2).eval()  # its file knows no Optional
    target = GraphModel(net, karate.data).node(11)
    scores = Mask("edges", epochs=3, repeats=1, seed=0).explain(target).scores
    assert int((scores > 0).sum()) == len(target.players("edges", degrees=False))


def test_graph_mask_reads_its_gates_on_the_right_edges_and_tells_that_it_moves_the_prediction(karate):
    target = karate.node(3)
    with pytest.warns(UserWarning, match="another prediction"):
        why = Mask("edges", method="graph_mask", epochs=20, repeats=2, seed=0).explain(target)
    assert why.scores.min() >= 0
    assert why.scores.max() <= 1
    assert why.checks["moved"] > 0.05
    assert why.checks["removal"] == "message"
    with pytest.warns(UserWarning, match="another prediction"):
        again = Mask("edges", method="graph_mask", epochs=20, repeats=2, seed=0).explain(target)
    assert torch.equal(why.scores, again.scores)


def test_layers_that_graph_mask_cannot_gate_are_refused():
    target = GraphModel(graph_cases.network("gin"), graph_cases.random_graph()).node(3)
    with pytest.raises(Unsupported, match="cannot gate"):
        Mask("edges", method="graph_mask", epochs=2, seed=0).explain(target)


class Sleeper(nn.Module):
    """Awake where most of the graph is there: ``[0, relu(sum of neighbours - 3/4 of them all)]``."""

    def __init__(self, threshold):
        super().__init__()
        self.sum, self.threshold = SimpleConv("sum"), threshold

    def forward(self, x, edge_index):
        return torch.cat([torch.zeros_like(x), (self.sum(x, edge_index) - self.threshold).relu()], 1)


FOUR_INTO_ONE = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0]])


def test_units_that_are_dead_at_the_random_start_are_asked_near_the_whole_graph():
    target = Asked(Sleeper(3.0), torch.ones(5, 1), FOUR_INTO_ONE, label=1)
    why = Mask("edges", epochs=30, lr=0.1, coefficients={"edge_size": -1.0}, seed=0).explain(target)
    assert bool((why.scores > 0.9).all())  # they are learned: more of them are asked for
    assert torch.tensor(why.checks["final_loss"]).isfinite()


def test_no_gradient_at_either_end_is_said():
    target = Asked(Sleeper(5.0), torch.ones(5, 1), FOUR_INTO_ONE, label=1)
    with pytest.raises(ValueError, match="no gradient reaches it"):
        Mask("edges", epochs=2, seed=0).explain(target)


class Kinked(nn.Module):
    """``[0, w_0 + relu(1/20 - w_1)]``: the second edge counts only where it is nearly gone."""

    def __init__(self):
        super().__init__()
        self.sum = SimpleConv("sum")

    def forward(self, x, edge_index):
        heard = self.sum(x, edge_index)
        return torch.stack([torch.zeros(len(x)), heard[:, 0] + 10 * (0.05 - heard[:, 1]).relu()], 1)


def test_final_loss_is_of_the_masks_that_are_the_answer():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    target = Asked(Kinked(), x, torch.tensor([[1, 2], [0, 0]]), label=1)
    why = Mask("edges", epochs=3, lr=1e-12, repeats=1, coefficients={"edge_ent": 0.0}, seed=0).explain(target)
    kept = float(why.scores[0])
    assert why.scores[1] == 0  # no gradient reaches it at the start, nor near the whole graph
    said = torch.tensor([[0.0, kept + 0.5]])
    expected = float(nn.functional.cross_entropy(said, torch.tensor([1]))) + 0.005 * kept
    assert why.checks["final_loss"] == pytest.approx(expected, abs=1e-5)
