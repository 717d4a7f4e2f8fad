"""Metrics against hand-made games, other libraries' formulas and closed forms."""

import dataclasses
import itertools
from dataclasses import dataclass

import graph_cases
import networkx as nx
import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from sklearn.metrics import roc_auc_score
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.explain.metric import characterization_score
from torch_geometric.nn import HeteroConv, SAGEConv, global_add_pool

import explain
from explain import Explanation, Players, metrics
from explain.metrics.selection import selected


def linear(weight, x, payoff="logit"):
    """A two-class model whose second logit is ``weight . x``."""
    net = nn.Linear(len(weight), 2, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.stack([torch.zeros(len(weight)), torch.tensor(weight)]))
    x = torch.tensor(x, dtype=torch.float64)
    return explain.wrap(net, task="classification").example(x, 1, payoff=payoff)


def answer(scores, **options):
    return Explanation(torch.tensor(scores), Players("features", torch.arange(len(scores)), **options), value=0.0)


def member(payoff="probability", name="gcn", **options):
    data = graph_cases.doubled(graph_cases.random_graph())
    return explain.wrap(graph_cases.network(name, double=True), data).node(3, payoff=payoff, **options)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_fidelity_is_what_is_lost_without_and_with_only_the_top():
    target = linear([3.0, 1.0, -2.0], [1.0, 1.0, 1.0])
    found = metrics.fidelity(answer([3.0, 1.0, -2.0]), target, size=1)
    assert found.plus == pytest.approx(sigmoid(2) - sigmoid(-1))
    assert found.minus == pytest.approx(sigmoid(2) - sigmoid(3))
    assert (found.kept, found.sparsity) == (1, pytest.approx(2 / 3))


def test_players_that_push_down_are_in_the_complement_and_by_size_at_the_top():
    why = answer([0.5, -4.0, 1.0])
    assert selected(why, 1).tolist() == [False, False, True]
    assert selected(why, 1, absolute=True).tolist() == [False, True, False]
    target = linear([0.5, -4.0, 1.0], [1.0, 1.0, 1.0])
    assert metrics.fidelity(why, target, 1, "logit").plus == pytest.approx(1.0)
    assert metrics.fidelity(why, target, 1, "logit", absolute=True).plus == pytest.approx(-4.0)


def test_fidelity_by_label_asks_whether_the_class_stays():
    target = linear([3.0, -1.0], [1.0, 1.0])
    found = metrics.fidelity(answer([3.0, -1.0]), target, 1, "label")
    assert (found.plus, found.minus) == (1.0, 0.0)
    regression = explain.wrap(nn.Linear(2, 1), task="regression").example(torch.ones(2))
    with pytest.raises(explain.Unsupported, match="no classes"):
        metrics.fidelity(answer([1.0, 0.0]), regression, 1, "label")


@pytest.mark.parametrize("says", [1.0, -1.0])
def test_fidelity_by_label_of_several_yes_or_no_asks_whether_the_answer_stays_also_a_no(says):
    net = nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -1.0], [5.0, 5.0]]) * says)
        net.weight[1, 0] -= 0.5  # so that no two outputs are mirrored
    target = explain.wrap(net, task="classification", loss="bce").example(torch.ones(2).double(), 1)
    assert bool(target.decides(target.run())) == (says > 0)
    for scores, expected in (([3.0, -1.0], (1.0, 0.0)), ([-1.0, 3.0], (0.0, 1.0))):
        found = metrics.fidelity(answer(scores), target, 1, "label")
        assert (found.plus, found.minus) == expected
    row = metrics.table({"top": answer([3.0, -1.0])}, target, size=1).loc["top"]
    assert (row["label fidelity+"], row["label fidelity-"]) == (1.0, 0.0)


def test_fidelity_by_label_is_about_the_true_class_where_another_is_predicted():
    target = linear([-3.0, 1.0], [1.0, 1.0])  # of class 1, with 0 predicted
    found = metrics.fidelity(answer([-3.0, 1.0]), target, 1, "label", absolute=True)
    assert (found.plus, found.minus) == (-1.0, 0.0)


@pytest.mark.parametrize("plus", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("minus", [0.0, 0.3, 0.9])
def test_characterisation_is_the_weighted_harmonic_mean(plus, minus):
    theirs = characterization_score(torch.tensor([plus]), torch.tensor([minus]), 0.3, 0.7)
    assert metrics.characterisation(plus, minus, 0.3) == pytest.approx(float(theirs))


def test_characterisation_of_nothing_is_zero_and_not_an_error():
    assert metrics.characterisation(0.0, 0.5) == 0.0
    assert metrics.characterisation(0.5, 1.0) == 0.0
    with pytest.raises(ValueError, match="weight"):
        metrics.characterisation(0.5, 0.5, 2.0)


def test_unfaithfulness_weighs_by_what_the_model_says_with_everyone():
    target = linear([3.0, 1.0], [1.0, 1.0])
    p, q = sigmoid(4), sigmoid(3)
    divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert metrics.unfaithfulness(answer([3.0, 1.0]), target, 1) == pytest.approx(1 - np.exp(-divergence))
    assert metrics.unfaithfulness(answer([3.0, 1.0]), target, 2) == pytest.approx(0.0, abs=1e-12)


def test_unfaithfulness_of_labels_that_do_not_exclude_one_another_adds_up():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sigmoid()).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[3.0, 1.0], [-1.0, 2.0]]))
    target = explain.wrap(net, task="classification", outputs="probabilities").example(torch.ones(2).double(), 0)
    p, q = np.array([sigmoid(4), sigmoid(1)]), np.array([sigmoid(3), sigmoid(-1)])
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum()
    assert metrics.unfaithfulness(answer([3.0, 1.0]), target, 1) == pytest.approx(1 - np.exp(-divergence))


def test_unfaithfulness_is_one_where_the_top_alone_rule_out_what_the_model_says():
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Hardsigmoid()).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[-9.0, 9.0]]))
    target = explain.wrap(net, task="classification", outputs="probabilities").example(torch.ones(2).double(), 1)
    assert metrics.unfaithfulness(answer([3.0, 1.0]), target, 1) == 1.0


def test_unfaithfulness_of_certain_predictions_is_a_number():
    target = linear([2000.0, 1.0], [1.0, 1.0])
    assert metrics.unfaithfulness(answer([2000.0, 1.0]), target, 1) == pytest.approx(0.0, abs=1e-9)
    assert metrics.unfaithfulness(answer([0.0, 1.0]), target, 1) == pytest.approx(1 - sigmoid(1), abs=1e-6)


@pytest.mark.parametrize("absolute", [False, True])
def test_the_curve_of_fidelity_is_fidelity_at_each_size(absolute):
    target = member()
    why = explain.Shapley("edges", samples=512, seed=0).explain(target)
    curve = metrics.fidelity_curve(why, target, (0.1, 0.5, 3), absolute=absolute)
    for row in curve.itertuples():
        size = int(row.size) if row.size >= 1 else float(row.size)
        one = metrics.fidelity(why, target, size, absolute=absolute)
        assert (row.plus, row.minus, row.kept) == (pytest.approx(one.plus), pytest.approx(one.minus), one.kept)
        assert row.characterisation == pytest.approx(one.characterisation)


def test_deletion_and_insertion_follow_the_order():
    target = linear([1.0, 3.0, -2.0], [1.0, 1.0, 1.0])
    why = answer([1.0, 3.0, -2.0])
    gone, come = metrics.deletion(why, target), metrics.insertion(why, target)
    assert gone.values.tolist() == [2.0, -1.0, -2.0, 0.0]
    assert come.values.tolist() == [0.0, 3.0, 4.0, 2.0]
    assert gone.area == pytest.approx((2 / 2 - 1 - 2 + 0) / 3)
    assert gone.area < gone.random < come.area


def test_curves_of_several_answers_are_those_of_each_and_ask_about_no_coalition_twice():
    target = linear([1.0, 3.0, -2.0], [1.0, 1.0, 1.0])
    games, game = [], target.game
    object.__setattr__(target, "game", lambda players: games.append(game(players)) or games[-1])
    answers = [answer([1.0, 3.0, -2.0]), answer([-1.0, 0.0, 5.0])]
    found = metrics.deletion_and_insertion(answers, target, draws=5, seed=3)
    assert games[0].calls == 2**3
    for why, curves in zip(answers, found, strict=True):
        for measure, curve in zip((metrics.deletion, metrics.insertion), curves, strict=True):
            alone = measure(why, target, draws=5, seed=3)
            assert (curve.values.tolist(), curve.area, curve.random) == (
                alone.values.tolist(),
                alone.area,
                alone.random,
            )
            assert curve.at_random.tolist() == alone.at_random.tolist()
    with pytest.raises(ValueError, match="other players"):
        metrics.deletion_and_insertion([answers[0], answer([1.0, 2.0])], target)
    with pytest.raises(ValueError, match="at least one"):
        metrics.deletion_and_insertion([], target)


def test_auroc_is_sklearns_and_the_best_of_alternatives():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=20).round(1)  # with ties
    truths = generator.random((2, 20)) < 0.3
    why = answer(scores.tolist())
    each = [roc_auc_score(truth, scores) for truth in truths]
    assert metrics.auroc(why, torch.tensor(truths[0])) == pytest.approx(each[0])
    assert metrics.auroc(why, torch.tensor(truths)) == pytest.approx(max(each))


def test_gea_is_the_jaccard_index():
    why = answer([4.0, 3.0, 2.0, 1.0])
    truth = torch.tensor([True, False, True, False])
    assert metrics.gea(why, truth) == pytest.approx(1 / 3)
    assert metrics.gea(why, truth, size=3) == pytest.approx(2 / 3)
    assert metrics.gea(why, torch.stack([truth, torch.tensor([True, True, False, False])])) == 1.0


def test_players_that_tie_count_as_if_drawn_in_every_way():
    truth = torch.tensor([False, True, False, True, True, False])
    scores = [0.0, 2.0, 0.0, 0.0, 0.0, -1.0]  # one is named, one is against; the others tie
    ways = [{1, *others} for others in itertools.combinations((0, 2, 3, 4), 2)]
    true = set(truth.nonzero().view(-1).tolist())
    expected = np.mean([len(way & true) / len(way | true) for way in ways])
    assert metrics.gea(answer(scores), truth) == pytest.approx(expected)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    moved = answer([scores[i] for i in order])
    assert metrics.gea(moved, truth[order]) == pytest.approx(expected)
    assert metrics.gea(answer(scores), truth, size=0) == 0


@pytest.mark.parametrize(
    "truth",
    [torch.arange(12) < 4, torch.stack([torch.arange(12) < 4, torch.arange(12) > 8, torch.arange(12) % 2 == 0])],
    ids=["one", "best of three"],
)
def test_the_random_row_is_what_random_scores_reach(truth):
    generator = torch.Generator().manual_seed(0)
    drawn = [answer(torch.rand(12, generator=generator).tolist()) for _ in range(600)]
    rows = metrics.ground_truth({"one": drawn[0]}, truth)
    for name, measure in (("gea", metrics.gea), ("auroc", metrics.auroc)):
        mean = np.mean([measure(why, truth) for why in drawn])
        assert mean == pytest.approx(rows.loc["random", name], abs=0.03)


@pytest.mark.parametrize("kind", ["nodes", "edges"])
def test_the_distance_row_is_hops_to_the_target(kind):
    target = member()
    players = target.players(kind)
    graph = nx.Graph(target.graph.flat_edges.t().tolist())
    hops = nx.single_source_shortest_path_length(graph, 3)
    if kind == "nodes":
        expected = [-hops[node] for node in players.index.tolist()]
    else:
        expected = [-min(hops[u], hops[v]) for u, v in players.geometry["ends"].t().tolist()]
    assert metrics.distance(players).tolist() == expected
    why = Explanation(torch.rand(len(players)), players, value=0.0)
    rows = metrics.ground_truth({"x": why}, torch.arange(len(players)) < 3)
    assert list(rows.index) == ["x", "random", "distance"]


def test_there_is_no_distance_in_a_whole_graph():
    data = graph_cases.random_graph()
    data.y = torch.tensor([1])

    assert metrics.distance(explain.wrap(Pooled(), [data]).graph(0).players("edges")) is None


def test_truth_by_atoms_reaches_players_that_own_several():
    edges = Players("edges", torch.tensor([0, 2]), groups=(torch.tensor([0, 1]), torch.tensor([2, 3])))
    assert metrics.truth_of(edges, torch.tensor([False, True, False, False])).tolist() == [True, False]
    typed = Players("nodes", torch.tensor([[0, 1], [1, 1]]))
    with pytest.raises(ValueError, match="have a type"):
        metrics.truth_of(typed, torch.ones(3).bool())


def test_a_truth_that_is_too_short_is_refused():
    graph = graph_cases.random_graph(nodes=9, edges=9)
    del graph.y
    target = explain.wrap(Pooled(), [graph]).graph(0)
    edges, nodes = target.players("edges"), target.players("nodes")
    for asked, right in ((edges, graph.num_edges), (nodes, graph.num_nodes)):
        assert metrics.truth_of(asked, torch.ones(right).bool()).all()
        with pytest.raises(ValueError, match=rf"of the whole graph, at least {right}, got \[{right - 2}\]; a truth of"):
            metrics.truth_of(asked, torch.ones(right - 2).bool())


def test_arguments_in_another_order_are_named():
    target, why = linear([1.0, 2.0], [1.0, 1.0]), answer([1.0, 2.0])
    for measure in (
        metrics.fidelity,
        metrics.unfaithfulness,
        metrics.fidelity_curve,
        metrics.deletion,
        metrics.insertion,
        metrics.infidelity,
    ):
        with pytest.raises(TypeError, match=r"Explanation and then Target.* got ExampleTarget, Explanation: swap them"):
            measure(target, why)
    for measure in (metrics.stability, metrics.reproducibility, metrics.randomisation):
        with pytest.raises(TypeError, match=r"Explainer and then Target.*: swap them"):
            measure(target, explain.Shapley("features"))
    for measure in (metrics.auroc, metrics.gea):
        with pytest.raises(TypeError, match=r"Explanation and then Tensor.*: swap them"):
            measure(torch.tensor([True, False]), why)
    with pytest.raises(TypeError, match="Mapping and then Target, in this order, got list, ExampleTarget"):
        metrics.table([why], target)
    with pytest.raises(TypeError, match=r"Players and then Tensor.*: swap them"):
        metrics.truth_of(torch.tensor([True, False]), why.players)


@pytest.mark.parametrize("truth", [torch.zeros(3).bool(), torch.ones(3).bool(), torch.ones(2).bool()])
def test_a_truth_that_ranks_nothing_is_refused(truth):
    with pytest.raises(ValueError, match="truth must"):
        metrics.auroc(answer([1.0, 2.0, 3.0]), truth)


def test_infidelity_is_zero_for_a_linear_number_and_the_formula_otherwise():
    target = linear([3.0, 1.0, -2.0, 0.5], [1.0, 1.0, 1.0, 1.0])
    right, wrong = answer([3.0, 1.0, -2.0, 0.5]), answer([1.0, 1.0, 1.0, 1.0])
    assert metrics.infidelity(right, target, normalise=False) == pytest.approx(0.0, abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    taken = (torch.rand(128, 4, generator=generator) < 0.2).double()
    errors = taken.sum(1) - taken @ right.scores
    found = metrics.infidelity(wrong, target, normalise=False)
    assert found == pytest.approx(float(errors.square().mean()), rel=0.3)
    assert metrics.infidelity(wrong, target) <= found
    with pytest.raises(ValueError, match="samples"):
        metrics.infidelity(right, target, samples=0)


@dataclass(frozen=True)
class Blind(explain.Explainer):
    """An explainer that does not look at the model, only at its seed."""

    players: str | Players
    seed: int = 0

    def _answer(self, target, generator):
        players = target.players(self.players) if isinstance(self.players, str) else self.players
        scores = torch.rand(len(players), generator=generator)
        return {"scores": scores, "players": players, "value": target.value(), "base": None}


def test_what_looks_at_the_model_changes_when_it_is_randomised():
    target = member("logit")
    honest = metrics.randomisation(explain.Shapley("edges", samples=2048, seed=0), target)
    blind = metrics.randomisation(Blind("edges"), target)
    assert blind.spearman == 1.0
    assert blind.sensitivity == 0.0
    assert honest.spearman < 0.7
    assert honest.sensitivity > 0.1


def test_small_noise_moves_an_explanation_little_and_large_noise_more():
    target, shapley = member("logit"), explain.Shapley("edges", samples=2048, seed=0)
    small, large = (metrics.stability(shapley, target, scale=scale, repeats=3) for scale in (0.001, 0.3))
    assert small.spearman > 0.99
    assert small.sensitivity < 0.05
    assert large.sensitivity > 5 * small.sensitivity
    with pytest.raises(ValueError, match="predicted class"):
        metrics.stability(shapley, NoClassStays(target), repeats=1)


class NoClassStays(explain.Target):
    """A target that predicts another class under any noise."""

    def __init__(self, target):
        self.target, self.module = target, target.module

    def __getattr__(self, name):
        return getattr(self.target, name)

    value, players, game, describe = (
        lambda self: self.target.value(),
        lambda self, kind: self.target.players(kind),
        lambda self, players: self.target.game(players),
        lambda self: self.target.describe(),
    )

    has_classes = property(lambda self: self.target.has_classes)

    def predicted(self):
        return self.target.predicted()

    def perturbed(self, generator, scale=0.05):
        class Other:
            predicted = staticmethod(lambda: -1)

        return Other()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_sensitivity_is_captums_on_the_same_noise(task):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2 if task == "classification" else 1)).double()
    x, explainer = torch.randn(4).double(), explain.Shapley("features")
    model = explain.wrap(net, task=task)
    label = {"label": 1} if task == "classification" else {}
    target = model.example(x, **label)
    generator = torch.Generator().manual_seed(7)
    noisy = torch.stack([target.perturbed(generator, 0.01).x for _ in range(6)])

    def scores_of(inputs):
        rows = inputs[0] if isinstance(inputs, tuple) else inputs
        scores = torch.stack([explainer.explain(model.example(row, **label)).scores for row in rows])
        return (scores,) if isinstance(inputs, tuple) else scores

    theirs = sensitivity_max(
        scores_of,
        x[None],
        perturb_func=lambda inputs: noisy,
        n_perturb_samples=6,
    )
    ours = metrics.stability(explainer, target, repeats=6, scale=0.01, seed=7).sensitivity
    assert ours == pytest.approx(float(theirs), rel=1e-9)
    assert ours > 0


@dataclass(frozen=True)
class Silent(explain.Explainer):
    """Says nothing about the first input it sees, and one of every other."""

    seen: list = dataclasses.field(default_factory=list, repr=False)

    def _answer(self, target, generator):
        self.seen.append(target)
        scores = torch.full((2,), float(len(self.seen) > 1))
        return {"scores": scores, "players": target.players("features"), "value": target.value(), "base": None}


def test_where_there_was_no_credit_the_change_is_not_divided():
    assert metrics.stability(Silent(), linear([1.0, 2.0], [1.0, 1.0]), repeats=2).sensitivity == pytest.approx(2**0.5)


@pytest.mark.parametrize("measure", [metrics.stability, metrics.randomisation, metrics.reproducibility])
def test_too_few_repeats_are_refused(measure):
    with pytest.raises(ValueError, match="repeats must be at least"):
        measure(explain.Occlusion("features"), linear([1.0, 2.0], [1.0, 1.0]), repeats=0)


def test_seeds_matter_only_to_what_is_drawn():
    target = member("logit", name="gat")
    assert metrics.reproducibility(explain.Gradient("edges"), target, repeats=2).spearman == pytest.approx(1.0)
    drawn = metrics.reproducibility(Blind("edges"), target, repeats=4)
    assert drawn.pairs == 6
    assert abs(drawn.spearman) < 0.5
    with pytest.raises(ValueError, match="at least 2"):
        metrics.reproducibility(Blind("edges"), target, repeats=1)


def test_the_table_has_a_row_an_explanation_and_the_two_to_read_them_against():
    target = member()
    every = {
        "Shapley": explain.Shapley("edges", samples=512, seed=0).explain(target),
        "Gradient": explain.Gradient("edges").explain(target),
    }
    truth = torch.arange(len(every["Shapley"].players)) < 3
    found = metrics.table(every, target, truth=truth)
    assert list(found.index) == ["Shapley", "Gradient", "random", "distance"]
    assert found.loc["Shapley", "fidelity+"] == pytest.approx(metrics.fidelity(every["Shapley"], target).plus)
    assert found.loc["random", ["fidelity+", "seconds"]].isna().all()
    assert not found.loc[["Shapley", "Gradient"]].isna().any().any()


def test_a_number_without_classes_has_what_needs_none():
    torch.manual_seed(0)
    net = nn.Linear(3, 1).double()
    target = explain.wrap(net, task="regression").example(torch.ones(3).double())
    why = explain.Shapley("features").explain(target)
    row = metrics.table({"Shapley": why}, target, size=1).loc["Shapley"]
    assert list(row.index) == ["fidelity+", "fidelity-", "infidelity", "seconds"]
    assert row["fidelity+"] == pytest.approx(float(why.scores.max()))
    assert row["infidelity"] == pytest.approx(0, abs=1e-12)
    with pytest.raises(explain.Unsupported, match="distribution over classes"):
        metrics.unfaithfulness(why, target)
    with pytest.raises(ValueError, match="'logit'"):
        metrics.fidelity(why, target)
    assert metrics.stability(explain.Shapley("features"), target, repeats=2).pairs == 2


class Pooled(nn.Module):
    """A graph's logits: the sum of its nodes'."""

    def __init__(self, classes=2):
        super().__init__()
        self.net = graph_cases.network("gin", classes=classes)

    def forward(self, x, edge_index, batch):
        return global_add_pool(self.net(x, edge_index), batch)


def dot(z, pairs):
    return (z[pairs[0]] * z[pairs[1]]).sum(1)


ASKED = {
    "node": lambda: explain.wrap(graph_cases.network("gcn"), graph_cases.random_graph()).node(3),
    "link": lambda: explain.wrap(graph_cases.network("gcn"), graph_cases.random_graph(), task="edge", decoder=dot).edge(
        1, 2
    ),
    "graph": lambda: explain.wrap(Pooled(), [graph_cases.random_graph(nodes=8, edges=9)]).graph(0),
    "graph, one logit": lambda: explain.wrap(Pooled(1), [graph_cases.random_graph(nodes=8, edges=9)]).graph(0),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", ["nodes", "edges", "features", "motifs"])
def test_every_task_and_every_kind_of_players(asked, kind):
    target = ASKED[asked]()
    explainer = explain.Occlusion(kind)
    why = explainer.explain(target)
    truth = torch.arange(len(why.players)) < max(1, len(why.players) // 4)
    found = metrics.table({"Occlusion": why}, target, truth=truth)
    row = found.loc["Occlusion"]
    assert row.notna().all()
    near = asked in ("node", "link") and kind in ("nodes", "edges")
    assert list(found.index) == ["Occlusion", "random", *(["distance"] if near else [])]
    # by the definition, on the model: the top players taken away, and alone
    top = selected(why, 0.2)
    whole, without, alone = target.asking("probability").game(why.players)(
        torch.stack([torch.ones_like(top), ~top, top])
    )
    logits = target.run()[0].double()
    probabilities = torch.stack([-logits[0], logits[0]]).sigmoid() if len(logits) == 1 else logits.softmax(0)
    assert float(whole) == pytest.approx(float(probabilities[target.label]), rel=1e-5)
    assert row["fidelity+"] == pytest.approx(float(whole - without), abs=1e-6)
    assert row["fidelity-"] == pytest.approx(float(whole - alone), abs=1e-6)
    assert metrics.deletion(why, target, draws=1).values[0] == pytest.approx(why.value, rel=1e-5)
    assert metrics.insertion(why, target, draws=1).values[0] == pytest.approx(why.base, rel=1e-5)
    assert metrics.randomisation(explainer, target, repeats=1).pairs == 1
    assert metrics.stability(explainer, target, repeats=1, scale=1e-4).sensitivity < 0.1


def test_all_of_it_on_a_heterogeneous_graph():
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["paper"].x = torch.randn(6, 4, generator=generator)
    data["author"].x = torch.randn(5, 3, generator=generator)
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2, 3, 4, 0], [0, 0, 1, 2, 2, 3]])
    data["paper", "rev_writes", "author"].edge_index = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 1, 2, 3, 4, 0]])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.convs = nn.ModuleList(
                HeteroConv(
                    {
                        ("author", "writes", "paper"): SAGEConv((3 if i == 0 else 4, 4), 4),
                        ("paper", "rev_writes", "author"): SAGEConv((4, 3 if i == 0 else 4), 4),
                    }
                )
                for i in range(2)
            )

        def forward(self, x_dict, edge_index_dict):
            for conv in self.convs:
                x_dict = {kind: x.tanh() for kind, x in conv(x_dict, edge_index_dict).items()}
            return x_dict

    target = explain.wrap(Net(), data).node(("paper", 0))
    why = explain.Shapley("edges").explain(target)
    assert (why.scores < 0).any()
    truth = why.scores > why.scores.median()
    row = metrics.table({"Shapley": why}, target, truth=truth).loc["Shapley"]
    assert row.notna().all()
    assert row["auroc"] == 1.0
    assert metrics.randomisation(explain.Shapley("edges"), target, repeats=1).pairs == 1
    assert metrics.stability(explain.Shapley("edges"), target, repeats=1, scale=1e-3).spearman > 0.9


@pytest.mark.parametrize("size", [-1, 4, 1.5, True])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="size must be"):
        selected(answer([1.0, 2.0, 3.0]), size)


def test_explanations_of_other_players_are_not_ranked_together():
    one, other = answer([1.0, 2.0]), answer([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="other players"):
        metrics.ground_truth({"a": one, "b": other}, torch.tensor([True, False]))
    with pytest.raises(ValueError, match="at least one"):
        metrics.ground_truth({}, torch.tensor([True, False]))


def test_results_are_plain_values():
    found = metrics.fidelity(answer([3.0, -1.0]), linear([3.0, -1.0], [1.0, 1.0]), 1)
    assert all(isinstance(value, (int, float)) for value in dataclasses.astuple(found))
