"""Deletion and insertion curves stand beside chance and, on graphs, plain distance."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from torch import nn

from explain import Shapley, plot, wrap
from explain.explanation import Explanation
from explain.metrics import deletion, insertion
from explain.types import Game, Players, Target


class Path(Target):
    """Nodes 1, 2 and 3 on a path to node 0, worth 1, -2 and 0.5 to a number that adds them."""

    module = nn.Identity()

    def value(self):
        return -0.5

    def players(self, kind, **options):
        geometry = {"edge_index": torch.tensor([[3, 2, 1], [2, 1, 0]]), "focus": torch.tensor([0])}
        return Players("nodes", torch.tensor([1, 2, 3]), geometry={**geometry, "node": torch.tensor([1, 2, 3])})

    def game(self, players):
        return Game(players, lambda masks: masks.double() @ torch.tensor([1.0, -2.0, 0.5]).double())

    def describe(self):
        return {}


def test_a_curve_of_a_linear_number_falls_by_its_parts_and_random_orders_by_their_mean():
    net = nn.Linear(3, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    target = wrap(net, task="regression").example(torch.tensor([1.0, 3.0, 2.0]))
    found = deletion(Shapley("features").explain(target), target, draws=4000)
    assert found.values.tolist() == [6, 3, 1, 0]
    assert found.at_random == pytest.approx(np.array([6, 4, 2, 0]), abs=0.1)
    assert found.by_distance is None  # a table has none
    ax = plot.curves({"Shapley": found})
    assert [line.get_label() for line in ax.lines] == ["Shapley", "random orders, mean"]
    assert np.array_equal(ax.lines[1].get_ydata(), found.at_random)
    assert "deleted" in ax.get_xlabel()
    assert deletion(Shapley("features").explain(target), target, draws=0).at_random is None
    with pytest.raises(ValueError, match="at least one curve"):
        plot.curves({})


def test_on_graphs_the_nearest_first_is_a_row():
    why = Explanation(torch.tensor([1.0, -2.0, 0.5]), Path().players("nodes"), value=-0.5)
    found = insertion(why, Path(), draws=2)
    assert found.values.tolist() == [0, 1, 1.5, -0.5]
    assert found.by_distance.tolist() == [0, 1, -1, -0.5]
    last = plot.curves({"Lime": found}, inserted=True).lines[-1]
    assert last.get_label() == "nearest first"
    assert np.array_equal(last.get_ydata(), found.by_distance)
