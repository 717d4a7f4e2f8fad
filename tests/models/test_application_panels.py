"""Panels of explanations at work: what they say is what stands in the data, or in the network's own call."""

import matplotlib.pyplot as plt
import pytest

from models.chickenpox import planted
from models.panels.applications import content, liked, weeks


@pytest.mark.parametrize(
    ("panel", "proof"),
    [(content, "without each edge"), (weeks, "all 256 coalitions"), (liked, "own part and likes")],
    ids=["GraphCL", "forecaster", "LightGCN"],
)
def test_the_answer_is_held_to_another_way_to_it(panel, proof, monkeypatch):
    monkeypatch.delenv("EXPLAIN_DATA", raising=False)
    finding = panel()
    plt.close(finding.figure())
    assert any(proof in said for said in finding.proof.values())
    if panel is content:
        assert all(name.endswith("motif") for name, _ in finding.strongest)
    if panel is liked:
        westerns = {"Rio Bravo", "High Noon", "Shane", "Stagecoach"}
        assert {name for name, _ in finding.strongest} <= westerns
        assert "the cosines within" in finding.proof["likeness"]


def test_each_node_of_the_planted_series_follows_the_one_before_it():
    data = planted(400)
    before, now = data.lags[..., -1], data.cases
    for lag in range(6):
        r = float((before.roll(lag, 1) * now).mean() / (before.std() * now.std()))
        assert (r > 0.7) == (lag == 1)
    assert data.edge_index[1].equal((data.edge_index[0] + 1) % 6)
