"""Pictures of prompts and runs: every word with its sign, maps on one scale beside chance, whole files."""

from itertools import pairwise

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from explain import plot
from explain.explanation import Explanation
from explain.plot.pictures import alike
from explain.types import Players

PROMPT, NEGATIVE = "a red fox, in (deep) snow", "blurry $5"
SPANS = [(0, 1), (2, 5), (6, 10), (11, 13), (21, 25), (0, 6), (7, 9)]  # not (deep), which does not play
NAMES = ("a", "red", "fox,", "in", "snow", "not: blurry", "not: $5")
SCORES = torch.tensor([0.0, -0.5, 2.0, 0.1, 0.02, -0.25, 0.75], dtype=torch.float64)
PICTURE = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))


def players():
    geometry = {"negative": torch.tensor([False] * 5 + [True] * 2), "span": torch.tensor(SPANS)}
    return Players("words", torch.arange(7), NAMES, None, geometry)


def credited(error=True, **changes):
    target = {"question": "trajectory", "steps": 4, "prompt": PROMPT, "negative": NEGATIVE, "payoff": "score"}
    made = {"target": target, "error": torch.full((7,), 0.05) if error else None, "method": "Shapley"}
    return Explanation(SCORES, players(), value=2.0, base=0.0, **{**made, **changes})


def attended(summed=1.0):
    """Of words whose maps have other sizes: word w is at one cell, with its own weight; the negative ones unread."""
    maps = torch.zeros(7, 4, 6)
    for word in range(5):
        maps[word, word % 4, word] = 0.24 * (word + 1)
    shares = maps.double().mean((1, 2))
    chance = torch.tensor([0.02] * 5 + [0.0] * 2)
    by_step = shares[:, None] * torch.tensor([0.5, 1.0, 1.5])
    parts = {"maps": maps * summed, "uniform": chance, "by_step": by_step, "steps": torch.tensor([901.0, 500.5, 1.0])}
    checks = {"scores": "shares of attention: never negative, without a sign"}
    return credited(error=False, method="Attention", parts=parts, checks=checks), shares


def texts(ax):
    return [found.get_text() for found in ax.findobj(Text) if found.get_text()]


RUN = torch.rand(12, 3, 6, 8, generator=torch.Generator().manual_seed(1))
WEIGHTS = [1.0, 2.0, 4.0, 7.5]
DRAW = {
    "words": lambda ax: plot.words(credited(), ax),
    "words over": lambda ax: credited().plot(ax, over=PICTURE),
    "maps": lambda ax: attended()[0].plot(ax),
    "maps over": lambda ax: attended()[0].plot(ax, over=PICTURE),
    "word steps": lambda ax: plot.word_steps(attended()[0], ax),
    "run strip": lambda ax: plot.run_strip(RUN, ax),
    "grey strip": lambda ax: plot.run_strip(RUN[:, :1], ax, times=range(12)),
    "sweep": lambda ax: plot.sweep(WEIGHTS, torch.rand(4), RUN[:4], ax, error=[0.1] * 4, own=7.5),
    "sweep alone": lambda ax: plot.sweep(WEIGHTS, [1.0] * 4, ax=ax),
    "forks": lambda ax: plot.forks({2: RUN[:3], 7: RUN[3:12]}, ax, shared=RUN),
}


@pytest.mark.parametrize("name", DRAW)
def test_it_draws_on_the_axes_it_is_given_or_on_its_own(name):
    given = Figure().add_subplot()
    assert DRAW[name](given) is given
    given.figure.canvas.draw()
    assert plt.get_fignums() == []
    own = DRAW[name](None)
    assert isinstance(own, Axes)
    assert len(plt.get_fignums()) == 1
    own.figure.canvas.draw()


def test_every_word_stands_in_the_prompt_with_its_sign_and_what_does_not_play_is_grey():
    ax = plot.words(credited())
    found = texts(ax)
    order = [text for text in found if text in ("a", "red", "fox,", "in", "(deep)", "snow", "blurry", r"\$5")]
    assert order == ["a", "red", "fox,", "in", "(deep)", "snow", "blurry", r"\$5"]
    for said in ("+0 ± 0.05", "−0.5 ± 0.05", "+2 ± 0.05", "−0.25 ± 0.05"):
        assert said in found
    assert [text for text in found if text in ("prompt", "negative")] == ["prompt", *["negative"] * 3]  # two of width
    by_text = {one.get_text(): one for one in ax.findobj(Text)}
    faces = {word: by_text[word].get_bbox_patch().get_facecolor() for word in ("fox,", "red")}
    assert faces["fox,"][0] > faces["fox,"][2]  # red
    assert faces["red"][2] > faces["red"][0]  # blue
    assert by_text["(deep)"].get_bbox_patch() is None


def test_words_do_not_overlap_and_long_prompts_are_broken_into_lines():
    count = 30
    prompt = " ".join(f"word{i:02d}" for i in range(count))
    spans = torch.tensor([(7 * i, 7 * i + 6) for i in range(count)])
    geometry = {"negative": torch.zeros(count, dtype=torch.bool), "span": spans}
    who = Players("words", torch.arange(count), tuple(prompt.split()), None, geometry)
    scores = torch.linspace(-1, 1, count).double()
    why = Explanation(scores, who, value=0.0, error=scores.abs() / 9, method="Shapley", target={"prompt": prompt})
    ax = plot.words(why)
    ax.figure.canvas.draw()
    shown = [one for one in ax.findobj(Text) if one.get_text().startswith("word")]
    boxes = [one.get_window_extent() for one in shown]
    assert len({round(box.y0) for box in boxes}) > 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x1 <= ax.get_window_extent().x1 + 1 for box in boxes)
    assert min(box.y0 for box in boxes) > 0  # within the figure


@pytest.mark.parametrize("over", [None, PICTURE])
def test_one_line_of_words_has_its_units_whole_and_its_figures_apart(over):
    who = Players("words", torch.arange(2), ("faint", "zero"))
    target = {"prompt": "faint zero", "payoff": "log probability of zero"}
    ax = plot.words(Explanation(torch.tensor([-0.4417, 0.03]), who, value=0.0, target=target), over=over)
    figure = ax.figure
    figure.canvas.draw()
    bar = next(other for other in figure.axes if other is not ax and other not in ax.child_axes)
    axis = bar.xaxis if bar.get_xlabel() else bar.yaxis
    assert axis.label.get_text() == "credit [log probability of zero]"
    box = axis.label.get_window_extent()
    assert figure.bbox.contains(box.x0, box.y0)
    assert figure.bbox.contains(box.x1, box.y1)
    ticks = [tick.get_window_extent() for tick in axis.get_ticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(ticks))


def test_without_the_text_the_names_of_the_players_are_drawn():
    found = texts(plot.words(credited(target={})))
    assert [text for text in found if text in ("fox,", "blurry")] == ["fox,", "blurry"]


@pytest.mark.parametrize("summed", [1.0, 12.0, torch.tensor([1.0, 2, 3, 4, 5, 6, 7])[:, None, None]])
def test_maps_have_one_scale_and_each_its_chance_beside(summed):
    """Also of an aggregate that is a sum over many maps."""
    why, shares = attended(summed)
    ax = why.__class__(**{**vars(why), "scores": shares}).plot(over=PICTURE)
    picture, *drawn = ax.images
    np.testing.assert_allclose(picture.get_array(), PICTURE.movedim(0, -1).numpy())
    assert len(drawn) == 2 * 5  # the words of the negative prompt are not read there
    assert len({(image.norm.vmin, image.norm.vmax) for image in drawn}) == 1
    assert drawn[0].norm.vmin == 0
    assert drawn[0].norm.vmax == pytest.approx(1.2)
    for word in range(5):
        found, beside = drawn[2 * word], drawn[2 * word + 1]
        assert np.asarray(found.get_array()).max() == pytest.approx(0.24 * (word + 1))
        assert np.asarray(beside.get_array()).item() == pytest.approx(0.02)
    assert "fox,\n0.03, by chance 0.02" in texts(ax)


def test_the_pipelines_own_images_can_lie_beneath():
    whole = (255 * PICTURE).round().byte()
    own = Image.fromarray(whole.movedim(0, -1).numpy())
    drawn = [plot.words(credited(), over=over).child_axes[0].images[0] for over in (own, whole.float() / 255)]
    assert np.array_equal(np.asarray(drawn[0].get_array()), np.asarray(drawn[1].get_array()))


def test_words_by_steps_are_in_times_of_chance():
    why, shares = attended()
    ax = plot.word_steps(why)
    ratio = np.asarray(ax.images[0].get_array())
    assert ratio.shape == (5, 3)
    np.testing.assert_allclose(ratio[:, 1], shares[:5] / 0.02)
    assert ax.images[0].get_clim() == (0, pytest.approx(float(ratio.max())))
    assert any(line.get_ydata()[0] == 1 for other in ax.figure.axes if other is not ax for line in other.lines)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["901", "500", "1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(NAMES[:5])


def test_pictures_of_a_run_are_on_one_scale():
    dim = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.25)])
    assert [float(one.max()) for one in alike(dim)] == [0, 0.25]
    assert [float(one.max()) for one in alike(2 * dim - 1)] == [0, 0.25]
    assert [float(one.max()) for one in alike(40 * dim)] == [0, 1]
    early = torch.cat([torch.full((2, 3, 2, 2), 7.0), 2 * dim - 1, 2 * dim - 1])  # foreseen before the picture is there
    assert [float(one.max()) for one in alike(early)] == [1, 1, 0, 0.25, 0, 0.25]
    ax = plot.run_strip(RUN, most=4)
    assert len(ax.images) == 4
    assert "step 1" in texts(ax)
    assert "step 12" in texts(ax)
    assert "4 of 12 steps" in texts(ax)


def test_training_pictures_are_on_one_scale_too():
    images = torch.stack([torch.full((1, 4, 4), level) for level in (0.0, 0.2, 1.0)])
    images[1, 0, 0, 0] = 0.1  # pale, with a little that would be stretched
    who = Players("train", torch.arange(3), geometry={"images": images})
    ax = plot.strip(Explanation(torch.tensor([1.0, 2.0, -1.0]), who, value=0.0, method="Influence"))
    shown = sorted(float(np.asarray(image.get_array()).max()) for image in ax.images)
    assert shown == pytest.approx([0.0, 0.2, 1.0])
    assert all(image.get_clim() == (0, 1) for image in ax.images)


class Run:
    """What a trajectory offers."""

    def images(self):
        return RUN

    @property
    def timesteps(self):
        return list(range(11, -1, -1))


def test_a_film_is_whole_and_has_every_step(tmp_path):
    path = tmp_path / "run.gif"
    plot.film(Run(), path, seconds=1.2)
    with Image.open(path) as film:
        assert film.n_frames == 12
        assert min(film.size) >= 128
        assert film.info["duration"] == 100
        film.seek(11)
        assert film.info["duration"] == 1000
        pixels = np.asarray(film.convert("RGB"))
    expected = (alike(RUN)[-1] * 255).repeat(pixels.shape[0] // 6, 0).repeat(pixels.shape[1] // 8, 1)
    assert np.abs(pixels - expected).mean() < 8  # of 256 colours
    assert list(tmp_path.iterdir()) == [path]
    plot.film(RUN[:, :1], path)
    with Image.open(path) as film:
        assert np.abs(np.asarray(film.convert("L"))[::23, ::23].astype(float) - 255 * alike(RUN[:, :1])[0]).max() < 2
    before = path.read_bytes()
    with pytest.raises(ValueError, match="a run, explain"):
        plot.film(RUN[0], path)
    assert path.read_bytes() == before


def test_a_run_says_its_own_times():
    assert {"t=11", "t=0"} <= set(texts(plot.run_strip(Run())))
    few = type("Few", (Run,), {"timesteps": [901.0]})  # not one for each image
    assert {"step 1", "step 12"} <= set(texts(plot.run_strip(few())))


def test_a_prompt_is_named_in_the_title_and_small_numbers_stand_apart():
    ax = plot.bars(credited(error=False))
    assert ax.get_title("left").replace("\n", " ") == f"Shapley · run of 4 steps, “{PROMPT}” · score\xa0=\xa02"
    small = Players("conditions", torch.arange(2), ("prompt", "negative prompt"))
    ax = plot.bars(Explanation(torch.tensor([-0.00032, -0.0001]), small, value=0.0))
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_a_sweep_is_the_number_at_each_weight_with_its_picture():
    ax = plot.sweep(WEIGHTS, [1.0, 3.0, 2.0, 0.5], RUN[:4], own=7.5, label="fox score")
    line = ax.containers[0].lines[0]
    assert line.get_xdata().tolist() == WEIGHTS
    assert line.get_ydata().tolist() == [1, 3, 2, 0.5]
    slots = ax.child_axes
    assert [slot.get_title() for slot in slots] == ["w=1", "w=2", "w=4", "w=7.5"]
    assert all(image.norm.vmin == 0 and image.norm.vmax == 1 for slot in slots for image in slot.images)
    assert {"asked: 7.5", "fox score"} <= set(texts(ax))


def test_small_pictures_say_all_they_say():
    """A sweep of near numbers was labelled by what is above an offset; of few words or steps labels were cut."""
    ax = plot.sweep([1.0, 4.0], [176.0, 175.9])
    ax.figure.canvas.draw()
    assert "176.000" in [label.get_text() for label in ax.get_yticklabels()]
    strip = plot.run_strip(RUN[:1])
    strip.figure.canvas.draw()
    assert strip._left_title.get_window_extent().x1 <= strip.figure.bbox.x1
    why, _ = attended()
    few = Players("words", torch.arange(2), NAMES[:2])
    parts = {name: found[:2] if len(found) == 7 else found for name, found in why.parts.items()}
    ax = plot.word_steps(Explanation(why.scores[:2], few, value=0.0, parts=parts, method="Attention"))
    ax.figure.canvas.draw()
    label = ax.figure.axes[1].yaxis.label.get_window_extent()
    assert 0 <= label.y0 < label.y1 <= ax.figure.bbox.y1


def test_forks_say_by_how_much_their_ends_differ():
    same, other = RUN[:1].repeat(3, 1, 1, 1), RUN[:3]
    ax = plot.forks({2: other, 7: same}, shared=RUN)
    assert len(ax.images) == 3 + 3 + 2
    found = [text for text in texts(ax) if "part at" in text]
    assert found[0].endswith(f"{float(other.double().std(0).mean()):.2g}")
    assert found[1] == "3 runs that part at step 7: a pixel differs by 0"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.words(Explanation(torch.ones(1), Players("nodes", torch.arange(1)), value=0.0)), "'nodes'"),
        (lambda: Explanation(torch.ones(1), Players("nodes", torch.arange(1)), value=0.0).plot(over=PICTURE), "over="),
        (lambda: credited().plot(over=RUN), r"over must be a picture \[3, H, W\]"),
        (lambda: plot.word_maps(credited()), r"maps of words are of Attention\('words'\)"),
        (lambda: plot.word_steps(credited()), "has no parts"),
        (lambda: plot.run_strip(RUN[0]), "a run, explain"),
        (lambda: plot.run_strip(RUN, times=[1.0]), "12 images need as many times, got 1"),
        (lambda: plot.film(RUN, "run.mp4"), "a film is a GIF"),
        (lambda: plot.film(RUN, "run.gif", seconds=0), "seconds must be above 0"),
        (lambda: plot.sweep([1.0, 1.0], [1.0, 2.0]), "increasing weights"),
        (lambda: plot.sweep(WEIGHTS, [1.0] * 3), "4 increasing weights need as many numbers"),
        (lambda: plot.sweep(WEIGHTS, [1.0] * 4, RUN), "one for each weight"),
        (lambda: plot.sweep(WEIGHTS, [1.0] * 4, error=[1.0]), "as many errors"),
        (lambda: plot.forks({}), "forks are"),
        (lambda: plot.forks({20: RUN}, shared=RUN), "steps 0 to 11"),
        (lambda: credited().plot(over=RUN[:4]), r"of a video give one frame, run.picture\(\)\[0\]"),
        (lambda: plot.film(RUN[:, None], "run.gif"), r"of a video give one frame of each, images\[:, 0\]"),
        (lambda: plot.sweep(WEIGHTS, [1.0] * 4, RUN[:4, None]), r"images\[:, 0\]; None draws the numbers alone"),
        (lambda: plot.forks({1: RUN[:, None]}), r"images\[:, 0\]"),
    ],
)
def test_what_cannot_be_drawn(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
