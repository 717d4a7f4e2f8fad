"""The gallery: one page that needs nothing else, whole after every panel, with the very lines that made each."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from graph_cases import doubled, random_graph
from typer import Typer
from typer.testing import CliRunner

import explain
from models import gallery, gcn
from models.datasets import karate_club
from models.panels.by_hand import agreement, on_node, shapley, without_features
from models.panels.panel import Finding, Panel, panel


@panel("Bars <&>", "Nobody, 2000", conclude="Who did <more>.", beware="Why & when.")
def bars():
    """Two bars."""
    scores, players = torch.tensor([0.5, -2.0]), explain.Players("nodes", torch.tensor([4, 7]))
    why = explain.Explanation(scores, players, value=1.0, base=2.5, method="Shapley", checks={"efficiency_gap": 0.0})
    return Finding.of(why, "Who did <it>?", "logit of class 1", by_hand="nothing & nobody")


@panel("Lines", "Nobody, 2001", conclude="Nothing.", beware="Anything.")
def broken():
    """Fails."""
    raise ValueError("no line")


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(gallery, "families", lambda: {"Shapes & sizes": [bars], "Nobody's": [], "Lines <1>": [broken]})
    app = Typer()
    app.command()(gallery.main)
    return app


def test_the_page_tells_all_and_escapes_it(app, tmp_path):
    out = tmp_path / "new" / "index.html"
    result = CliRunner().invoke(app, ["--out", str(out), "--only", "bars <&>"], catch_exceptions=False)
    assert result.exit_code == 0
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "<script" not in page
    assert "<it>" not in page
    told = unescape(page)
    for said in (
        "Who did <it>?",
        "1, with every player absent 2.5",
        "node 7",
        "−2",
        "nothing & nobody",
        "efficiency gap",
        "Who did <more>.",
        "Why & when.",
    ):
        assert said in told
    assert re.findall(r'<a href="#(\w+)">(.*)</a>', page) == [("f1", "Shapes &amp; sizes")]
    assert bars.code in told
    assert bars.code.startswith("def bars():")
    alts = re.findall(r'<img alt="([^"]*)"', page)
    assert len(set(alts)) == len(alts) == 1
    assert not plt.get_fignums()


def test_what_was_had_before_a_failure_is_a_whole_page(app, tmp_path):
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "index.html")])
    assert isinstance(result.exception, ValueError)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_panel_that_is_not_there_is_answered_with_those_that_are(app, tmp_path):
    result = CliRunner().invoke(app, ["--only", "Circles", "--out", str(tmp_path / "index.html")])
    assert result.exit_code == 2
    assert "Lines" in result.output
    assert not list(tmp_path.iterdir())


def test_panels_have_names_of_their_own_and_show_their_lines():
    everyone = [one for own in gallery.families().values() for one in own]
    assert len({one.name.lower() for one in everyone}) == len(everyone)
    for one in everyone:
        assert isinstance(one, Panel)
        assert one.paper
        assert one.conclude.endswith(".")
        assert one.beware.endswith(".")
        assert one.code.startswith("def ")


def test_every_file_of_panels_is_on_the_page():
    files = {
        path.stem for path in Path(gallery.__file__).with_name("panels").glob("*.py") if "@panel(" in path.read_text()
    }
    assert {subject for subjects in gallery.FAMILIES.values() for subject in subjects} == files


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_proof_by_hand_holds_and_can_fail(kind):
    torch.manual_seed(0)
    data, net = doubled(random_graph(nodes=6, edges=8)), gcn.GCN(5, 3).double().eval()
    target = explain.wrap(net, data).node(1, label=2)
    why = explain.Shapley(kind).explain(target)
    worth = on_node(net, data, 1, why)
    assert "by hand" in agreement(target, why, worth)
    with pytest.raises(RuntimeError, match="off by"):
        agreement(target, why, lambda coalition: worth(coalition) + float(coalition[0]))


def test_shapleys_formula_shares_a_product():
    table = torch.zeros(8, dtype=torch.float64)
    table[7] = 3.0  # all three or nothing
    assert shapley(table).tolist() == pytest.approx([1, 1, 1])


def test_a_path_whose_end_is_another_is_no_proof():
    torch.manual_seed(0)
    net, data = gcn.GCN(34, 4, hidden=4).eval(), karate_club()
    why = explain.Gradient("features", method="integrated_gradients", steps=8).explain(explain.wrap(net, data).node(3))
    assert without_features(net, data, 3, why).startswith("with and without the features")
    with pytest.raises(RuntimeError, match="both ends of the path is off by 1"):
        without_features(net, data, 3, replace(why, base=why.base + 1))
