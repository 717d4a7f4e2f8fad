"""Several answers at once: one layout, one scale; credit and pairs on a scale each."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch
from explanations import edges, features, nodes, patches
from matplotlib.collections import PathCollection
from matplotlib.patches import FancyArrowPatch

from explain import plot
from explain.explanation import Explanation
from explain.plot.graph import LINES
from explain.types import Players


def bars_of(ax):
    return [other for other in ax.figure.axes if other.get_label() == "<colorbar>"]


def test_the_same_node_is_at_the_same_place_in_every_panel_and_colours_compare():
    double = replace(edges(), scores=2 * edges().scores, method="Gradient")
    mask = edges([0.5, 0.1, 0.9, 0.0, 0.2, 0.25, 0.75], checks={"scores": "mask values: without a sign"})
    panels = plot.compare([edges(), double, nodes(), mask])
    places = [
        {text.get_text(): tuple(text.xy) for text in ax.texts if text.get_text() in ("10", "11", "12", "13")}
        for ax in panels
    ]
    assert len(places[0]) == 4
    assert all(other == places[0] for other in places)
    reach = [bar.get_ylim()[1] for bar in bars_of(panels[0])]
    assert reach == pytest.approx([4, 4, 2, 0.9])  # the first two are logits, the third says no unit
    assert [ax.get_title(loc="left").split(" · ")[0] for ax in panels] == ["Shapley", "Gradient", "Lime", "Shapley"]


def test_heat_maps_and_bars_share_a_scale():
    double = replace(patches(), scores=2 * patches().scores)
    assert [ax.get_images()[1].get_clim() for ax in plot.compare([patches(), double])] == [(-6, 6), (-6, 6)]
    one, other = plot.compare([features(), replace(features(), scores=3 * features().scores)])
    assert one.get_xlim() == other.get_xlim()
    assert other.get_xlim()[0] <= -6
    with pytest.raises(ValueError, match="one or more answers"):
        plot.compare([])


def paired(**parts) -> Explanation:
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[0, 1] = matrix[1, 0] = 0.02
    matrix[1, 2] = matrix[2, 1] = -0.04
    players = Players("nodes", torch.arange(4))
    return Explanation(torch.tensor([3.0, -1.0, 0.5, 2.0]), players, 0.0, parts={"interactions": matrix, **parts})


def test_a_network_has_credit_in_nodes_and_pairs_in_lines_on_a_scale_each():
    ax = plot.network(paired())
    assert sorted(bar.get_ylim()[1] for bar in bars_of(ax)) == pytest.approx([0.04, 3])
    lines = {patch.get_linewidth(): patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)}
    assert len(lines) == 2
    thin, wide = (lines[width] for width in sorted(lines))
    assert wide.get_edgecolor() == pytest.approx(LINES(0.0))
    assert thin.get_edgecolor() == pytest.approx(LINES(0.75), abs=0.01)
    assert (thin.get_linestyle() == "solid", wide.get_linestyle() == "solid") == (True, False)
    faces = [tuple(f) for part in ax.collections if isinstance(part, PathCollection) for f in part.get_facecolor()]
    assert LINES(1.0) in faces
    assert any("1 of 2 pairs" in text.get_text() for text in plot.network(paired(), pairs=1).texts)
    assert any("2 of 4 players" in text.get_text() for text in plot.network(paired(), k=2).texts)
    with pytest.raises(ValueError, match=r"Interactions\("):
        plot.network(nodes())


def test_large_main_effects_do_not_make_pairs_pale():
    matrix = paired().parts["interactions"] + torch.diag(torch.full((4,), 50.0))
    image = plot.interactions(paired(interactions=matrix)).get_images()[0]
    assert image.get_clim() == pytest.approx((-0.04, 0.04))
    assert np.ma.getmaskarray(image.get_array()).sum() == 4


@pytest.mark.parametrize(
    ("agreement", "said"), [(0.934, "runs agree by ρ = 0.93"), (None, "agreement of runs unknown")]
)
def test_the_picture_of_a_mask_says_how_far_its_runs_agree(agreement, said):
    checks = {"scores": "mask values in [0, 1]: without a sign", "run_to_run": agreement}
    title = plot.graph(edges([0.5] * 7, method="Mask", checks=checks)).get_title(loc="left")
    assert said in title.replace("\xa0", " ").replace("\n", " ")
    assert "runs" not in plot.graph(edges()).get_title(loc="left")
