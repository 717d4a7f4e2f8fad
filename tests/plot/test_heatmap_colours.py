"""Heat maps and maps of attention are read by eye through their colour bars: here from the pixels of the figure."""

from collections import Counter
from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
import torch

from explain import plot
from explain.explanation import Explanation
from explain.types import Players

SCORES = torch.tensor([-0.787, 0.4, 0.05, -0.31, 1.0, -1.0, 0.0, 0.2, -0.06])


def patches(scores=SCORES, channels=3, **changes) -> Explanation:
    labels = torch.arange(9).reshape(3, 3).repeat_interleave(4, 0).repeat_interleave(4, 1)
    image = torch.rand(channels, 12, 12, generator=torch.Generator().manual_seed(0))
    players = Players("patches", torch.arange(9), geometry={"labels": labels, "image": image})
    return Explanation(scores, players, value=0.5, method="Shapley", **changes)


def drawn(ax):
    """The figure's pixels, top row first, and a place of an Axes' data in them."""
    ax.figure.set_dpi(160)
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)


def colour_at(ax, pixels, x, y, reach=1.4):
    """The commonest colour around a place: strokes that lie over it are fewer."""
    (left, right), (low, high) = (sorted(ax.transData.transform([(x - reach, y), (x + reach, y)])[:, 0]),
                                  sorted(ax.transData.transform([(x, y - reach), (x, y + reach)])[:, 1]))  # fmt: skip
    part = pixels[len(pixels) - int(high) : len(pixels) - int(low), int(left) : int(right)].reshape(-1, 3)
    return np.array(Counter(map(tuple, part.tolist())).most_common(1)[0][0])


def read_through_bar(ax, pixels, colour, image=1):
    """The number beside the place of the colour bar that has this colour."""
    bar = next(other for other in ax.figure.axes if other is not ax).get_window_extent()
    column = int(bar.x0 + 0.25 * bar.width)
    rows = np.arange(len(pixels) - int(bar.y1) + 1, len(pixels) - int(bar.y0) - 1)
    best = rows[np.abs(pixels[rows, column] - colour).sum(1).argmin()]
    low, high = ax.get_images()[image].get_clim()
    return low + (high - low) * (len(pixels) - best - 0.5 - bar.y0) / bar.height


@pytest.mark.parametrize("checks", [{}, {"scores": "shares of attention: without a sign"}])
def test_a_patch_read_back_through_the_colour_bar_gives_its_credit(checks):
    scores = SCORES.abs() if checks else SCORES
    ax = plot.heatmap(patches(scores, checks=checks))
    pixels = drawn(ax)
    low, high = ax.get_images()[1].get_clim()
    for i, score in enumerate(scores.tolist()):
        colour = colour_at(ax, pixels, 4 * (i % 3) + 1.5, 4 * (i // 3) + 1.5)
        assert read_through_bar(ax, pixels, colour) == pytest.approx(score, abs=0.02 * (high - low))


def test_the_picture_lies_beside_its_credit_in_its_own_colours():
    why = patches()
    ax = plot.heatmap(why)
    pixels = drawn(ax)
    image, credit = ax.get_images()
    assert image.get_extent()[1] < credit.get_extent()[0]
    shown = why.players.geometry["image"]
    left = image.get_extent()[0]
    for row, column in ((0, 0), (5, 7), (11, 11)):
        found = colour_at(ax, pixels, left + column + 0.5, row, reach=0.3)
        assert found / 255 == pytest.approx(shown[:, row, column].numpy(), abs=0.01)
    grey = plot.heatmap(patches(channels=1)).get_images()[0]
    assert grey.get_array().ndim == 2


def test_what_is_below_zero_is_told_without_colours():
    hatched = plot.heatmap(patches()).patches
    assert len(hatched) == 1
    assert hatched[0].get_hatch()
    inside = [bool(hatched[0].get_path().contains_point((4 * (i % 3) + 1.2, 4 * (i // 3) + 1.1))) for i in range(9)]
    assert inside == (SCORES < 0).tolist()
    assert not plot.heatmap(patches(SCORES.abs())).patches


def test_attention_that_is_nearly_uniform_looks_so():
    shares = torch.linspace(0.060, 0.070, 9)
    ax = plot.heatmap(patches(shares, checks={"scores": "shares of attention: without a sign"}))
    faces = ax.get_images()[1].cmap(ax.get_images()[1].norm(shares.numpy()))[:, :3]
    assert np.abs(faces - faces.mean(0)).max() < 0.12
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert any(line.get_ydata()[0] == pytest.approx(0.065) for line in bar.lines)


def test_one_scale_for_several():
    norm = mpl.colors.Normalize(-5, 5)
    one, other = (plot.heatmap(replace(patches(), scores=scores), norm=norm) for scores in (SCORES, 3 * SCORES))
    assert one.get_images()[1].get_clim() == other.get_images()[1].get_clim() == (-5, 5)


def looked(shares) -> Explanation:
    """One map of 3x3 cells over a picture of 12x12 pixels."""
    held = {"grid": torch.tensor([3, 3]), "factor": torch.tensor(4), "layer": torch.tensor(0), "region": shares}
    parts = {"attention.0": shares.reshape(1, 1, 9), **{f"attention.0.{name}": of for name, of in held.items()}}
    return replace(patches(), parts=parts, checks={"layers": ["up"]}, method="Attention")


def read_of_words(shares) -> Explanation:
    """Two words: one of these shares over 3x3 cells, and one that is looked at as by chance."""
    maps = torch.stack([shares.reshape(3, 3), torch.full((3, 3), 0.1)])
    chance, who = torch.tensor([0.1, 0.1]), Players("words", torch.arange(2), ("fox", "the"))
    return Explanation(maps.mean((1, 2)), who, 0.0, parts={"maps": maps, "uniform": chance}, method="Attention")


def test_attention_read_back_through_the_colour_bar_is_that_of_the_map():
    shares = torch.tensor([0.3, 0.02, 0.05, 0.11, 0.2, 0.08, 0.04, 0.1, 0.1])
    ax = plot.attention_maps(looked(shares))
    pixels = drawn(ax)
    for i, ratio in enumerate((9 * shares).tolist()):
        colour = colour_at(ax, pixels, (i % 3 + 0.5) / 3, (i // 3 + 0.5) / 3, reach=0.1)
        assert read_through_bar(ax, pixels, colour, image=0) == pytest.approx(ratio, abs=0.02 * 2.7)
    ax = plot.word_maps(read_of_words(shares), over=looked(shares).players.geometry["image"])
    pixels, (left, _, bottom, top) = drawn(ax), ax.get_images()[1].get_extent()
    for i, share in enumerate(shares.tolist()):
        place = left + (i % 3 + 0.5) / 3, top + (bottom - top) * (i // 3 + 0.5) / 3
        assert read_through_bar(ax, pixels, colour_at(ax, pixels, *place, reach=0.1)) == pytest.approx(share, abs=0.006)


def test_the_picture_lies_beside_maps_of_attention_in_its_own_colours():
    why = looked(torch.full((9,), 1 / 9))
    shown = why.players.geometry["image"]
    words = plot.word_maps(read_of_words(torch.ones(9) / 9), over=shown)
    for ax, which in ((plot.attention_maps(why), -1), (words, 0)):
        pixels, image = drawn(ax), ax.get_images()[which]
        left, right, bottom, top = image.get_extent()
        others = [other.get_extent() for other in ax.get_images() if other is not image]
        assert all(right <= other[0] or other[1] <= left for other in others)
        for row, column in ((0, 0), (5, 7), (11, 11)):
            place = left + (column + 0.5) * (right - left) / 12, top + (row + 0.5) * (bottom - top) / 12
            found = colour_at(ax, pixels, *place, reach=0.02)
            assert found / 255 == pytest.approx(shown[:, row, column].numpy(), abs=0.01)


def test_maps_that_are_nearly_uniform_look_so():
    shares = torch.linspace(0.060, 0.070, 9) / 0.585
    words = plot.word_maps(read_of_words(0.1 * 9 * shares))
    for ax, which in ((plot.attention_maps(looked(shares)), 0), (words, 0), (words, 2)):
        image = ax.get_images()[which]
        faces = image.cmap(image.norm(np.asarray(image.get_array())))[..., :3].reshape(-1, 3)
        assert np.abs(faces - faces.mean(0)).max() < 0.12
        assert image.get_clim()[0] == 0
    assert words.get_images()[1].get_array().item() == pytest.approx(0.1)
