import pytest
import torch
from cases import GameTarget, random_table, smooth_function, table_function
from graph_cases import network, random_graph

import explain
from explain import Occlusion, Shapley


@pytest.mark.parametrize("variant", ["leave_one_out", "only_one"])
def test_one_by_one(variant):
    table = random_table(5, 0)
    target = GameTarget(table_function(table), 5, batch_size=2)
    why = Occlusion("nodes", variant).explain(target)
    for player in range(5):
        bit = 1 << player
        expected = table[31] - table[31 - bit] if variant == "leave_one_out" else table[bit] - table[0]
        assert float(why.scores[player]) == float(expected)
    assert (why.value, why.base, why.error) == (table[31], table[0], None)
    assert why.calls == why.checks["coalitions"] == 7


def test_an_additive_game_needs_no_more():
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    target = GameTarget(lambda masks: 3 + masks.double() @ weights, 3)
    for variant in ("leave_one_out", "only_one"):
        why = Occlusion("nodes", variant).explain(target)
        torch.testing.assert_close(why.scores, weights)
        assert why.checks["additivity_gap"] < 1e-12
    torch.testing.assert_close(Shapley("nodes").explain(target).scores, weights)


def test_what_does_not_add_up_is_said():
    why = Occlusion("nodes").explain(GameTarget(lambda masks: masks.any(1).double(), 3))  # any one of them will do
    assert why.scores.tolist() == [0, 0, 0]
    assert why.checks["additivity_gap"] == 1


def test_no_players_and_one():
    assert Occlusion("nodes").explain(GameTarget(lambda masks: torch.ones(len(masks)), 0)).scores.shape == (0,)
    one = Occlusion("nodes", "only_one").explain(GameTarget(lambda masks: masks[:, 0] + 1.0, 1))
    assert one.scores.tolist() == [1]


def test_an_edge_left_out_is_an_edge_left_out():
    data, module = random_graph(), network("gcn")
    target = explain.wrap(module, data).node(1)
    why = Occlusion("edges").explain(target)
    assert len(why.scores) > 0
    with torch.no_grad():
        for player, edge in enumerate(why.players.index.tolist()):
            kept = torch.arange(data.edge_index.size(1)) != edge
            left = float(module(data.x, data.edge_index[:, kept])[1, target.label])
            assert float(why.scores[player]) == pytest.approx(why.value - left, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [({"players": 3}, TypeError, "kind such as"), ({"variant": "all"}, ValueError, "leave_one_out, only_one")],
)
def test_bad_settings(settings, error, words):
    with pytest.raises(error, match=words):
        Occlusion(**{"players": "nodes", **settings})


def test_progress_changes_nothing(capsys, monkeypatch):
    monkeypatch.setattr("explain.progress.PATIENCE", 0.0)
    target = GameTarget(smooth_function(6, 0), 6)
    assert Occlusion("nodes", progress=False).explain(target).scores.equal(Occlusion("nodes").explain(target).scores)
    assert "%" in capsys.readouterr().err
