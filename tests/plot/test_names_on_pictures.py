"""Pictures of graphs: every name is there and legible at the width of a column, types apart, signs without colour."""

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from explanations import edges, nodes, train
from matplotlib.collections import PathCollection
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.text import Text

from explain import plot
from explain.explanation import Explanation
from explain.plot.marks import SHAPES
from explain.types import Players


def column():
    """A figure as wide as a column of a page."""
    return plt.subplots(figsize=(3.35, 2.6), layout="constrained")[1]


def ring_of(count: int, first: int = 0, **target) -> Explanation:
    ids = torch.arange(count) + first
    columns = torch.stack([ids, ids.roll(-1)])
    geometry = {"edge_index": columns, "node": ids[1:], "focus": ids[:1]}
    scores = torch.linspace(-1, 1, count - 1)
    return Explanation(scores, Players("nodes", ids[1:], geometry=geometry), 0.5, method="Shapley", target=target)


def drawn(ax):
    ax.figure.canvas.draw()
    return ax


def discs(ax):
    """Centre and diameter in pixels of each node, rings left out."""
    found = []
    for part in ax.collections:
        if isinstance(part, PathCollection) and mpl.colors.to_hex(part.get_edgecolor()[0]) != "#e69f00":
            centres = ax.transData.transform(np.asarray(part.get_offsets()))
            sizes = np.broadcast_to(part.get_sizes() ** 0.5 * ax.figure.dpi / 72, len(centres))
            found += list(zip(centres, sizes, strict=True))
    return found


@pytest.mark.parametrize("make", [None, column])
def test_ids_of_four_digits_fit_into_their_circles(make):
    ax = drawn(plot.graph(ring_of(12, 2700), None if make is None else make()))
    assert {text.get_text() for text in ax.texts} == {str(2700 + i) for i in range(12)}
    for text in ax.texts:
        box = text.get_window_extent()
        _, size = min(
            discs(ax), key=lambda disc: np.hypot(*(disc[0] - (box.x0 + box.width / 2, box.y0 + box.height / 2)))
        )
        assert box.width <= size


def test_a_name_of_any_length_stands_at_its_node_below_the_circle():
    names = [f"Person number {i}" for i in range(6)]
    ax = drawn(plot.graph(ring_of(6, node_names=names)))
    assert {text.get_text() for text in ax.texts} == set(names)
    for text in ax.texts:
        box = text.get_window_extent()
        assert all(
            box.y1 <= centre[1] - size / 2 + 1
            for centre, size in discs(ax)
            if abs(centre[0] - box.x0 - box.width / 2) < 1 and abs(centre[1] - box.y1) < 2 * size
        )


PICTURES = {
    "graph": lambda ax: plot.graph(ring_of(60, 2700), ax),
    "edges": lambda ax: plot.graph(edges(), ax),
    "influence": lambda ax: plot.influence(train(), ax),
    "bars": lambda ax: plot.bars(nodes(), ax),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_letters_are_six_points_or_more_at_the_width_of_a_column(kind):
    ax = drawn(PICTURES[kind](column()))
    sizes = [text.get_fontsize() for text in ax.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(sizes) > 5
    assert min(sizes) >= 6


def test_a_narrow_picture_shows_fewer_nodes_and_says_so():
    wide, narrow = plot.graph(ring_of(40, 2700)), plot.graph(ring_of(40, 2700), column())
    count = [sum(text.get_text().isdigit() for text in ax.texts) for ax in (wide, narrow)]
    assert count[0] == 40
    assert 6 <= count[1] < 30
    assert any(f"{count[1]} of 40 nodes" in text.get_text() for text in narrow.texts)


def typed() -> Explanation:
    return ring_of(6, node_types={"user": 4, "item": 2})


def test_types_have_a_marker_each_and_nodes_their_own_numbers():
    ax = drawn(plot.graph(typed()))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["user", "item"]
    assert sorted(text.get_text() for text in ax.texts) == ["0", "0", "1", "1", "2", "3"]
    corners = {len(part.get_paths()[0].vertices) for part in ax.collections if isinstance(part, PathCollection)}
    assert len(corners) == 2  # circles and squares
    assert ax.get_legend().get_window_extent().y1 <= min(y for (_, y), _ in discs(ax))


def test_what_is_below_zero_is_dashed():
    for patch in plot.graph(edges()).patches:
        assert isinstance(patch, FancyArrowPatch)
    ax = plot.graph(nodes())
    dashes = {
        bool(part.get_linestyle()[0][1]): [tuple(face) for face in part.get_facecolor()]
        for part in ax.collections
        if isinstance(part, PathCollection)
        and len(part.get_facecolor())
        and part.get_facecolor()[0][:3].tolist() != [1, 1, 1]
    }
    assert [face[2] > face[0] for face in dashes[True]] == [True]  # one, and blue
    assert [face[0] > face[2] for face in dashes[False]] == [True, True]


def test_dashed_edges_are_those_below_zero():
    arrows = [patch for patch in plot.graph(edges()).patches if isinstance(patch, FancyArrowPatch)]
    assert sum(patch.get_linestyle() != "solid" for patch in arrows) == int((edges().scores < 0).sum()) == 2


def test_what_a_counterfactual_deletes_is_struck_out():
    gone = torch.tensor([False, False, True, False, True, False, False])
    ax = plot.graph(edges(parts={"deleted": gone}))
    crosses = [part for part in ax.collections if isinstance(part, PathCollection) and part.get_zorder() == 5]
    assert [len(part.get_offsets()) for part in crosses] == [2, 2]  # white below black
    place = {int(text.get_text()): np.array(text.xy) for text in ax.texts if text.get_text().isdigit()}
    for (source, target), cross in zip(
        [(11, 12), (12, 13)], sorted(crosses[0].get_offsets(), key=lambda c: np.hypot(*(c - place[11]))), strict=True
    ):
        way = place[target] - place[source]
        share = (cross - place[source]) @ way / (way @ way)
        assert 0.3 < share < 0.7
    whole = plot.graph(nodes())
    assert not [part for part in whole.collections if part.get_zorder() == 5]


def test_motifs_have_a_patch_behind_their_nodes():
    columns = torch.tensor([[1, 2, 0, 3, 4, 5, 3], [2, 0, 1, 4, 5, 3, 0]])
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    geometry = {"edge_index": columns, "ends": columns, "owner": owner, "focus": torch.tensor([0])}
    groups = (torch.arange(3), torch.arange(3, 6), torch.tensor([6]))
    why = Explanation(
        torch.tensor([3.0, -2.0, 0.5]), Players("motifs", torch.arange(3), groups=groups, geometry=geometry), 1.0
    )
    hulls = [patch for patch in plot.graph(why).patches if isinstance(patch, Polygon)]
    assert sorted(len(patch.get_xy()) - 1 for patch in hulls) == [2, 3, 3]
    tints = {round(float(c[0] - c[2]), 1) for c in (patch.get_facecolor() for patch in hulls)}
    assert max(tints) > 0 > min(tints)  # red and blue


def test_more_classes_than_markers_are_told_together():
    count = 3 + len(SHAPES)
    ids = torch.arange(count)
    geometry = {"node": ids, "edge_index": torch.stack([ids, ids.roll(1)]), "focus": torch.tensor([0]), "classes": ids}
    why = Explanation(torch.linspace(-1, 1, count), Players("train", ids, geometry=geometry), 0.0)
    ax = drawn(plot.influence(why))
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[: len(SHAPES) - 1] == [f"class {i}" for i in range(len(SHAPES) - 1)]
    assert said[len(SHAPES) - 1].startswith("4 others: class 11, class 12")
    assert ax.get_legend().get_window_extent().y1 <= min(y for (_, y), _ in discs(ax))


def test_a_legend_of_bars_and_lines_lies_below_them():
    for ax in (plot.influence_list(train(graph=False)), plot.costs({"cg": ([1.0, 2.0], [0.1, 0.01])})):
        drawn(ax)
        assert ax.get_legend().get_window_extent().y1 <= ax.get_window_extent().y0


def test_several_explanations_have_their_nodes_at_the_same_places():
    other = replace(edges(), scores=torch.arange(7.0), method="Gradient")
    where = plot.positions(edges(), nodes(), other)
    norm = mpl.colors.Normalize(-3, 3)
    for why in (edges(), nodes(), other):
        ax = plot.graph(why, position=where, norm=norm)
        for text in ax.texts:
            assert tuple(text.xy) == pytest.approx(tuple(where[int(text.get_text())]))
        bar = next(part for part in ax.figure.axes if part is not ax)
        assert bar.get_ylim() == (-3, 3)
    some = plot.graph(edges(), position={12: (0, 0), 13: (1, 1)})
    assert {text.get_text() for text in some.texts if text.get_text().isdigit()} == {"12", "13"}
    assert any("2 of 4 nodes" in text.get_text() or "strongest" in text.get_text() for text in some.texts)
    with pytest.raises(ValueError, match="no place for the explained node 12"):
        plot.graph(edges(), position={13: (0, 0)})
    with pytest.raises(ValueError, match=r"\(x, y\) of each node"):
        plot.graph(edges(), position={12: (0, 0), 13: 4.0})
    typed_places = plot.positions(typed())
    assert set(typed_places) == {("user", i) for i in range(4)} | {("item", i) for i in range(2)}


@pytest.mark.parametrize(
    ("payoff", "said"),
    [
        ("error", "credit [−squared error: up is better]"),
        ("loss", "credit [loss: down is better]"),
        ("<lambda>", "credit [payoff]"),
        ("log_probability", "credit [log probability]"),
    ],
)
def test_a_number_says_which_way_is_better(payoff, said):
    ax = plot.bars(replace(nodes(), target={"payoff": payoff}))
    assert ax.get_xlabel().replace("\n", " ") == said


def test_titles_say_method_model_question_and_number():
    asked = {"model": "GCN", "task": "node", "node": 12, "label": 1, "class_name": "owl", "payoff": "logit"}
    title = plot.graph(edges(target=asked)).get_title(loc="left")
    assert title == "Shapley · GCN · node 12, class owl · logit\xa0=\xa01.4"
    narrow = plot.graph(edges(target=asked), column()).get_title(loc="left")
    assert "\n" in narrow
    assert narrow.replace("\n", " ") == title
