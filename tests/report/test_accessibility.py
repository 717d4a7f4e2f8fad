"""What axe finds wrong with the page, by day and by night, wide and narrow: nothing."""

from pathlib import Path

import pytest
import torch
from browser import script, seen_by
from explanations import Run, edges, nodes, patches
from matplotlib.figure import Figure

from explain.comparison import compare
from explain.explanation import Explanation
from explain.types import Players

pytestmark = pytest.mark.xdist_group("browser")
AXE = Path(__file__).parents[2] / ".cache/node_modules/axe-core/axe.min.js"
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then((found) => done(found.violations.map((one) =>
  [one.id, one.nodes.length, one.nodes[0].html, one.nodes[0].failureSummary])));
"""


@pytest.fixture(scope="module")
def axe():
    if not AXE.exists():
        pytest.skip("no axe: npm install --no-save --prefix .cache axe-core")
    return AXE.read_text(encoding="utf-8")


def everything():
    """A graph, with a doubt; noise levels of a picture with what is behind it and where it looks; a run; words."""
    torch.manual_seed(0)
    both = [edges(doubts=("few samples",)), edges([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], method="Lime"), nodes()]
    behind = Players("train", torch.arange(9), geometry={"images": torch.rand(9, 1, 8, 8)})
    asked = [{"question": "step", "t": [t]} for t in (100.0, 300.0)]
    steps = [Explanation(patches().scores, patches().players, 1.0, method="Lime", target=each) for each in asked]
    run = {"question": "trajectory", "steps": 3, "prompt": "a red bird"}
    words = Players("words", torch.arange(3), names=("a", "red", "bird"))
    maps = {"maps": torch.rand(3, 4, 4)}
    return both, [
        *(both + steps),
        Explanation(torch.randn(9), behind, 1.0, method="Influence", target=asked[0]),
        Explanation(torch.rand(3), words, 1.0, method="Attention", target=run, parts=maps, checks={"scores": "shares"}),
        Explanation(torch.randn(3), Players("steps", torch.arange(3)), 1.0, method="Shapley", target=run),
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "tab"), [(1280, "first"), (400, "last")])
def test_axe_finds_nothing(opened, axe, width, tab):
    both, told = everything()
    browser = opened(told, comparisons=compare(*both[:2], resamples=0), figures={"a": Figure((2, 1))}, runs=[Run()])
    browser.execute_script(axe)
    script(browser, f"all('.tabs', (row) => row.{tab}ElementChild.click())")
    script(browser, "all('.panel:first-child details', (each) => { each.open = true; })")
    for scheme in ("light", "dark"):
        seen_by(browser, width, scheme)
        assert browser.execute_async_script(RUN) == []
        held, window = script(browser, "return [document.documentElement.scrollWidth, window.innerWidth]")
        assert held <= window  # nothing is to be scrolled sideways but what scrolls within


def test_axe_would_find_it(opened, axe):
    browser = opened(edges())
    script(browser, "one('h1').style.color = '#eee'; one('.panel input').removeAttribute('aria-label')")
    script(browser, "one('.panel input').placeholder = ''")
    browser.execute_script(axe)
    assert [found[0] for found in browser.execute_async_script(RUN)] == ["color-contrast", "label"]
