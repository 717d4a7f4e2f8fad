"""What is below zero is told without colours: by a minus, hatching, or dashes."""

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.markers import MarkerStyle
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import PathPatch, Rectangle

from explain import plot
from explain.explanation import Explanation
from explain.types import Players

SCORES = torch.tensor([3.0, -1.0, 0.0, 2.0, -4.0, -0.1, 0.5])
PLACES = np.arange(14.0).reshape(7, 2)


def behind(classes: bool) -> Explanation:
    geometry = {"images": torch.rand(7, 1, 4, 4)}
    geometry |= {"classes": torch.tensor([0, 1, 0, 1, 1, 0, 1])} if classes else {}
    return Explanation(SCORES, Players("train", torch.arange(7), geometry=geometry), 0.0, target={"payoff": "loss"})


@pytest.mark.parametrize("classes", [True, False])
def test_a_training_image_that_lowers_the_number_has_a_minus_in_its_point(classes):
    ax = plot.training_map(behind(classes), PLACES)
    minus = MarkerStyle("_").get_path().vertices
    clouds = [found for found in ax.collections if isinstance(found, PathCollection)]
    marked = [cloud for cloud in clouds if cloud.get_paths()[0].vertices.shape == minus.shape]
    at = sorted(tuple(place) for cloud in marked for place in cloud.get_offsets().tolist())
    assert at == [tuple(place) for place in PLACES[SCORES.numpy() < 0].tolist()]
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "below zero: helpful"  # of a loss


def test_a_picture_of_what_lowers_the_number_has_a_dashed_frame_and_line():
    drawn = plot.training_map(behind(True), PLACES).get_children()
    boxes = [child for child in drawn if isinstance(child, AnnotationBbox)]
    scores = {tuple(place): score for place, score in zip(PLACES.tolist(), SCORES.tolist(), strict=True)}
    assert len(boxes) == 6
    for box in boxes:
        styles = box.patch.get_linestyle(), box.arrow_patch.get_linestyle()
        assert [style in ("-", "solid") for style in styles] == [scores[tuple(box.xy)] > 0] * 2


def test_a_strip_has_dashed_frames_in_its_lower_row():
    ax = plot.strip(behind(True))
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    below = [frame.get_y() > 1 for frame in frames]
    assert below == [False] * 3 + [True] * 3
    assert [frame.get_linestyle() not in ("-", "solid") for frame in frames] == below
    assert all("-" in text.get_text() for text in ax.texts if text.get_position()[1] > 1 and "\n" in text.get_text())


@pytest.mark.parametrize("players", [5, 9])
def test_pairs_below_zero_are_hatched_where_no_figures_say_so(players):
    pairs = torch.linspace(-2, 3, players**2).reshape(players, players)
    pairs = pairs + pairs.T
    who = Players("nodes", torch.arange(players))
    ax = plot.interactions(Explanation(torch.ones(players), who, 0.0, parts={"interactions": pairs}))
    strokes = [patch for patch in ax.patches if isinstance(patch, PathPatch)]
    below = (pairs < 0) & ~torch.eye(players, dtype=torch.bool)
    assert bool(below.any())
    if players == 5:
        said = {tuple(text.get_position()): text.get_text() for text in ax.texts}
        assert not strokes
        assert all(said[column, row].startswith("-") for row, column in below.nonzero().tolist())
        return
    assert strokes[0].get_hatch()
    inside = [[strokes[0].get_path().contains_point((x, y)) for x in range(players)] for y in range(players)]
    assert inside == below.tolist()
