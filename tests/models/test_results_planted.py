"""Laws that rows are held to: in closed form, beyond the reach of who cannot see them, and found by who can."""

import pytest
import torch

from models import additive_law, chickenpox, likes, relations, variances
from models.additive import Additive
from models.lightgcn import LightGCN, train
from models.results import planted


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))


def test_variances_are_means_over_ordered_pairs_that_one_at_a_time_cannot_say():
    data = variances.sets(40, seed=0)
    for found, owner in zip(data.variance, range(40), strict=True):
        own = data.members[data.owner == owner]
        pairs = (own - own.T).square().sum() / (2 * len(own) * (len(own) - 1))
        torch.testing.assert_close(found, pairs)
    explained = {}
    for k in (1, 2):
        torch.manual_seed(0)
        net = variances.train(variances.SetNumber(k), variances.sets(100, seed=1), 150, progress=False)
        explained[k] = variances.explained(net, variances.sets(100, seed=2))
    assert explained[1] < 0.3 < 0.8 < explained[2]


def test_relations_tell_the_class_and_all_edges_together_do_not():
    data = relations.planted(0, nodes=400)
    source, target = data.edge_index
    for node in range(10):
        told = [data.x[source[(target == node) & (data.edge_type == kind)]].mean() for kind in (0, 1)]
        assert int(data.y[node]) == int(told[0] > told[1])
    facts = relations.load_or_train(0, iterations=100, progress=False).facts
    assert facts["blind"] < 0.6 < 0.9 < facts["test_accuracy"]
    assert relations.load_or_train(0, iterations=100, progress=False).cached


def test_recall_is_counted_among_what_is_not_yet_known():
    some = likes.Likes(torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0, 0, 1, 1], [1, 2, 0, 3]]), torch.zeros(2, 4))
    scores = torch.tensor([[9.0, 3.0, 1.0, 2.0], [1.0, 9.0, 3.0, 2.0]])
    assert likes.recall(scores, some, first=2) == 0.5  # of the first user 1 and 3, of the second 2 and 3


def test_likes_are_recommended_better_than_what_is_popular():
    data = likes.planted(0, users=60, items=60, each=12)
    torch.manual_seed(0)
    net = train(LightGCN(120, size=8), data.known + torch.tensor([[0], [60]]), 60, seed=0, steps=100)
    popular = torch.bincount(data.known[1], minlength=60).float().expand(60, -1)
    found = [likes.recall(popular, data), likes.recalled(net, data), likes.recall(data.law, data)]
    assert found[0] + 0.1 < found[1] <= found[2] + 0.05


def test_terms_of_a_sum_are_found_one_by_one():
    data = additive_law.planted(0, nodes=300)
    torch.manual_seed(0)
    net = Additive(3, 1)
    before = additive_law.agreement(net, data)
    assert before < 0.3 < 0.9 < additive_law.agreement(additive_law.train(net, data, 300, progress=False), data)


def test_errors_of_forecasts_are_told_apart_by_name(monkeypatch):
    series = chickenpox.planted(weeks=100)
    monkeypatch.setattr(chickenpox, "chickenpox", lambda: series)
    found = planted.graph_cost(0)
    given, alone = (chickenpox.load_or_train(graph, seed=0).facts["per_node"] for graph in (True, False))
    assert found["test_accuracy"] == pytest.approx(1 - alone / given)
    assert found["test_accuracy"] < 0  # here neighbours lead
    rows = [line.split(" | ") for line in chickenpox.section(seeds=2).splitlines()]
    assert [row[0] for row in rows[2:]] == ["| with the graph", "| without", "| none, 0"]
    assert float(rows[2][1].split(" ")[0]) < float(rows[3][1].split(" ")[0])
