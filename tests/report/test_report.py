"""The report is one page that holds everything, loads nothing, runs its own script alone, escapes what it is told."""

import base64
import errno
import json
import re
from html.parser import HTMLParser

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from explanations import CONTEXT, EVERY, Run, edges, nodes
from matplotlib.figure import Figure

from explain.comparison import compare
from explain.explanation import Explanation
from explain.report import write
from explain.report.data import as_json
from explain.report.page import digest
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


def data_of(path) -> list[dict]:
    """What the workbench is given, of each question."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(found) for found in re.findall(r'class="data">(.*?)</script>', text)]


def test_comparisons_go_by_their_headings_and_each_is_a_table(tmp_path):
    first, second = edges(), edges([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], method="Lime")
    third = edges([3.0, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0], method="Gradient")
    named = {"On the first model": compare(first, second), "On the second model": compare(first, second, third)}
    page = read(write(first, tmp_path / "it.html", comparisons=named))
    text = " ".join(page.texts)
    assert all(heading in text for heading in named)
    assert sum(cell.get("class") == "measure" for cell in page.named("td")) == 3 * (1 + 3)
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
    assert len(page.named("svg")) == 2  # a graph for each question: three answers share one
    (figure,) = page.named("img")
    kind, data = figure["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    alternatives = [figure["alt"], *(svg["aria-label"] for svg in page.named("svg"))]
    assert len(set(alternatives)) == len(alternatives)


def test_what_was_assumed_has_a_table_of_its_own(tmp_path):
    assumed = {"loss": "squared error: the labels are fractions"}
    told = Explanation(
        torch.ones(1), Players("nodes", torch.arange(1)), 1.0, target={"payoff": "logit", "assumed": assumed}
    )
    page, plain = (read(write(why, tmp_path / "it.html")) for why in (told, nodes()))
    after = page.texts[page.texts.index("Assumed, not given") :]
    assert after.index("loss") < after.index(assumed["loss"])
    assert "Assumed, not given" not in plain.texts


def test_nothing_is_loaded_and_nothing_else_is_run(tmp_path):
    path = write(edges(), tmp_path / "it.html")
    page = read(path)
    assert not {"link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/png;base64,", "#"))
    (policy,) = [meta["content"] for meta in page.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" class="data"', ""]
    assert digest(scripts[-1][1]) in policy


def test_one_layout_holds_all_answers_about_a_graph(tmp_path):
    (data,) = data_of(write([edges(), nodes_of_the_same(), lined()], tmp_path / "it.html"))
    (scene,) = data["scenes"]
    assert [answer["scene"] for answer in data["answers"]] == [0, 0, 0]
    assert len({len(answer["owners"]) for answer in data["answers"]}) == 1
    ends = CONTEXT.t().tolist()
    for line, player in zip(scene["edges"], data["answers"][0]["owners"][4:], strict=True):
        assert [10 + line[0], 10 + line[1]] == ends[data["answers"][0]["places"][player]]
    for place, player in zip(range(4), data["answers"][1]["owners"], strict=False):
        if player >= 0:
            assert data["answers"][1]["names"][player] == f"node {10 + place}"


def nodes_of_the_same():
    target = edges().target
    return Explanation(nodes().scores, nodes().players, 1.4, method="Lime", target=target)


def lined():
    return edges(method="Mask", checks={"scores": "shares"})


def test_small_credit_that_is_not_listed_is_summed(tmp_path):
    scores = torch.linspace(-1, 2, 1200, dtype=torch.float64)
    why = Explanation(scores, Players("features", torch.arange(1200)), 0.0, method="Shapley")
    (data,) = data_of(write(why, tmp_path / "it.html"))
    (answer,) = data["answers"]
    assert len(answer["scores"]) == 1000 < answer["players"] == 1200
    assert sum(answer["scores"]) + answer["rest"] == pytest.approx(float(scores.sum()), rel=1e-4)


def test_json_ends_no_script_and_comes_back_whole():
    text = "</script><!--&\u2028\u2029é"
    made = str(as_json({text: [text]}))
    assert not set("<>&\u2028\u2029") & set(made)
    assert json.loads(made) == {text: [text]}


def test_pictures_of_a_run_stand_at_its_steps(tmp_path):
    asked = {"question": "trajectory", "steps": 3, "removal": "pad", "found": 1}
    why = Explanation(torch.ones(3), Players("steps", torch.arange(3)), 1.0, method="Shapley", target=asked)
    page = write([why, edges()], tmp_path / "it.html", runs=[Run(removal="drop")])
    first, second = data_of(page)
    assert first["film"]["times"] == [900.0, 500.0, 100.0]
    assert len(first["film"]["foreseen"]) == len(first["film"]["seen"]) == 3
    assert second["film"] is None
    assert sum("Foreseen at" in image["alt"] for image in read(page).named("img")) == 3


def test_the_noise_levels_of_one_picture_are_one_film_noise_first(tmp_path):
    class Step:
        def __init__(self, t):
            self.steps = (t,)

        def describe(self):
            return {"question": "step", "t": list(self.steps)}

        def states(self):
            return torch.eye(4)[None, None] * self.steps[0] + (self.steps[0] > 200) * torch.eye(4).flip(0)

    told = [
        Explanation(torch.ones(2), Players("words", torch.arange(2)), t, method="Lime", target=Step(t).describe())
        for t in (100.0, 300.0)
    ]
    (data,) = data_of(write(told, tmp_path / "it.html", runs=[Step(100.0), Step(300.0), Step(500.0)]))
    assert data["film"]["times"] == [300.0, 100.0]
    assert len(set(data["film"]["seen"])) == 2
    assert data["film"]["foreseen"] == []


def test_what_shares_the_number_out_is_shown_first_and_training_last(tmp_path):
    told = [EVERY["train"](), lined(), edges(checks={"r2": 1.0}, method="Lime"), edges()]
    found = data_of(write(told, tmp_path / "it.html"))
    assert [answer["name"] for answer in found[-1]["answers"]] == ["Shapley", "Lime", "Mask"]


def test_a_class_goes_by_its_name(tmp_path):
    asked = {"model": "GCN", "task": "node", "class_name": "theory"} | edges().target
    text = " ".join(read(write(edges(target=asked), tmp_path / "it.html")).texts)
    assert "Why does GCN say class theory of node 12?" in text
    assert "The logit of class theory is 1.4." in text


def test_all_stands_in_regions_that_are_told_apart(tmp_path):
    told = [edges(), edges(target=edges().target | {"fold": 2})]  # two questions of the same words
    page = read(write(told, tmp_path / "it.html"))
    labels = [section["aria-label"] for section in page.named("section") if "aria-label" in section]
    assert len(set(labels)) == len(labels) == 2
    assert [len(page.named(tag)) for tag in ("header", "main", "footer", "h1", "nav")] == [1, 1, 1, 1, 1]


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
    assert [script.get("type") for script in page.named("script")] == ["application/json", None]
    assert all(not any(name.startswith("on") for name in attributes) for _, attributes in page.tags)
    assert all("src" not in attributes or attributes["src"].startswith("data:") for _, attributes in page.tags)
    assert EVIL in page.texts  # told as it is, not evaluated


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_of_players_has_a_page(tmp_path, kind):
    page = read(write(EVERY[kind](), tmp_path / "it.html"))
    assert page.open == []
    drawn = [figure for figure in page.named("figure") if "scene" in figure.get("class", "")]
    assert len(drawn) == (kind != "features")


def test_helpful_and_harmful_pictures_are_shown_beside_the_nearest(tmp_path):
    images = torch.rand(5, 1, 4, 4)
    players = Players("train", torch.arange(5), geometry={"images": images})
    asked = {"labels": torch.zeros(4, 4, dtype=torch.int64), "image": images[3] + 0.01}
    patch = Explanation(torch.ones(1), Players("patches", torch.arange(1), geometry=asked), 1.0, method="Lime")
    why = Explanation(torch.tensor([1.0, -1.0, 2.0, 0.5, -3.0]), players, 1.0, method="Influence")
    page = read(write([patch, why], tmp_path / "it.html"))
    pictures = [image["alt"].split(",")[0] for image in page.named("img")][1:]
    assert pictures[:3] == ["helpful: train 2", "helpful: train 0", "helpful: train 3"]
    assert pictures[3:5] == ["harmful: train 4", "harmful: train 1"]
    assert pictures[5] == "nearest in pixels: train 3"


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
