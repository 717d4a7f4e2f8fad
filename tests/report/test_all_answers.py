"""The table of all answers, in a browser: sorted by its headers, by a click or by keys, and searched."""

import pytest
from browser import script
from explanations import edges, nodes

pytestmark = pytest.mark.xdist_group("browser")

FIRST = "return all('.summary tbody tr', (row) => row.cells[0].textContent)"
SEEN = "return all('.summary tbody tr', (row) => row.offsetParent ? row.cells[0].textContent : '').filter(Boolean)"
SORTS = "return all('.summary th', (head) => head.getAttribute('aria-sort'))"
CALLS = "one('.summary th:nth-child(8) button').click()"
ENTER, SPACE = "\ue007", "\ue00d"


def answers():
    return [
        edges(method="Shapley", calls=128),
        edges([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], method="Mask", calls=9, checks={"scores": "shares"}),
        edges([3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0], method="Lime", calls=1000),
        nodes(),
    ]


def test_a_header_sorts_upwards_downwards_and_as_asked(opened):
    browser = opened(answers())
    asked = script(browser, FIRST)
    for way, calls in (("ascending", ["0", "9", "128", "1000"]), ("descending", ["1000", "128", "9", "0"])):
        script(browser, CALLS)
        assert script(browser, "return all('.summary tbody tr', (row) => row.cells[7].textContent)") == calls
        assert script(browser, SORTS) == [None] * 7 + [way] + [None]
    script(browser, CALLS)
    assert (script(browser, FIRST), script(browser, SORTS)) == (asked, [None] * 9)


def test_headers_are_pressed_by_keys_and_one_at_a_time_sorts(opened):
    browser = opened(answers())
    script(browser, CALLS)
    button = browser.find_element("css selector", ".summary th button")
    button.send_keys(ENTER)
    assert script(browser, FIRST) == ["Lime", "Lime", "Mask", "Shapley"]
    assert script(browser, SORTS) == ["ascending"] + [None] * 8
    button.send_keys(SPACE)
    assert script(browser, FIRST) == ["Shapley", "Mask", "Lime", "Lime"]
    assert script(browser, "return document.activeElement.textContent") == "method"


def test_rows_are_found_by_every_word_of_a_search(opened):
    browser = opened(answers())
    said = browser.find_element("css selector", ".summary output")
    assert said.text == "4 of 4 answers"
    search = browser.find_element("css selector", ".summary input[type=search]")
    search.send_keys("LIME edges")
    assert script(browser, SEEN) == ["Lime"]
    assert said.text == "1 of 4 answers"
    script(browser, CALLS)  # what is not found is not brought back by sorting
    assert script(browser, SEEN) == ["Lime"]
    search.send_keys("x")
    assert script(browser, SEEN) == []
