"""Each picture draws on the Axes it is given, returns it, and shows what it should."""

from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from explanations import CONTEXT, EVERY, edges, empty, features, nodes, patches, train, undirected_edges
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch
from torch_geometric.data import Data
from torch_geometric.nn import GATConv

import explain
from explain import plot
from explain.comparison import compare
from explain.explanation import Explanation
from explain.plot import node_link
from explain.plot.graph import LINES
from explain.plot.pictures import alike
from explain.types import Players


def paired(players: int = 5, error: bool = True) -> Explanation:
    matrix = torch.arange(players * players, dtype=torch.float64).reshape(players, players) / players - 2
    parts = {"interactions": (matrix + matrix.T) / 2}
    if error:
        parts["interactions_error"] = torch.full((players, players), 0.5).double()
    who = Players("nodes", torch.arange(players))
    return Explanation(torch.linspace(-1, 1, players), who, value=0.0, method="Interactions", parts=parts)


def images() -> Explanation:
    geometry = {"images": torch.linspace(0, 1, 5 * 16).reshape(5, 1, 4, 4)}
    players = Players("train", torch.arange(5), geometry=geometry)
    scores = torch.tensor([3.0, -1.0, 0.0, 2.0, -4.0])
    return Explanation(scores, players, value=0.0, method="Influence", target={"payoff": "loss"})


def attended() -> Explanation:
    loops = torch.tensor([[10, 11, 12, 13, 99], [10, 11, 12, 13, 99]])
    columns = torch.cat([CONTEXT, loops], 1)
    weights = torch.linspace(0.1, 0.9, 2 * columns.size(1)).reshape(-1, 2)
    return edges(method="Attention", parts={"attention.0": weights, "attention.0.edge_index": columns})


def looked(size=(5, 8), whole=True) -> Explanation:
    """Two layers at two steps over an image of an odd size, at half and at full resolution."""
    parts, height, width = {}, *size
    for i, (layer, step, factor) in enumerate([(0, 60, 2), (1, 60, 1), (0, 20, 2), (1, 20, 1)]):
        shape = -(-height // factor), -(-width // factor)
        cells = shape[0] * shape[1]
        weights = torch.rand(2, cells, cells, generator=torch.Generator().manual_seed(i)).softmax(-1)
        parts |= {
            f"attention.{i}": weights if whole else weights.mean(1, keepdim=True),
            f"attention.{i}.region": weights.mean((0, 1)),
            f"attention.{i}.grid": torch.tensor(shape),
            f"attention.{i}.factor": torch.tensor(factor),
            f"attention.{i}.layer": torch.tensor(layer),
            f"attention.{i}.branch": torch.tensor(0),
            f"attention.{i}.step": torch.tensor(float(step)),
        }
    labels = torch.arange(height)[:, None] // 3 * 3 + torch.arange(width) // 3
    geometry = {"labels": labels, "image": torch.rand(1, height, width)}
    shares = torch.full((6,), 1 / 6)
    checks = {"layers": ["net.down", "net.up"], "branches": ["cond"], "scores": "shares of attention: without a sign"}
    target = {"question": "step", "t": [60.0, 20.0], "label": 3}
    players = Players("patches", torch.arange(6), geometry=geometry)
    return Explanation(shares, players, value=0.0, method="Attention", parts=parts, checks=checks, target=target)


def stepped(error=True) -> Explanation:
    groups = tuple(torch.arange(12).split(3))
    players = Players("steps", torch.tensor([0, 3, 6, 9]), ("t=90", "t=60", "t=30", "t=0"), groups)
    target = {"question": "trajectory", "steps": 12, "label": 3, "payoff": "score"}
    whiskers = torch.full((4,), 0.1) if error else None
    return Explanation(
        torch.tensor([0.5, 2.0, -1.0, 0.0]), players, 1.5, 0.0, whiskers, method="Shapley", target=target
    )


FORESEEN = torch.linspace(-1, 1, 12)[:, None, None, None] * torch.rand(12, 1, 6, 4)
DRAW = {
    "interactions": lambda ax: plot.interactions(paired(), ax),
    "interactions of nobody": lambda ax: plot.interactions(paired(0), ax),
    **{f"picture of {kind}": lambda ax, make=make: plot.picture(make(), ax) for kind, make in EVERY.items()},
    "bars": lambda ax: plot.bars(edges(), ax),
    "no bars": lambda ax: plot.bars(empty(), ax),
    "graph": lambda ax: plot.graph(edges(), ax),
    "heatmap": lambda ax: plot.heatmap(patches(), ax),
    "influence": lambda ax: plot.influence(train(), ax),
    "influence list": lambda ax: plot.influence_list(train(graph=False), ax),
    "strip": lambda ax: plot.strip(images(), ax),
    "attention maps": lambda ax: plot.attention_maps(looked(), ax),
    "attention over an image": lambda ax: plot.attention(looked(), ax, layer=1),
    "steps": lambda ax: plot.steps(stepped(), FORESEEN, ax),
    "attention": lambda ax: plot.attention(torch.rand(1, 2, 4, 4).softmax(-1), ax),
    "attention on edges": lambda ax: plot.attention(attended(), ax),
    "scatter": lambda ax: plot.scatter([1.0, 2.0], [1.0, 3.0], ax, error=[0.1, 0.1]),
    "agreement": lambda ax: plot.agreement(compare(edges(), edges(), resamples=0), ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_it_draws_on_the_axes_it_is_given_or_on_its_own(name, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a picture was shown"))
    given = Figure().add_subplot()
    assert DRAW[name](given) is given
    assert given.has_data() or given.texts
    given.figure.canvas.draw()
    assert plt.get_fignums() == []  # nothing else was opened
    own = DRAW[name](None)
    assert isinstance(own, Axes)
    assert len(plt.get_fignums()) == 1
    own.figure.canvas.draw()


def test_the_picture_fits_the_players():
    assert images_in(patches().plot()) == 2
    assert len(arrows(edges().plot())) > 0
    assert len(features().plot().patches) == 3
    assert len(train(graph=False).plot().patches) == 3
    assert images_in(images().plot()) == 4


def images_in(ax: Axes) -> int:
    return sum(isinstance(child, AxesImage) for child in ax.get_children())


def arrows(ax: Axes) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def test_bars_are_the_strongest_players_with_their_errors():
    ax = plot.bars(edges(), k=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["12→13", "11→12", "10→12", "4 others, together"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([-2.0, 1.5, 0.75, 0.65])
    whiskers = next(c for c in ax.containers if hasattr(c, "has_xerr")).lines[2][0].get_segments()
    assert np.allclose([segment[1, 0] - segment[0, 0] for segment in whiskers], 0.25)
    assert "1 s.e." in ax.get_xlabel()
    assert "s.e." not in plot.bars(edges(error=False)).get_xlabel()


@pytest.mark.parametrize("error", [True, False])
def test_interactions_are_a_matrix_of_pairs_with_main_effects_on_its_diagonal(error):
    why = paired(error=error)
    ax = plot.interactions(why)
    cells = ax.get_images()[0].get_array()
    assert np.array_equal(cells.data, why.parts["interactions"].numpy())
    assert np.array_equal(cells.mask, np.eye(5, dtype=bool))  # main effects are in figures, on no scale
    pairs = why.parts["interactions"][~torch.eye(5).bool()]
    assert ax.get_images()[0].norm.vmax == -ax.get_images()[0].norm.vmin == float(pairs.abs().max())
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [tick.get_text() for tick in ax.get_yticklabels()]
    clear = (why.parts["interactions"].abs() > 1) & ~torch.eye(5).bool()  # two standard errors
    marked = [text.get_text().endswith("•") for text in ax.texts[:25]]
    assert marked == (clear.flatten().tolist() if error else [False] * 25)
    assert plot.picture(why).get_images()


def test_of_many_players_those_that_interact_most_are_shown():
    why = paired(30)
    ax = plot.interactions(why, k=6)
    strong = set(why.parts["interactions"].abs().sum(1).topk(6).indices.tolist())
    assert {text.get_text() for text in ax.get_yticklabels()} == {f"node {i}" for i in strong}
    assert "6 of 30 players" in ax.get_xlabel()
    with pytest.raises(ValueError, match=r"Interactions\("):
        plot.interactions(nodes())


def test_names_are_text_not_mathematics_and_not_endless():
    players = Players("tokens", torch.arange(2), names=("$x^2", "long " * 20))
    ax = plot.bars(Explanation(torch.tensor([2.0, 1.0]), players, value=0.0))
    ax.figure.canvas.draw()
    assert len(ax.get_yticklabels()[1].get_text()) <= 28


def test_each_edge_is_drawn_once_in_the_colour_and_width_of_its_score():
    explanation = edges()
    drawn = arrows(plot.graph(explanation))
    assert len(drawn) == 7
    widest = max(drawn, key=lambda patch: patch.get_linewidth())
    assert widest.get_edgecolor() == pytest.approx(LINES(0.0))  # -2 is the end of the scale
    zero = min(drawn, key=lambda patch: patch.get_linewidth())
    assert zero.get_edgecolor() == pytest.approx(LINES(0.5), abs=0.01)


def test_an_undirected_player_is_one_line_without_an_arrow():
    drawn = arrows(plot.graph(undirected_edges()))
    assert len(drawn) == 3
    assert all(type(patch.get_arrowstyle()).__name__ == "Curve" for patch in drawn)


def test_directions_between_the_same_nodes_bend_apart():
    bends = node_link._bends([(0, 1), (1, 0), (1, 2), (2, 3), (2, 3)])
    assert bends[0] == bends[1] == 0.12
    assert bends[2] == bends[3] == 0
    assert bends[4] > 0


def test_explained_nodes_are_ringed_and_every_node_is_named():
    ax = plot.graph(edges())
    assert {text.get_text() for text in ax.texts} == {"10", "11", "12", "13"}
    rings = [c for c in ax.collections if mpl.colors.to_hex(c.get_edgecolor()[0]) == node_link.RING]
    assert len(rings) == 1
    assert len(rings[0].get_offsets()) == 1


def test_colour_scales_are_centred_at_zero_and_carry_the_units():
    for explanation in (edges(), nodes(), patches(), train()):
        ax = explanation.plot()
        bar = next(other for other in ax.figure.axes if other is not ax)
        low, high = bar.get_ylim()
        assert low == -high == pytest.approx(-float(explanation.scores.abs().max()))
        assert bar.get_ylabel().startswith(("credit", "influence"))
    assert "logit" in next(a for a in edges().plot().figure.axes if a.get_label() == "<colorbar>").get_ylabel()
    shares = edges(checks={"scores": "shares of attention: without a sign"}).plot()
    assert shares.figure.axes[-1].get_ylabel() == "shares of attention"


def wheel(spokes: int) -> Explanation:
    """Spokes into a hub, each with a tail; the strongest edges are tails."""
    hub, inner = 0, torch.arange(1, spokes + 1)
    outer = inner + spokes
    columns = torch.cat([torch.stack([inner, torch.full_like(inner, hub)]), torch.stack([outer, inner])], 1)
    players = Players(
        "edges", torch.arange(2 * spokes), geometry={"edge_index": columns, "ends": columns, "focus": torch.tensor([0])}
    )
    return Explanation(torch.cat([torch.full((spokes,), 0.01), inner / spokes]), players, value=1.0)


def test_a_large_context_is_cut_to_the_strongest_edges_and_their_ways_to_the_focus():
    ax = plot.graph(wheel(200), max_nodes=21, max_edges=15)
    assert len(arrows(ax)) == 15
    named = {int(text.get_text()) for text in ax.texts if text.get_text().isdigit()}
    assert named == {0, *range(191, 201), *range(391, 401)}
    assert any("15 of 400" in text.get_text() for text in ax.texts)


def test_node_scores_colour_the_nodes():
    ax = plot.graph(nodes())
    faces = {tuple(np.round(face, 3)) for c in ax.collections if len(c.get_facecolor()) for face in c.get_facecolor()}
    assert tuple(np.round(LINES(0.0), 3)) in faces
    assert tuple(np.round(LINES(0.75), 3)) in faces
    assert arrows(ax) == []


def test_all_nodes_of_a_player_have_its_colour():
    groups = torch.tensor([10, 13]), torch.tensor([11])
    players = Players("nodes", torch.tensor([10, 11]), ("outer", "inner"), groups, {"edge_index": CONTEXT})
    ax = plot.graph(Explanation(torch.tensor([2.0, -2.0]), players, value=0.0))
    faces = [tuple(np.round(face, 3)) for c in ax.collections for face in c.get_facecolor()]
    assert [faces.count(tuple(np.round(LINES(end), 3))) for end in (1.0, 0.0)] == [2, 1]
    assert ax.texts[-1].get_text() == "nodes of one player all have its colour"


def test_a_layout_repeats_and_keeps_nodes_apart():
    pairs = [(0, i) for i in range(1, 20)] + [(30, 31)]
    one, other = (node_link.part(Figure().add_subplot(), pairs, range(len(pairs)), range(32), seed=4) for _ in range(2))
    for node in one.nodes:
        assert np.array_equal(one.position[node], other.position[node])
    points = np.array(list(one.position.values()))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)[~np.eye(len(points), dtype=bool)]
    assert distance.min() > 0.05
    assert np.abs(points).max() < 1.6


def test_a_heat_map_puts_each_score_on_its_pixels():
    ax = plot.heatmap(patches())
    grey, credit = (child.get_array() for child in ax.get_children() if isinstance(child, AxesImage))
    assert grey.shape == credit.shape == (8, 8)
    assert credit.mask[0, 0]
    assert credit[0, 1] == 1.0
    assert credit[0, 7] == -3.0
    assert credit[7, 7] == 2.0
    with pytest.raises(ValueError, match="patches, superpixels"):
        plot.heatmap(edges())


def test_a_heat_map_takes_images_of_any_range():
    for image in (torch.zeros(3, 8, 8), torch.full((3, 8, 8), -7.0), 255 * torch.rand(3, 8, 8)):
        explanation = patches()
        players = replace(explanation.players, geometry={**explanation.players.geometry, "image": image})
        grey = plot.heatmap(replace(explanation, players=players)).get_images()[0].get_array()
        assert grey.min() >= 0
        assert grey.max() <= 1


def test_an_attention_matrix_is_the_mean_over_heads():
    weights = torch.rand(2, 3, 4, 5)
    ax = plot.attention(weights, focus=torch.tensor([1]))
    np.testing.assert_allclose(ax.get_images()[0].get_array(), weights.double().mean((0, 1)), rtol=1e-6)
    assert ax.get_images()[0].get_clim()[0] == 0
    with pytest.raises(ValueError, match="queries, keys"):
        plot.attention(torch.rand(3))
    with pytest.raises(ValueError, match=r"\[7\] or \[7, heads\]"):
        plot.attention(torch.rand(3), edge_index=CONTEXT)


def test_attention_on_edges_is_as_wide_as_its_weight_and_stays_near_the_focus():
    ax = plot.attention(attended())
    assert len(arrows(ax)) == 7
    assert {text.get_text() for text in ax.texts} == {"10", "11", "12", "13"}
    widths = sorted(patch.get_linewidth() for patch in arrows(ax))
    assert np.allclose(np.diff(widths, 2), 0, atol=1e-6)  # the weights rise evenly
    assert len(arrows(plot.attention(attended(), max_edges=2))) == 2
    with pytest.raises(ValueError, match="no attention map 3"):
        plot.attention(attended(), layer=3)


def test_influence_names_the_strongest_and_shapes_the_classes():
    explanation = train()
    geometry = {**explanation.players.geometry, "classes": torch.tensor([0, 1, 1])}
    ax = plot.influence(replace(explanation, players=replace(explanation.players, geometry=geometry)))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["class 0", "class 1", "other node"]
    assert {text.get_text() for text in ax.texts} >= {"10", "11", "13", "12"}
    with pytest.raises(ValueError, match="influence_list"):
        plot.influence(train(graph=False))


def test_a_large_training_set_is_cut_to_the_strongest_and_their_ways():
    columns = torch.stack([torch.arange(299), torch.arange(1, 300)])  # a long path from the explained node 0
    geometry = {"node": torch.arange(1, 300), "edge_index": columns, "focus": torch.tensor([0])}
    scores = 0.9 ** torch.arange(299.0)
    ax = plot.influence(
        Explanation(scores, Players("train", torch.arange(299), geometry=geometry), value=0.0), max_nodes=12
    )
    assert any("12 of 300 nodes" in text.get_text() for text in ax.texts)


def test_helpful_and_harmful_follow_the_payoff():
    ax = plot.influence_list(train(graph=False))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["node 10", "node 13", "node 11"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["helpful", "harmful"]
    loss = plot.influence_list(replace(train(graph=False), target={"payoff": "loss"}))
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["harmful", "helpful"]
    texts = [text.get_text() for text in plot.strip(images()).texts]
    assert texts[0] == "harmful"
    assert texts[1].startswith("train 0\n+3")
    with pytest.raises(ValueError, match="influence_list"):
        plot.strip(edges())


def test_small_numbers_stand_apart_beside_a_scatter():
    ax = plot.scatter(torch.linspace(-0.013, 0.026, 9), torch.linspace(-0.0125, 0.0255, 9))
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
    assert len(boxes) >= 4
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert ax.get_xticks().tolist() == ax.get_yticks().tolist()


def test_a_scatter_says_pearson_and_draws_the_identity():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    ax = plot.scatter(torch.tensor(y), torch.tensor(x))
    assert ax.texts[0].get_text() == f"Pearson r = {np.corrcoef(x, y)[0, 1]:.3f}, n = 30"
    line = ax.get_lines()[0]
    assert np.array_equal(line.get_xdata(), line.get_ydata())
    np.testing.assert_array_equal(ax.get_lines()[1].get_xdata(), x)
    for few in ([], [1.0], [1.0, 1.0]):
        assert "undefined" in plot.scatter(few, few).texts[0].get_text()
    with pytest.raises(ValueError, match="one length"):
        plot.scatter([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        plot.scatter([1.0, np.nan], [1.0, 2.0])


def test_agreement_shows_every_value_and_says_what_is_undefined():
    with pytest.warns(UserWarning, match="undefined"):
        found = compare(edges(), edges(method="Lime"), edges([0.0] * 7, method="Mask"), resamples=0)
    ax = found.plot()
    assert [text.get_text() for text in ax.texts].count("n/a") == 4
    assert ax.get_images()[0].get_clim() == (-1, 1)
    assert found.plot(measure="overlap").get_images()[0].get_clim() == (0, 1)
    with pytest.raises(ValueError, match="measure"):
        found.plot(measure="cosine")


def test_attention_maps_lie_at_their_true_resolution_and_compare():
    explanation = looked()
    ax = plot.attention_maps(explanation)
    maps = [image for image in ax.get_images() if image.get_cmap().name == "shares"]
    assert [image.get_array().shape for image in maps] == [(3, 4), (5, 8), (3, 4), (5, 8)]
    for image, factor in zip(maps, (2, 1, 2, 1), strict=True):
        left, right, bottom, top = image.get_extent()
        assert right - left == pytest.approx(1)
        assert bottom - top == pytest.approx((6 if factor == 2 else 5) / 8)  # half a cell beyond the odd image, clipped
        assert image.get_clim() == maps[0].get_clim()
    region = explanation.parts["attention.0.region"].double().reshape(3, 4)
    pixels = torch.tensor([4.0, 4, 2])[:, None]  # the last row of cells covers half as many
    np.testing.assert_allclose(maps[0].get_array(), region * 40 / pixels, rtol=1e-6)
    np.testing.assert_allclose((np.asarray(maps[0].get_array()) * pixels.numpy()).sum(), 40, rtol=1e-5)
    assert [text.get_text() for text in ax.texts] == ["t=60", "t=20", "the picture", "down", "up"]
    assert "t=60, 20, class 3" in ax.get_title(loc="left")


@pytest.mark.parametrize("measure", ["spearman", "kendall", "overlap"])
def test_agreement_of_sizes_is_not_called_that_of_scores(measure):
    why, against = edges(), replace(edges(), scores=-edges().scores)
    for absolute in (False, True):
        ax = plot.agreement(compare(why, against, absolute=absolute, resamples=0), measure=measure)
        bar = next(other for other in ax.figure.axes if other is not ax)
        sizes = absolute and measure != "overlap"
        assert [("of sizes" in said) for said in (ax.get_title("left"), bar.get_ylabel())] == [sizes, sizes]


def test_a_map_of_attention_is_called_by_the_layer_it_is_of():
    torch.manual_seed(0)
    data = Data(torch.eye(4), torch.tensor([[0, 1, 2, 3, 1], [1, 2, 3, 0, 0]]), y=torch.tensor([0, 1, 0, 1]))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = GATConv(4, 2), GATConv(4, 4)  # not in the order they are called

        def forward(self, x, edge_index):
            return self.last(self.first(x, edge_index).tanh(), edge_index)

    why = explain.Attention("edges").explain(explain.wrap(Net(), data).node(0))
    titles = [plot.attention(why, layer=i).get_title("left").replace("\n", " ") for i in (0, 1)]
    assert [title.split(" · ")[1] for title in titles] == ["layer first", "layer last"]
    unknown = replace(why, checks={})
    assert plot.attention(unknown, layer=1).get_title("left").replace("\n", " ").split(" · ")[1] == "map 1"


def test_attention_maps_of_one_pixel_and_of_few_panels():
    explanation = looked()
    ax = plot.attention_maps(explanation, query=(4, 3), maps=[0])
    maps = [image for image in ax.get_images() if image.get_cmap().name == "shares"]
    row = explanation.parts["attention.0"].double().mean(0)[2 * 4 + 1].reshape(3, 4)
    np.testing.assert_allclose(maps[0].get_array(), row * 40 / torch.tensor([4.0, 4, 2])[:, None], rtol=1e-6)
    thin = plot.attention_maps(explanation, rows=1, columns=1)
    assert images_in(thin) == 2
    assert "1 of 2 steps, 1 of 2 layers" in [text.get_text() for text in thin.texts]
    assert images_in(plot.attention(explanation, layer=2)) == 2
    with pytest.raises(ValueError, match=r"a pixel \(row, column\) of the 5x8 image"):
        plot.attention_maps(explanation, query=(5, 0))
    with pytest.raises(ValueError, match="only what the region looks at was kept"):
        plot.attention_maps(looked(whole=False), query=(0, 0))
    assert images_in(plot.attention_maps(looked(whole=False))) == 5
    with pytest.raises(ValueError, match="has 0 attention maps over the image"):
        plot.attention_maps(patches())
    with pytest.raises(ValueError, match=r"has 4 attention maps over the image, asked for \[7\]"):
        plot.attention_maps(explanation, maps=[7])
    with pytest.raises(ValueError, match="needs patches or superpixels; got edges"):
        plot.attention_maps(edges())


def test_layers_lie_side_by_side_where_there_is_one_step_and_colours_reach_as_far_as_the_cells():
    ax = plot.attention_maps(looked(), maps=[0, 1])
    maps = [image for image in ax.get_images() if image.get_cmap().name == "shares"]
    assert [image.get_extent()[3] for image in maps] == [0, 0]
    assert maps[0].get_extent()[1] < maps[1].get_extent()[0]
    assert [text.get_text() for text in ax.texts] == ["down", "up", "the picture", "t=60"]
    furthest = max(float(image.get_array().max()) for image in maps)
    assert maps[0].get_clim() == pytest.approx((0, max(2, furthest)))
    assert "1 of 2 layers" in [text.get_text() for text in plot.attention_maps(looked(), maps=[0, 1], columns=1).texts]


def test_shares_without_a_sign_are_not_drawn_as_signed():
    ax = looked().plot()
    assert ax.get_images()[1].get_clim() == (0, pytest.approx(2 / 6))
    assert ax.get_images()[1].get_cmap().name == "shares"
    alike, apart = torch.tensor([0.15, 0.16, 0.17, 0.17, 0.17, 0.18]), torch.tensor([0.01, 0.1, 0.1, 0.1, 0.09, 0.6])
    assert replace(looked(), scores=alike).plot().get_images()[1].get_clim() == pytest.approx((0, 1 / 3))
    assert replace(looked(), scores=apart).plot().get_images()[1].get_clim() == pytest.approx((0, 0.6))
    assert patches().plot().get_images()[1].get_clim() == (-3, 3)


def test_a_strip_of_steps_has_a_bar_a_player_and_images_in_order():
    ax = plot.steps(stepped(), FORESEEN, most=5)
    assert [bar.get_height() for bar in ax.patches] == [0.5, 2.0, -1.0, 0.0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == pytest.approx([1.5, 4.5, 7.5, 10.5])
    slots = ax.child_axes
    assert len(slots) == 5
    foreseen = alike(FORESEEN)  # the first is the darkest of all, and not stretched to white
    for slot, expected in ((slots[0], foreseen[0]), (slots[-1], foreseen[-1])):
        np.testing.assert_allclose(slot.get_images()[0].get_array(), expected)
        assert slot.get_images()[0].get_clim() == (0, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["t=90", "t=60", "t=30", "t=0"]
    assert "s.e." in ax.get_ylabel()
    assert "s.e." not in plot.steps(stepped(error=False), FORESEEN).get_ylabel()
    assert any("5 of 12 images" in text.get_text() for text in ax.texts)
    alone = stepped().plot()  # in time, whatever is strongest
    assert [bar.get_height() for bar in alone.patches] == [0.5, 2.0, -1.0, 0.0]
    assert not alone.child_axes
    with pytest.raises(ValueError, match="one for each of 12 steps"):
        plot.steps(stepped(), FORESEEN[:11])
    with pytest.raises(ValueError, match="players 'steps' or 'guidance', got 'edges'"):
        plot.steps(edges(), FORESEEN)


def test_training_images_keep_their_proportions():
    for height, width in ((4, 4), (4, 12), (12, 4)):
        geometry = {"images": torch.rand(2, 1, height, width)}
        players = Players("train", torch.arange(2), geometry=geometry)
        for image in plot.strip(Explanation(torch.tensor([1.0, -1.0]), players, value=0.0)).get_images():
            left, right, bottom, top = image.get_extent()
            assert (bottom - top) / (right - left) == pytest.approx(height / width)
            assert right - left <= 0.92 + 1e-9
            assert bottom - top <= 0.78 + 1e-9


def test_the_remark_counts_players_of_several_edges():
    columns = torch.tensor([[1, 2, 3, 4], [0, 1, 0, 3]])
    players = Players(
        "motifs",
        torch.arange(3),
        groups=(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3])),
        geometry={
            "edge_index": columns,
            "ends": columns,
            "owner": torch.tensor([0, 0, 1, 2]),
            "focus": torch.tensor([0]),
        },
    )
    why = Explanation(torch.tensor([3.0, 2.0, 0.1]), players, 1.0, method="Shapley")
    ax = plot.graph(why, max_edges=3)
    assert any(text.get_text() == "the strongest 2 of 3 motifs in colour" for text in ax.texts)
