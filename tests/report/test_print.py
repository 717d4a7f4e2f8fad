"""The page on paper: every answer is there, in day's colours, on few pages."""

import base64
import re

import pytest
import torch
from browser import script, seen_by
from explanations import Run, edges, patches, train
from matplotlib.figure import Figure

from explain.comparison import compare
from explain.explanation import Explanation
from explain.types import Players

pytestmark = pytest.mark.xdist_group("browser")
A4 = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
METHODS = ("Shapley", "Lime", "Gradient", "Mask", "Occlusion", "Attention")
PAGES = 12


def many():
    """35 answers: three questions by six methods and one of training data, noise levels, a run, and pictures behind."""
    told = []
    for node in (12, 13, 14):
        asked = edges().target | {"node": node, "task": "node", "model": "GCN"}
        told += [edges(torch.randn(7).tolist(), method=method, target=asked) for method in METHODS]
        told.append(Explanation(train().scores, train().players, 1.4, method="Influence", target=asked))
    step, run = {"question": "step", "t": [300.0]}, {"question": "trajectory", "steps": 3}
    on_step, behind = patches().players, Players("train", torch.arange(9), geometry={"images": torch.rand(9, 1, 8, 8)})
    told += [Explanation(torch.randn(4), on_step, 1.0, method=method, target=step) for method in METHODS]
    told += [Explanation(torch.randn(3), Players("steps", torch.arange(3)), 1.0, method=m, target=run) for m in METHODS]
    doubts = ("the model is not at a minimum of its training loss: " + "and this is what can be done. " * 9,)
    told += [
        Explanation(torch.randn(9), behind, 1.0, method="Influence", target=asked, doubts=doubts)
        for asked in (step, run)
    ]
    return told


@pytest.fixture
def on_paper(opened):
    def show(told, **more):
        browser = opened(told, **more)
        seen_by(browser, scheme="dark")
        return browser

    return show


def pages(browser):
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", A4)["data"])
    return len(re.findall(rb"/Type\s*/Page\b", printed))


def test_thirty_five_answers_are_on_twelve_pages(on_paper):
    told = many()
    assert len(told) == 35
    agreed = {f"On {i}": compare(*told[i : i + 6], resamples=0) for i in (0, 7, 14)}
    figures = {name: Figure((9, 5)) for name in "abcdef"}
    browser = on_paper(told, comparisons=agreed, figures=figures, runs=[Run()])
    assert 3 < pages(browser) <= PAGES


def test_all_answers_are_printed_and_no_tool(on_paper):
    browser = on_paper([edges(method="Shapley"), edges([1.0, 2.0, 3.0, -4.0, 5.0, 6.0, 7.0], method="Lime")])
    seen = "return all('.panel', (panel) => panel.offsetParent !== null)"
    script(browser, "one('.theme').click()")
    script(browser, "one('.theme').click()")  # dark again, and by hand
    assert script(browser, seen) == [True, False]
    dark = script(browser, "return getComputedStyle(document.body).backgroundColor")
    seen_by(browser, scheme="dark", media="print")
    assert script(browser, seen) == [True, True]
    bars = "return all('.panel:last-child .bar i', (bar) => bar.getBoundingClientRect().width)"
    assert max(script(browser, bars)) > 5  # of the answer that was not chosen
    assert script(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)" != dark
    tools = "return all('button, input, select, .summary', (tool) => tool.offsetParent).filter(Boolean)"
    assert script(browser, tools) == []
