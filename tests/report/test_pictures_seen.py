"""Pictures in a browser: maps of words, what a step sees and foresees under the regions' credit, training pictures."""

import re
from dataclasses import replace

import pytest
import torch
from browser import script, seen_by, slide
from explanations import Run, edges, patches

from explain.explanation import Explanation
from explain.types import Players

pytestmark = pytest.mark.xdist_group("browser")
WORDS = ("a", "red", "bird")


def prompt():
    """Where three words of a prompt are looked up: the left, the right, and the upper half of the picture."""
    maps = torch.full((3, 4, 4), 0.5)
    maps[0, :, :2] = maps[1, :, 2:] = maps[2, :2] = 1.5
    asked = {"question": "trajectory", "steps": 3, "prompt": " ".join(WORDS)}
    players = Players("words", torch.arange(3), names=WORDS)
    return Explanation(
        torch.tensor([1.0, 3.0, 2.0]), players, 1.0, method="Attention", target=asked, parts={"maps": maps},
        checks={"scores": "shares"},
    )  # fmt: skip


class Step:
    """One noise level of a picture, as a family gives it: what is seen and foreseen is told apart by its noise."""

    def __init__(self, t):
        self.steps = (t,)

    def describe(self):
        return {"question": "step", "t": list(self.steps)}

    def states(self):
        return torch.eye(8).roll(int(self.steps[0]) // 100, 0)[None, None]

    def images(self):
        return torch.eye(8).flip(0).roll(int(self.steps[0]) // 100, 0)[None, None]


def levels():
    """A picture at two noise levels, with opposite credit."""
    one = patches()
    return [
        Explanation(one.scores * sign, one.players, t / 100, method="Lime", target=Step(t).describe())
        for t, sign in ((100.0, 1), (300.0, -1))
    ]


def shown(browser):
    """Pictures of the reel by their captions."""
    of = "[it.querySelector('figcaption').textContent, it.querySelector('img').src]"
    pairs = script(browser, f"return all('.reel figure', (it) => {of})")
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def colours(browser, caption):
    """The picture of this caption, read back: [height, width, 3]."""
    read = """const own = all('.reel figure', (it) => it).find((it) => it.textContent.includes(arguments[0]));
    const img = own.querySelector('img');
    const { naturalWidth: w, naturalHeight: h } = img, canvas = document.createElement('canvas');
    Object.assign(canvas, { width: w, height: h });
    const pen = canvas.getContext('2d');
    pen.drawImage(img, 0, 0);
    return [h, w, [...pen.getImageData(0, 0, w, h).data]]"""
    height, width, values = script(browser, read, caption)
    return torch.tensor(values).reshape(height, width, 4)[..., :3]


def test_a_word_is_picked_by_the_list_the_prompt_and_the_table(opened):
    browser = opened(prompt(), runs=[Run(prompt=" ".join(WORDS))])
    picker = browser.find_element("css selector", ".film select")
    assert script(browser, "return all('.film select option')") == ["a", "red", "bird"]  # as in the prompt
    said = browser.find_element("css selector", ".film output")
    at = "attention, × uniform"
    script(browser, "const s = one('.film select'); s.value = 'red'; s.dispatchEvent(new Event('change'))")
    right = colours(browser, at)
    assert (right[:, :2] == right[0, 0]).all()
    assert (right[:, 2:] == right[0, 3]).all()
    assert right[0, 0].tolist() != right[0, 3].tolist()
    assert "red: 0.5 to 1.5 × uniform" in said.text
    over = "new PointerEvent('pointerover', { bubbles: true })"
    script(browser, f"document.querySelectorAll('p.words .e')[2].dispatchEvent({over})")
    assert picker.get_attribute("value") == "bird"
    upper = colours(browser, at)
    assert (upper[:2] == right[0, 3]).all()  # all maps are on one scale
    assert (upper[2:] == right[0, 0]).all()
    row = "all('.credit tr[data-i]', (it) => it).find((it) => it.cells[0].textContent === 'a')"
    script(browser, f"{row}.dispatchEvent(new FocusEvent('focusin', {{ bubbles: true }}))")
    assert picker.get_attribute("value") == "a"
    assert (colours(browser, at)[:, :2] == right[0, 3]).all()


def test_the_slider_over_noise_drives_what_is_seen_foreseen_and_its_contours(opened):
    browser = opened(levels(), runs=[Step(100.0), Step(300.0)])
    sides = "return all('.reel figure:first-child .contours path', (it) => it.getAttribute('class'))"
    found = {}
    for place, t in enumerate((300, 100)):  # noise first
        slide(browser, ".noise", place)
        assert f"t={t}" in browser.find_element("css selector", ".film output").text
        assert f"(t={t})" in script(browser, "return one('[aria-selected=true]').textContent")
        seen = shown(browser)
        assert list(seen) == ["what it sees, x_t", "what it foresees, x̂₀"]
        found[t] = [*seen.values()], script(browser, sides)
        for caption, expected in zip(seen, (Step(t).states(), Step(t).images()), strict=True):
            grey = colours(browser, caption)[..., 0]
            assert ((grey > 127) == (expected[0, 0] > 0.5)).all()
    assert not set(found[100][0]) & set(found[300][0])
    assert [side.split()[1] for side in found[100][1]] == ["up", "down", "none", "up"]
    assert [side.split()[1] for side in found[300][1]] == ["down", "up", "none", "down"]
    widths = (
        "return all('.reel figure:last-child .contours path', (it) => parseFloat(getComputedStyle(it).strokeWidth))"
    )
    assert script(browser, widths) == pytest.approx([4 / 3, 4.0, 0.0, 8 / 3], abs=0.02)
    assert "none" not in script(browser, "return getComputedStyle(one('.contours path.down')).strokeDasharray")
    assert script(browser, "return one('.noise').getAttribute('aria-valuetext')") == "t=100"


def test_helpful_and_harmful_pictures_stand_beside_the_nearest_in_pixels(opened):
    images = torch.stack([torch.eye(8).roll(i, 0) for i in range(5)])[:, None]
    players = Players("train", torch.arange(5), geometry={"images": images})
    near = Players("patches", torch.arange(4), geometry=patches().players.geometry | {"image": images[3]})
    asked = Step(100.0).describe()
    behind = Explanation(torch.tensor([1.0, -1.0, 2.0, 0.5, -3.0]), players, 1.0, method="Influence", target=asked)
    browser = opened([Explanation(patches().scores, near, 1.0, method="Lime", target=asked), behind])
    script(browser, "all('[role=tab]', (tab) => tab).find((tab) => tab.textContent.startsWith('Influence')).click()")
    rows = "return all('.examples', (row) => [row.querySelector('h4').textContent, row.offsetParent !== null])"
    assert script(browser, rows) == [["helpful", True], ["harmful", True], ["nearest in pixels", True]]
    tiles = (
        "[...row.querySelectorAll('li')].map((tile) => [...tile.querySelectorAll('span')].map((it) => it.textContent))"
    )
    by_row = script(browser, f"return all('.examples', (row) => {tiles})")
    assert by_row[0] == [["train 2", "+2"], ["train 0", "+1"], ["train 3", "+0.5"]]
    assert by_row[1] == [["train 4", "-3"], ["train 1", "-1"]]
    assert by_row[2][0] == ["train 3", "+0.5"]  # itself
    pictures = script(browser, "return all('.examples img', (it) => [it.src, it.naturalWidth, it.alt])")
    assert pictures[2][0] == pictures[5][0]  # train 3, as helpful and as nearest
    assert {width for _, width, _ in pictures} == {8}
    assert len({alt for _, _, alt in pictures}) == len(pictures)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_holds_it_all_and_it_can_be_read(opened, scheme):
    told = [prompt(), *levels(), edges([-0.0136, 0.0945] + [0.5] * 5, error=False, parts={})]
    told[-1] = replace(told[-1], error=torch.full((7,), 0.00006))
    browser = opened(told, runs=[Run(prompt=" ".join(WORDS)), Step(100.0), Step(300.0)])
    seen_by(browser, 400, scheme)
    wide, window = script(browser, "return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window == 400
    cut = "(it) => it.offsetParent && it.scrollWidth - it.clientWidth > 1 ? it.textContent : ''"
    held = "td.number, .tiles span, .tools output, figcaption, p.words .e, [role=tab]"
    cut = f"return all('{held}', {cut}).filter(Boolean)"
    assert script(browser, cut) == []
    lines = "return all('#q1 .stage, #q1 .panels', (it) => it.getBoundingClientRect().left)"
    assert len(set(script(browser, lines))) == 1  # one below the other
    beside = "return all('#q2 .reel figure', (it) => it.getBoundingClientRect().top)"
    assert len(set(script(browser, beside))) == 1  # two small pictures stand beside one another
    paper, ink = script(browser, "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
    light, dark = (sum(map(int, re.findall(r"\d+", colour))) for colour in (paper, ink))
    assert (light > dark) == (scheme == "light")
    assert abs(light - dark) > 500
