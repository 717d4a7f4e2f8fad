"""Bars tell the whole sum: what is shown, the rest, what features are, and the way from the base to the number."""

from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl

mpl.use("Agg")

import pytest
import torch
from explanations import edges, features, train
from torch import nn

from explain import Shapley, plot, wrap
from explain.explanation import Explanation
from explain.types import Players


def many(count=300) -> Explanation:
    scores = torch.linspace(-1, 1.5, count, dtype=torch.float64)
    return Explanation(scores, Players("features", torch.arange(count)), value=float(scores.sum()) + 2, base=2.0)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_rest_is_a_bar_of_its_own_and_the_bars_add_up():
    why = many()
    ax = plot.bars(why, k=10)
    assert ax.get_yticklabels()[-1].get_text() == "290 others, together"
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(float(why.scores.sum()))
    rest = float(why.scores.sum() - why.scores[why.order()[:10]].sum())
    assert texts(ax)[-1] == f"{rest:+.2g}"
    assert plot.bars(why, k=299).get_yticklabels()[-1].get_text() == "1 other"
    assert len(plot.bars(features()).patches) == 3


def test_scores_stand_at_their_bars_and_do_not_lie_on_them():
    ax = plot.bars(edges(), k=3)
    assert texts(ax)[:3] == ["−2", "+1.5", "+0.75"]
    ax.figure.canvas.draw()
    for text, bar in zip(ax.texts, ax.patches, strict=True):
        said, drawn = text.get_window_extent(), bar.get_window_extent()
        assert said.x1 <= drawn.x0 or said.x0 >= drawn.x1
        assert ax.get_window_extent().x0 <= said.x0
        assert said.x1 <= ax.get_window_extent().x1


@pytest.mark.parametrize("draw", [plot.bars, plot.influence_list, plot.waterfall])
def test_bars_below_zero_are_hatched(draw):
    why = train(graph=False) if draw is plot.influence_list else edges()
    bars = [bar for bar in draw(why).patches if bar.get_width()]
    assert {bool(bar.get_hatch()) for bar in bars} == {True, False}
    assert all(bool(bar.get_hatch()) == (bar.get_width() < 0) for bar in bars)


@pytest.mark.parametrize("scores", [[0.0, 0.0], [3e-17, -1e-17]])
def test_zeros_are_not_stretched_over_the_axis(scores):
    players = Players("features", torch.arange(2))
    low, high = plot.bars(Explanation(torch.tensor(scores), players, value=2.0, base=2.0)).get_xlim()
    assert (low, high) == (-1, 1)
    low, high = plot.bars(Explanation(torch.tensor([3e-7, 0.0]), players, value=2.0, base=2.0)).get_xlim()
    assert high < 1e-6


def test_a_waterfall_goes_from_the_base_to_the_number():
    why = many()
    ax = plot.waterfall(why, k=5)
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert ends[-1][0] == pytest.approx(why.base)
    assert ends[0][1] == pytest.approx(why.value)
    for above, below in pairwise(ends):
        assert above[0] == pytest.approx(below[1])
    assert [label.get_text() for label in ax.get_yticklabels()][-2:] == ["295 others", "base"]
    gap = plot.waterfall(replace(why, value=why.value + 1))
    assert "credited to nobody" in [label.get_text() for label in gap.get_yticklabels()]
    with pytest.raises(ValueError, match=r"plot\.bars draws any scores"):
        plot.waterfall(features())


@pytest.fixture(scope="module")
def rows():
    net = nn.Linear(3, 1).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0, -1.0, 0.5]]))
    data = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.0, -1.0], [-2.0, 0.0, 4.0]], dtype=torch.float64)
    model = wrap(net, task="regression", feature_names=["age", "income", "height"])
    return data, [Shapley("features").explain(model.example(row)) for row in data]


def test_features_say_what_they_are(rows):
    ax = plot.bars(rows[1][0])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["age = 1", "income = −2", "height = 3"]


def test_shap_gets_what_features_are_and_draws_many(rows):
    data, answers = rows
    assert answers[0].to_shap().data.tolist() == data[0].tolist()
    ax = plot.beeswarm(answers)
    points = torch.tensor(
        sorted(float(x) for part in ax.collections for x, _ in part.get_offsets() if len(part.get_offsets()) == 3)
    )
    credit = torch.tensor(sorted(float(x) for why in answers for x in why.scores))
    assert points.tolist() == pytest.approx(credit.tolist(), abs=1e-6)
    with pytest.raises(ValueError, match="several answers"):
        plot.beeswarm(answers[:1])
    with pytest.raises(ValueError, match="have no values"):
        plot.beeswarm([edges(), edges()])
    with pytest.raises(ValueError, match="same players"):
        plot.beeswarm([answers[0], edges()])
