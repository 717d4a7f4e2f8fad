"""The report is one page that holds everything, loads nothing, runs nothing, and escapes what it is told."""

import base64
import errno
from html.parser import HTMLParser

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from explanations import EVERY, edges, nodes
from matplotlib.figure import Figure

from explain.comparison import compare
from explain.explanation import Explanation
from explain.report import write
from explain.types import Players


class Page(HTMLParser):
    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_comparisons_go_by_their_headings_and_a_single_pair_needs_no_picture(tmp_path):
    first, second = edges(), edges([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], method="Lime")
    third = edges([3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0], method="Gradient")
    named = {"On the first model": compare(first, second), "On the second model": compare(first, second, third)}
    page = read(write(first, tmp_path / "it.html", comparisons=named))
    text = " ".join(page.texts)
    assert all(heading in text for heading in named)
    assert len(page.named("img")) == 2 + 3
    assert (
        " ".join(read(write(first, tmp_path / "it.html", comparisons=named.popitem()[1])).texts).count("Agreement") == 1
    )


def test_the_page_holds_every_picture_check_and_setting(tmp_path):
    other, more = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0]
    told = [edges(), edges(other, method="Lime", checks={"r2": 0.75}), edges(more, method="Gradient"), nodes()]
    path = write(told, tmp_path / "it.html", "My graph", compare(*told[:3], k=2), {"Accuracy": Figure()})
    page = read(path)
    assert page.open == []
    text = " ".join(page.texts)
    for expected in ("My graph", "Shapley", "R² 0.750", "efficiency gap", "top 2 shared", "Accuracy", "samples", "128"):
        assert expected in text
    pictures = page.named("img")
    assert len(pictures) == 4 * 2 + 3 + 1  # a graph and bars each, the agreement by three measures, the figure
    for picture in pictures:
        kind, data = picture["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
        assert picture["alt"]
    assert plt.get_fignums() == []


def test_what_was_assumed_has_a_table_of_its_own(tmp_path):
    assumed = {"loss": "squared error: the labels are fractions"}
    told = Explanation(
        torch.ones(1), Players("nodes", torch.arange(1)), 1.0, target={"payoff": "logit", "assumed": assumed}
    )
    page, plain = (read(write(why, tmp_path / "it.html")) for why in (told, nodes()))
    after = page.texts[page.texts.index("Assumed, not given") :]
    assert after.index("loss") < after.index(assumed["loss"])
    assert "Assumed, not given" not in plain.texts


def test_nothing_is_loaded_or_run(tmp_path):
    page = read(write(edges(), tmp_path / "it.html"))
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    assert "url(" not in " ".join(page.texts)


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&'


def test_what_it_is_told_is_escaped_everywhere(tmp_path):
    players = Players("nodes" + EVIL, torch.arange(2), names=(EVIL, "b"))
    told = [
        Explanation(
            torch.tensor([2.0, 1.0]), players, value=0.0, method=EVIL, checks={EVIL: EVIL}, settings={EVIL: [EVIL]},
            target={"task": EVIL, EVIL: EVIL, "removal": f"{i}{EVIL}"}, versions={EVIL: EVIL},
        )
        for i in range(2)
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="removal"):
        compared = compare(*told, resamples=0)
    page = read(write(told, tmp_path / "it.html", EVIL, compared, {EVIL: Figure()}))
    assert not page.named("script")
    assert all(not any(name.startswith("on") for name in attributes) for _, attributes in page.tags)
    assert all("src" not in attributes or attributes["src"].startswith("data:") for _, attributes in page.tags)
    assert EVIL in page.texts  # told as it is, not evaluated


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_of_players_has_a_page(tmp_path, kind):
    assert read(write(EVERY[kind](), tmp_path / "it.html")).named("img")


def test_attention_maps_and_helpful_examples_are_shown_too(tmp_path):
    maps = {"attention.0": torch.rand(1, 2, 3, 3), "attention.1": torch.rand(1, 2, 3, 3)}
    text = " ".join(read(write(edges(parts=maps), tmp_path / "it.html")).texts)
    assert "attention of layer 1" in text
    assert "most helpful" in " ".join(read(write(EVERY["train"](), tmp_path / "it.html")).texts)


def test_figures_come_in_three_ways(tmp_path):
    ax = Figure().add_subplot()
    path = write(edges(), tmp_path / "it.html", figures={"axes": ax, "figure": ax.figure})
    assert "wide" in [
        figure.get("class") for figure in read(write(edges(), path, figures={"wide": Figure((9, 3))})).named("figure")
    ]
    write(edges(), path, figures={"axes": ax, "figure": ax.figure})
    assert "wide" not in [figure.get("class") for figure in read(path).named("figure")]
    png = base64.b64decode(read(path).named("img")[0]["src"].split(",")[1])
    write(edges(), path, figures={"bytes": png})
    for wrong in (b"GIF89a", "path.png"):
        with pytest.raises(ValueError, match="PNG"):
            write(edges(), path, figures={"it": wrong})


def test_a_failed_report_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    path = write(edges(), tmp_path / "it.html", "old")
    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write(edges(), path, "new")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["it.html"]
    with pytest.raises(ValueError, match="at least one"):
        write([], path)
    for swapped, message in (
        ({"a": edges()}, r"write\(list\(found\.values"),
        (path, "got PosixPath"),
        (["a"], "got str"),
    ):
        with pytest.raises(TypeError, match=message):
            write(swapped, path)
    assert plt.get_fignums() == []
