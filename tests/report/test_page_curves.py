"""Deletion and insertion on the page: its lines are the metric's, and tabs choose whose is bold."""

import re

import pytest
import torch
from browser import script, seen_by
from torch_geometric.data import Data
from torch_geometric.nn import GCN

import explain
from explain.metrics import deletion, insertion
from explain.report import write
from explain.report.questions import grouped

EDGES = torch.tensor([[0, 1, 2, 3, 4, 1, 3], [1, 2, 3, 4, 0, 3, 1]])


def gcn(seed=0):
    torch.manual_seed(seed)
    return explain.wrap(GCN(5, 8, 2, 2), Data(torch.eye(5), EDGES))


@pytest.fixture(scope="module")
def targets():
    model = gcn()
    return [model.node(3), model.node(3, removal="message")]


@pytest.fixture(scope="module")
def told(targets):
    """In the page's own order: three over edges, one over nodes, by another removal."""
    deleted, silenced = targets
    over_edges = [kind("edges").explain(silenced) for kind in (explain.Shapley, explain.Occlusion, explain.Gradient)]
    return grouped([*over_edges, explain.Shapley("nodes").explain(deleted)])[0].answers


def figures(page):
    """By figure, then by side: the points of each line by its class and whose it is."""
    drawn = []
    for figure in re.findall(r'<figure class="curves".*?</figure>', page.read_text(encoding="utf-8"), re.DOTALL):
        sides = [
            re.findall(r'<polyline class="(\w+)"(?: data-a="(\d)")? points="([^"]*)"', side)
            for side in re.findall(r"<svg.*?</svg>", figure, re.DOTALL)
        ]
        drawn.append([{(kind, whose): points(of) for kind, whose, of in side} for side in sides])
    return drawn


def points(text):
    return torch.tensor([[float(number) for number in point.split(",")] for point in text.split()]).double()


def test_lines_are_the_metric_s_on_one_scale(told, targets, tmp_path):
    page = write(told, tmp_path / "it.html", curves=targets)
    nodes, edges = sorted(figures(page), key=lambda sides: len(sides[0]))
    places = {one.players.kind: [] for one in told}
    for i, one in enumerate(told):
        places[one.players.kind].append(("method", str(i)))
    beside = [("nearest", ""), ("random", "")]
    assert [sorted(side) for side in nodes] == [places["nodes"] + beside] * 2
    assert [sorted(side) for side in edges] == [places["edges"] + beside] * 2
    i, why = next((i, one) for i, one in enumerate(told) if one.method == "Occlusion")
    found = [measure(why, targets[1]) for measure in (deletion, insertion)]
    drawn, values = [], []
    for side, curve in zip(edges, found, strict=True):
        drawn += [side["method", str(i)], side["random", ""], side["nearest", ""]]
        values += [curve.values, curve.at_random, curve.by_distance]
    for line in drawn:
        assert line[:, 0].tolist() == pytest.approx(torch.linspace(46, 332, len(why) + 1).tolist(), abs=0.5)
    height, value = torch.cat(drawn)[:, 1], torch.cat([torch.as_tensor(of) for of in values])
    slope = (height[value.argmax()] - height[value.argmin()]) / (value.max() - value.min())
    assert slope < 0  # up is more
    torch.testing.assert_close(height, height[0] + slope * (value - value[0]), atol=0.2, rtol=0)
    gone = found[0]
    said = f"mean height {gone.area:.3g} as they leave (random orders {gone.random:.3g})"
    assert said in page.read_text(encoding="utf-8")


def test_a_removal_of_ones_own_has_curves_by_the_target_that_is_given(told, targets, tmp_path):
    page = write(told, tmp_path / "it.html", curves=targets[0])
    found = {len(sides[0]): sides[0] for sides in figures(page)}
    why = next(one for one in told if one.method == "Occlusion")
    by_deleting = deletion(why, targets[0])
    line = found[5]["method", str(told.index(why))][:, 1]
    steps = torch.as_tensor(by_deleting.values).diff().sign()
    assert (-line.diff().sign())[steps != 0].tolist() == steps[steps != 0].tolist()


def test_targets_of_another_model_or_question_are_refused(told, tmp_path):
    place = tmp_path / "it.html"
    with pytest.raises(ValueError, match="of the same model, weights and data"):
        write(told, place, curves=gcn(seed=1).node(3))
    with pytest.raises(ValueError, match="no answer over players that can be left out"):
        write(told, place, curves=[gcn().node(2)])
    with pytest.raises(TypeError, match="got GraphModel"):
        write(told, place, curves=[gcn()])
    assert not place.exists()


@pytest.mark.xdist_group("browser")
def test_tabs_choose_the_bold_line_and_the_players(told, targets, opened):
    browser = opened(told, curves=targets)
    for i, one in enumerate(told):
        script(browser, "document.querySelectorAll('[role=tab]')[arguments[0]].click()", i)
        figure = browser.find_element("css selector", "figure.curves:not([hidden])")
        assert script(browser, "return all('figure.curves', (it) => it.offsetParent !== null)").count(True) == 1
        assert f"share of {len(one)} {one.players.kind}, highest credit first" in figure.text
        (said,) = script(browser, "return all('.curves li', (it) => it.offsetParent && it.textContent).filter(Boolean)")
        assert said.startswith(one.method)
        assert script(browser, "return all('polyline.chosen', (it) => it.dataset.a)") == [str(i)] * 2
        top = "return all('figure.curves:not([hidden]) polyline:last-child', (it) => it.dataset.a)"
        assert script(browser, top) == [str(i)] * 2
        width = "return getComputedStyle(one('polyline.chosen')).strokeWidth"
        assert float(script(browser, width).removesuffix("px")) > 2
    seen_by(browser, media="print")
    assert script(browser, "return all('.curves li', (it) => it.offsetParent !== null)") == [True] * len(told)
