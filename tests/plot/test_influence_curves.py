"""Curves and the map of training images show what they were given."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox

from explain import plot
from explain.explanation import Explanation
from explain.plot.style import DIVERGING
from explain.types import Players


def pictures(payoff="loss", classes=True) -> Explanation:
    geometry = {"images": torch.linspace(0, 1, 5 * 16).reshape(5, 1, 4, 4)}
    geometry |= {"classes": torch.tensor([0, 1, 0, 1, 1])} if classes else {}
    players = Players("train", torch.arange(5), geometry=geometry)
    scores = torch.tensor([3.0, -1.0, 0.0, 2.0, -4.0])
    return Explanation(scores, players, value=0.0, method="Influence", target={"payoff": payoff})


CURVES = {"cg": ([2.0, 1.0], [0.01, 0.1]), "lissa": ([3.0, 4.0], [0.2, 0.02])}
PLACES = np.arange(10.0).reshape(5, 2)
DRAW = {
    "costs": lambda ax: plot.costs(CURVES, ax, goal=0.02),
    "mislabels": lambda ax: plot.mislabels([0.0, 0.5, 1.0], {"loss": [[0, 0.9, 1], [0, 0.7, 1]]}, ax),
    "damping": lambda ax: plot.damping({"ggn": ([0.1, 0.01], [0.9, 0.8])}, ax, smallest=-0.05),
    "map": lambda ax: plot.training_map(pictures(), ax=ax),
    "map without classes": lambda ax: plot.training_map(pictures(classes=False), PLACES, ax, names=("a", "b")),
}


@pytest.mark.parametrize("name", DRAW)
def test_it_draws_on_the_axes_it_is_given_or_on_its_own(name):
    given = Figure().add_subplot()
    assert DRAW[name](given) is given
    given.figure.canvas.draw()
    assert plt.get_fignums() == []
    DRAW[name](None).figure.canvas.draw()
    assert len(plt.get_fignums()) == 1


def test_each_solver_is_a_line_and_the_goal_is_marked():
    ax = plot.costs(CURVES, goal=0.02)
    lines = {line.get_label(): line for line in ax.lines}
    for name, (seconds, errors) in CURVES.items():
        assert lines[name].get_xdata().tolist() == seconds
        assert lines[name].get_ydata().tolist() == errors
    assert len({line.get_color() for line in ax.lines}) == 3
    assert [text.get_text() for text in ax.texts] == ["2%"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.parametrize("curves", [{"cg": ([1.0], [1.0, 2.0])}, {"cg": ([0.0], [1.0])}, {"cg": ([1.0], [0.0])}])
def test_costs_that_cannot_be_drawn(curves):
    with pytest.raises(ValueError, match=r"cg must be (two lists|above 0)|of cg must be above 0"):
        plot.costs(curves)


def test_a_ranking_is_the_mean_of_its_repeats_in_a_band():
    ax = plot.mislabels([0.0, 0.5, 1.0], {"self_influence": [[0, 0.9, 1], [0, 0.7, 1]], "random": [0, 0.5, 1]})
    own, chance = ax.lines
    assert own.get_label() == "self influence"
    assert np.allclose(own.get_ydata(), [0, 0.8, 1])
    assert chance.get_ydata().tolist() == [0, 0.5, 1]
    assert len(ax.collections) == 1  # one curve has no spread
    corners = ax.collections[0].get_paths()[0].vertices
    band = corners[corners[:, 0] == 0.5, 1]
    assert np.allclose(sorted(set(band)), 0.8 + np.array([-2, 2]) * np.std([0.9, 0.7], ddof=1) / np.sqrt(2))
    with pytest.raises(ValueError, match="must have 3 values, one a fraction checked, got 2"):
        plot.mislabels([0.0, 0.5, 1.0], {"loss": [0, 1]})


def test_damping_is_sorted_and_the_indefinite_part_shaded():
    ax = plot.damping({"ggn": ([0.1, 0.01], [0.9, 0.8])}, smallest=-0.05)
    assert ax.lines[0].get_xdata().tolist() == [0.01, 0.1]
    assert ax.lines[0].get_ydata().tolist() == [0.8, 0.9]
    (shade,) = ax.patches
    assert np.isclose(shade.get_x() + shade.get_width(), 0.05)
    assert not plot.damping({"ggn": ([0.1], [0.9])}, smallest=0.05).patches
    with pytest.raises(ValueError, match="above 0"):
        plot.damping({"ggn": ([0.0], [0.9])})


def test_each_training_image_has_its_place_and_the_colour_of_its_score():
    ax = plot.training_map(pictures(), PLACES, k=1)
    clouds = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_array() is not None]
    at = np.concatenate([cloud.get_offsets() for cloud in clouds])
    scores = np.concatenate([cloud.get_array() for cloud in clouds])
    assert len(clouds) == 2  # classes
    assert {tuple(map(float, [*place, s])) for place, s in zip(at, scores, strict=True)} == {
        (*PLACES[i], float(s)) for i, s in enumerate(pictures().scores)
    }
    assert all(cloud.get_cmap() is DIVERGING and cloud.norm.vmax == 4 for cloud in clouds)


def test_the_strongest_images_are_shown_on_their_side():
    ax = plot.training_map(pictures(), PLACES, k=1)
    boxes = [child for child in ax.get_children() if isinstance(child, AnnotationBbox)]
    assert [tuple(box.xy) for box in boxes] == [tuple(PLACES[0]), tuple(PLACES[4])]
    assert boxes[0].xybox[0] < 0.5 < boxes[1].xybox[0]
    words = [text.get_text() for text in ax.texts]
    assert words[:2] == ["harmful", "helpful"]  # of a loss
    assert [t.get_text() for t in plot.training_map(pictures("logit"), PLACES).texts][:2] == ["helpful", "harmful"]


def test_a_map_needs_images_and_places():
    with pytest.raises(ValueError, match="needs training images"):
        plot.training_map(Explanation(torch.ones(1), Players("train", torch.arange(1)), value=0.0))
    with pytest.raises(ValueError, match=r"where must be \[5, 2\], got \[2, 5\]"):
        plot.training_map(pictures(), PLACES.reshape(2, 5))


def test_an_explanation_of_another_number_than_the_target_s_says_which():
    players = Players("train", torch.arange(3))
    asked = {"task": "node", "node": 3, "label": 1, "payoff": "logit"}
    own = Explanation(
        torch.tensor([0.1, 0.2, 0.3]), players, 0.5, method="SelfInfluence", target=asked,
        checks={"number": "each example's own loss"},
    )  # fmt: skip
    ax = plot.influence_list(own)
    assert ax.get_xlabel() == "influence [each example's own loss]"
    assert ax.get_title(loc="left") == "SelfInfluence"
