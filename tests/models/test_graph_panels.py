"""Panels of graph networks whose truth is planted: it is found, and held to the network's own call."""

import matplotlib.pyplot as plt
import torch

from models.panels.graphs import pooled, relational
from models.votes import votes


def test_votes_are_as_friends_and_against_foes():
    data = votes(50)
    said, edges = 2 * data.x.argmax(1) - 1, data.edge_index
    for person in range(50):
        heard = [said[edges[0, (edges[1] == person) & (data.edge_type == kind)]] for kind in (0, 1, 2)]
        assert [len(one) for one in heard] == [3, 2, 3]
        assert int(data.y[person]) == int(heard[0].sum() > heard[1].sum())
    assert not torch.equal(votes(50, seed=1).y, data.y)


def test_strangers_have_the_least_credit_for_a_vote():
    finding = relational()
    plt.close(finding.figure())
    assert [name for name, _ in finding.strongest][-1] == "strangers"
    assert "all 8 coalitions" in finding.proof["by hand"]
    assert "100%" in finding.proof["law"]


def test_links_of_the_house_are_strongest_to_a_network_that_pools():
    finding = pooled()
    plt.close(finding.figure())
    assert "32 random coalitions" in finding.proof["by hand"]
    assert int(finding.proof["motif"][0]) >= 3  # of 6, among 25 links
