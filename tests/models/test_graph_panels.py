"""Panels of graph networks whose truth is planted: it is found, and held to the network's own call."""

import matplotlib.pyplot as plt
import pytest
import torch

from models.panels.graphs import orders, relational
from models.panels.walks import ahead, edge_to_edge, linear, reach
from models.panels.whole_graphs import asked, counted, house, kept, least, pooled, read_in_order
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


def test_a_set_of_nodes_is_told_by_their_degrees_alone():
    finding = counted()
    plt.close(finding.figure())
    assert "all 64 coalitions" in finding.proof["by hand"]
    assert finding.proof["without links"].endswith("within 0e+00")
    degrees = {int(name.split()[-1]): int(name.split()[0]) for name, _ in finding.strongest}
    found = asked().edge_index[0].bincount(minlength=25).bincount()
    assert all(found[degree] == count for degree, count in degrees.items())


def test_the_least_that_hides_a_house_is_links_of_its_own():
    finding = least()
    plt.close(finding.figure())
    assert finding.proof["by hand"].startswith("a ring without them, a house without any of")
    assert {int(node) for name, _ in finding.strongest for node in name.split("–")} <= set(house().tolist())


def test_a_node_that_is_not_read_counts():
    finding = read_in_order()
    plt.close(finding.figure())
    assert "the graph without each node" in finding.proof["by hand"]
    assert float(finding.proof["unread"].split()[-1]) > 0.01


def test_what_is_kept_brings_more_than_what_is_dropped():
    finding = kept()
    plt.close(finding.figure())
    assert "all 4 coalitions" in finding.proof["by hand"]
    assert finding.strongest[0][0].startswith("kept")
    assert int(finding.proof["house"][0]) >= 4


@pytest.mark.parametrize(
    ("panel", "proof"),
    [
        (linear, {"by hand": "the row of A² x", "shapley": "Shapley values"}),
        (ahead, {"by hand": "32 random coalitions"}),
        (reach, {"by hand": "PageRank"}),
        (edge_to_edge, {"by hand": "all 64 coalitions", "pairs": "all 64 coalitions"}),
        (orders, {"by hand": "coalitions by hand, brute force", "order": "all members numbered at random"}),
    ],
    ids=["SGC", "SIGN", "APPNP", "line graph", "Janossy"],
)
def test_the_answer_is_a_closed_form_or_that_of_every_coalition(panel, proof):
    state = torch.get_rng_state()
    finding = panel()
    plt.close(finding.figure())
    for name, said in proof.items():
        assert said in finding.proof[name]
    assert len(finding.strongest) == 3
    assert torch.equal(torch.get_rng_state(), state)
