"""The page in a real browser: nothing is asked for, nothing goes wrong, and what is moved changes what is seen."""

import time

import pytest
import torch
from browser import script, slide
from explanations import CONTEXT, Run, edges, patches

from explain.explanation import Explanation
from explain.types import Players

pytestmark = pytest.mark.xdist_group("browser")  # one browser for all
EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u2028'\"&"


def graph():
    """Two methods on edges, one of them without a sign, and one on nodes."""
    players = Players(
        "nodes", torch.tensor([10, 11, 13]), geometry={"edge_index": CONTEXT, "focus": torch.tensor([12])}
    )
    on_nodes = Explanation(
        torch.tensor([1.0, -2.0, 0.5]), players, 1.4, base=1.9, method="Lime", target=edges().target, doubts=("few",)
    )
    return [edges(), edges([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], method="Mask", checks={"scores": "shares"}), on_nodes]


def test_tabs_change_what_is_seen(opened):
    browser = opened(graph())
    shown = "return [...document.querySelectorAll('.panel')].map((panel) => panel.offsetParent !== null)"
    assert script(browser, shown) == [True, False, False]
    line = "return one('.lines [data-e]').getAttribute('class')"
    before = script(browser, line)
    tab = browser.find_element("css selector", "[role=tab]")
    tab.send_keys("\ue012")  # left, around the end
    assert script(browser, shown) == [False, False, True]
    assert script(browser, line) != before
    assert script(browser, "return document.activeElement.getAttribute('aria-selected')") == "true"
    assert "Mask" in script(browser, "return document.activeElement.textContent")
    script(browser, "document.querySelectorAll('[role=tab]')[1].click()")
    assert script(browser, shown) == [False, True, False]
    assert "few" in browser.find_element("css selector", ".panel:not([hidden]) .doubts").text


def test_small_credit_is_hidden_and_its_sum_stays_in_sight(opened):
    browser = opened(edges())
    count = "return document.querySelectorAll('.lines .off').length"
    assert script(browser, count) == 0
    slide(browser, ".cut", 60)  # of 2 the share .36: .72
    scores = edges().scores
    small = scores[scores.abs() < 0.72]
    assert script(browser, count) == len(small) == 4
    said = browser.find_element("css selector", ".hidden-sum")
    assert float(said.get_attribute("data-sum")) == pytest.approx(float(small.sum()))
    assert said.text == f"below 0.72: 4 of 7 hidden, together +{float(small.sum()):.3g}"
    rows = [row.text for row in browser.find_elements("css selector", ".credit tr") if row.text]
    assert any("4 others, together" in row for row in rows)
    assert rows[0].startswith("without edges")
    assert rows[-1].startswith("the number")


def test_a_waterfall_ends_at_the_number(opened):
    why = edges([0.5, -0.1, 1.5, 0.0, -2.0, 0.25, 0.75], base=0.5, value=1.4)
    browser = opened(why)
    ends = "return [...document.querySelectorAll('.credit .bar i')].map((bar) => bar.getBoundingClientRect())"
    bars = script(browser, ends)
    *credit, last = bars
    assert credit[-1]["right"] == pytest.approx(last["left"], abs=1.5)
    sizes = [bar["width"] for bar in credit[1:4]]  # -2, 1.5, .75 of one scale
    assert sizes[0] / sizes[1] == pytest.approx(2 / 1.5, rel=0.03)
    assert sizes[1] / sizes[2] == pytest.approx(2, rel=0.05)


def test_players_are_searched_sorted_and_walked_through_by_keys(opened):
    browser = opened(edges())
    names = "return [...document.querySelectorAll('.credit tr[data-i] th')].map((name) => name.textContent)"
    script(browser, "const s = one('.panel select'); s.value = 'lowest first'; s.dispatchEvent(new Event('change'))")
    scores = dict(zip(edges().players.names, edges().scores.tolist(), strict=True))
    assert [scores[name] for name in script(browser, names)] == sorted(scores.values())
    browser.find_element("css selector", ".panel input[type=search]").send_keys("3→")
    assert script(browser, names) == ["13→12"]
    browser.find_element("css selector", ".panel input[type=search]").send_keys("\ue003\ue003")
    script(browser, "one('tr[data-i]').focus()")
    first = browser.find_element("css selector", ".card").text
    browser.switch_to.active_element.send_keys("\ue015")  # down
    assert browser.find_element("css selector", ".card").text != first
    assert script(browser, "return document.querySelectorAll('.lines .here').length") == 1


def test_pointing_tells_what_every_method_gives_and_nodes_can_be_moved(opened):
    browser = opened(graph())
    script(browser, "one('.lines [data-e]').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    said = browser.find_element("css selector", ".card").text
    assert "Shapley (edges) +0.5 ± 0.1" in said
    assert "Mask (edges) +7" in said
    assert script(browser, "return document.querySelectorAll('tr.here').length") == 1
    ActionChains = pytest.importorskip("selenium.webdriver").ActionChains

    place = "return one('g[data-e]').getAttribute('transform') + one('.lines [data-e]').getAttribute('d')"
    before = script(browser, place)
    script(browser, "one('g[data-e]').scrollIntoView({block: 'center'})")
    chain = ActionChains(browser)
    chain.drag_and_drop_by_offset(browser.find_element("css selector", "g[data-e] circle"), 60, 40).perform()
    assert script(browser, place) != before
    moved = script(browser, "const b = one('g[data-e] circle').getBoundingClientRect(); return [b.x, b.y]")
    chain.move_by_offset(40, 40).perform()  # the button is up: it stays
    assert script(browser, "const b = one('g[data-e] circle').getBoundingClientRect(); return [b.x, b.y]") == moved


def test_sliders_drive_the_steps_of_a_run_and_noise_levels(opened):
    of_run = Explanation(
        torch.tensor([1.0, 2.0, -1.0]), Players("steps", torch.arange(3)), 1.0, method="Shapley",
        target={"question": "trajectory", "steps": 3},
    )  # fmt: skip
    one = patches()
    steps = [
        Explanation(one.scores * t, one.players, t / 100, method="Lime", target={"question": "step", "t": [t]})
        for t in (100.0, 300.0)
    ]
    browser = opened([of_run, *steps], runs=[Run()])
    seen = "return one('#q1 .reel img').src"
    before = script(browser, seen)
    slide(browser, "#q1 .step", 2)
    assert script(browser, seen) != before
    assert script(browser, "return one('#q1 [aria-current=step] span').textContent") == "step 2"
    assert "t=100" in browser.find_element("css selector", "#q1 .film output").text
    assert script(browser, "return document.querySelectorAll('#q1 .reel img').length") == 2  # seen and foreseen
    script(browser, "one('#q1 .tiles li').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert "t=900" in browser.find_element("css selector", "#q1 .film output").text  # the strip scrubs
    assert script(browser, seen) == before

    chosen = "return one('#q2 [aria-selected=true]').textContent"
    assert script(browser, chosen) == "Lime (t=100) · patches"
    slide(browser, "#q2 .noise", 0)  # most noise first
    assert script(browser, chosen) == "Lime (t=300) · patches"


def test_a_hostile_label_does_not_run(opened):
    players = Players("nodes", torch.arange(2), (EVIL, "b" + EVIL), geometry={
        "edge_index": torch.tensor([[0], [1]]), "focus": torch.tensor([1]), "node": torch.arange(2)
    })  # fmt: skip
    why = Explanation(
        torch.tensor([2.0, -1.0]), players, 0.0, base=1.0, method=EVIL, doubts=(EVIL,), settings={"players": EVIL},
        target={"model": EVIL, "task": "node", "node": EVIL, "payoff": EVIL, "removal": EVIL},
    )  # fmt: skip
    browser = opened([why, Explanation(why.scores, players, 0.0, method="B" + EVIL, target=why.target)], title=EVIL)
    script(browser, "document.querySelectorAll('[role=tab]')[1].click()")
    focused = "new FocusEvent('focusin', {bubbles: true})"  # also where the window has no focus of its own
    script(browser, f"one('.panel:not([hidden]) tr[data-i]').dispatchEvent({focused})")
    time.sleep(0.1)  # what an image that fails would do
    assert script(browser, "return [window.hacked, document.querySelectorAll('img').length]") == [None, 0]
    assert EVIL.replace("\u2028", "") in browser.title.replace("\u2028", "").replace(" ", " ")
    assert EVIL in script(browser, "return one('.card').textContent")


def test_what_is_copied_is_python(opened):
    asked = {"family": "graph", "task": "node"} | edges().target
    browser = opened(edges(target=asked))
    code = script(browser, "return one('pre.code').textContent")
    compile(code, "page", "exec")
    assert "model.node(12, label=1, payoff='logit', removal='delete')" in code


def test_light_and_dark(opened):
    browser = opened(edges())
    paper = "return getComputedStyle(document.body).backgroundColor"
    before = script(browser, paper)
    browser.find_element("css selector", ".theme").click()
    assert script(browser, paper) != before
    browser.find_element("css selector", ".theme").click()
    assert script(browser, paper) == before
