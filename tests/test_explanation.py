"""An explanation says what it is in one line, and other libraries accept it."""

import copy
import pickle
import typing

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
import torch
import torch_geometric
from explanations import CONTEXT, EVERY, edges, empty, features, nodes, patches, train, undirected_edges
from torch_geometric.data import Data

import explain
from explain import plot, storage
from explain.conversion import to_pandas
from explain.credit import Credit
from explain.explanation import Explanation
from explain.summary import line, own_check
from explain.types import NonFinite, Players


def test_top_is_by_absolute_score_and_ties_keep_their_order():
    assert edges().top(2) == [("12→13", -2.0), ("11→12", 1.5)]
    assert [name for name, _ in edges([1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).top(3)] == ["10→11", "11→10", "11→12"]
    assert empty().top() == []


def test_scores_are_one_a_player_and_finite():
    players = Players("features", torch.arange(2))
    with pytest.raises(ValueError, match=r"scores must be \[2\]"):
        Explanation(torch.zeros(3), players, value=0.0)
    for made in ({"scores": torch.tensor([0.0, torch.nan])}, {"value": float("inf")}, {"base": float("nan")}):
        with pytest.raises(NonFinite):
            Explanation(**({"scores": torch.zeros(2), "players": players, "value": 0.0} | made))
    with pytest.raises(ValueError, match="standard errors, 0 or more, got -1"):
        Explanation(torch.zeros(2), players, value=0.0, error=torch.tensor([0.0, -1.0]))


def test_text_that_no_file_or_picture_can_hold_is_refused_where_it_is_given():
    index, cut = torch.arange(2), "caf\ud83d"  # an emoji of which the second half is missing
    with pytest.raises(ValueError, match=r"names must be Unicode text, got '\\ud83d' in 'acaf.*half a character; put"):
        Players("features", index, names=("a", cut))
    with pytest.raises(TypeError, match="names must be text, got 2 of type int"):
        Players("features", index, names=("a", 2))
    for made in ({"method": cut}, {"target": {"prompt": cut}}, {"parts": {cut: index}}, {"settings": {cut: 1}}):
        with pytest.raises(ValueError, match="half a character"):
            Explanation(torch.zeros(2), Players("features", index), value=0.0, **made)


@pytest.mark.parametrize("kind", EVERY)
def test_it_says_what_it_is_in_one_line(kind):
    explanation = EVERY[kind]()
    said = repr(explanation)
    kind = {"train": "training examples"}.get(explanation.players.kind, explanation.players.kind)
    assert said.startswith(f"{explanation.method}: {len(explanation.players)} {kind}")
    assert "\n" not in said
    assert all(name in said for name, _ in explanation.top(3))


def test_html_is_a_small_escaped_table():
    players = Players("tokens", torch.arange(30), names=("<script>alert(1)</script>", *"&" * 29))
    said = Explanation(torch.arange(30.0).flip(0), players, value=1.0, method="<b>", checks={"r2": 0.5})._repr_html_()
    assert "<script" not in said
    assert "&lt;script&gt;" in said
    assert "&lt;b&gt;" in said
    assert said.count("<tr>") == 12  # the head, ten players, and how many more
    assert "20 more" in said


def test_what_was_assumed_is_said_wherever_the_answer_is_shown():
    told = {"loss": "mse", "assumed": {"loss": "squared error: <labels> are fractions", "time": "steps"}}
    why = Explanation(torch.ones(2), Players("nodes", torch.arange(2)), value=1.0, method="Occlusion", target=told)
    first, *more = str(why).splitlines()
    assert first == repr(why)
    assert more == ["  assumed loss: squared error: <labels> are fractions", "  assumed time: steps"]
    assert "assumed loss: squared error: &lt;labels&gt; are fractions" in why._repr_html_()
    given = Explanation(why.scores, why.players, value=1.0, target={"loss": "huber"})
    assert str(given).splitlines()[1:] == ["  loss: huber"]
    assert "<br>loss: huber" in given._repr_html_()


def test_pandas_has_a_row_a_player():
    table = edges().to_pandas()
    assert list(table.columns) == ["score", "error", "rank", "id", "source", "target"]
    assert table.loc["12→13"].to_dict() == {
        "score": -2.0, "error": 0.125, "rank": 1, "id": 104, "source": 12, "target": 13,
    }  # fmt: skip
    assert sorted(table["rank"]) == list(range(1, 8))
    assert nodes().to_pandas()["error"].isna().all()
    assert len(empty().to_pandas()) == 0
    products = Players("relations", torch.tensor([[0, 1], [2, 3]]))
    assert list(Explanation(torch.zeros(2), products, value=0.0).to_pandas()["id_1"]) == [1, 3]


def test_networkx_has_scores_on_edges():
    graph = edges().to_networkx()
    assert set(graph.nodes) == {10, 11, 12, 13}
    assert [node for node, focus in graph.nodes(data="focus") if focus] == [12]
    assert {(a, b): s for a, b, s in graph.edges(data="score")} == dict(
        zip(map(tuple, CONTEXT.t().tolist()), edges().scores.tolist(), strict=True)
    )
    assert nx.number_weakly_connected_components(graph) == 1
    nx.draw(graph, ax=plt.figure().add_subplot())


def test_networkx_has_scores_on_nodes():
    graph = nodes().to_networkx()
    assert dict(graph.nodes(data="score")) == {10: 1.0, 11: -2.0, 13: 0.5, 12: None}
    assert graph.number_of_edges() == CONTEXT.size(1)
    assert dict(train().to_networkx().nodes(data="score"))[11] == pytest.approx(-0.2)


def test_an_undirected_player_scores_both_directions_and_parallel_edges_stay_apart():
    graph = undirected_edges().to_networkx()
    assert graph[11][12][0]["score"] == graph[12][11][0]["score"] == -2.0
    assert "score" not in graph[10][12][0]
    ends = torch.tensor([[0, 0], [1, 1]])
    players = Players("edges", torch.arange(2), geometry={"edge_index": ends, "ends": ends})
    graph = Explanation(torch.tensor([1.0, 2.0]), players, value=0.0).to_networkx()
    assert [data["score"] for data in graph[0][1].values()] == [1.0, 2.0]


def test_edges_outside_the_drawn_context_are_shown_all_the_same():
    players = Players("edges", torch.arange(1), geometry={"edge_index": CONTEXT, "ends": torch.tensor([[13], [99]])})
    graph = Explanation(torch.ones(1), players, value=0.0).to_networkx()
    assert graph[13][99][0]["score"] == 1.0


def test_pyg_validates_and_keeps_global_ids():
    found = edges().to_pyg()
    assert found.validate(raise_on_error=True)
    assert torch.equal(found.node_id[found.edge_index], CONTEXT)
    assert torch.equal(found.edge_mask, edges().scores.float())
    assert found.node_id[found.index].tolist() == [12]
    found = nodes().to_pyg()
    assert found.validate(raise_on_error=True)
    assert dict(zip(found.node_id.tolist(), found.node_mask[:, 0].tolist(), strict=True))[11] == -2.0
    assert set(found.available_explanations) == {"node_mask"}
    assert undirected_edges().to_pyg().edge_mask.tolist() == [1.0, 1.0, -2.0, -2.0, 0.5, 0.5, 0.0]
    kept = edges().to_pyg().get_explanation_subgraph()
    assert kept.edge_index.size(1) == int((edges().scores > 0).sum())


def test_pyg_takes_features_and_the_empty_answer():
    found = features().to_pyg()
    assert found.validate(raise_on_error=True)
    assert found.node_mask.tolist() == [[1.0, 0.0, 0.0, -2.0, 0.0, 0.5]]
    found = empty().to_pyg()
    assert found.validate(raise_on_error=True)
    assert found.node_id.tolist() == [3]


def test_what_has_no_graph_says_where_to_go():
    for convert in (patches().to_networkx, patches().to_pyg, features().to_networkx, train(graph=False).to_pyg):
        with pytest.raises(ValueError, match="to_pandas"):
            convert()


@pytest.mark.parametrize("make", [edges, nodes, features])
def test_shap_draws_it(make):
    import shap

    explanation = make()
    found = explanation.to_shap()
    base = float("nan") if explanation.base is None else explanation.base
    assert found.base_values == pytest.approx(base, nan_ok=True)
    assert list(found.feature_names) == list(explanation.players.names)
    assert np.array_equal(found.values, explanation.scores.numpy())
    for draw in (shap.plots.bar, shap.plots.waterfall):
        plt.figure()
        ax = draw(found, show=False)
        labels = " ".join(label.get_text() for label in ax.get_yticklabels())
        assert explanation.top(1)[0][0] in labels


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ({"efficiency_gap": 2e-16, "largest_error": None, "r2": 0.5}, "efficiency gap 2.0e-16"),
        ({"efficiency_gap": 2e-16, "largest_error": 0.08}, "efficiency gap 2.0e-16, s.e. ≤ 0.08"),
        ({"r2": 0.981}, "R² 0.981"),
        ({"completeness_gap": 0.001}, "completeness gap 1.0e-03"),
        ({"run_to_run": 0.5, "fidelity_top_k": None}, "runs agree 0.50"),
        ({"change_under_uniform": -0.25}, "uniform attention -0.25"),
        ({"residual": 0.002, "damping": 0.1}, "residual 2.0e-03, damping 0.1"),
        ({"r2": None}, ""),
        ({"residual": True}, ""),
        ({}, ""),
    ],
)
def test_the_own_check_is_the_methods_proof(checks, said):
    explanation = edges(checks=checks)
    assert own_check(explanation) == said
    assert repr(explanation).endswith(said)


def test_what_stands_behind_a_door_needs_no_more_than_the_data(tmp_path):
    bare = Credit(**vars(edges()))
    assert line(bare) == repr(edges())
    assert to_pandas(bare).equals(edges().to_pandas())
    assert len(plot.picture(bare).patches) == len(edges().plot().patches)
    storage.save(bare, tmp_path / "bare")
    assert type(storage.load(tmp_path / "bare", Credit)) is Credit
    assert type(Explanation.load(tmp_path / "bare")) is Explanation
    plt.close("all")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda why: pickle.loads(pickle.dumps(why))])
def test_a_copy_has_the_same_doors(again):
    why = edges()
    assert type(again(why)) is Explanation
    assert again(why).to_pandas().equals(why.to_pandas())
    assert Explanation.__module__ == "explain.explanation"


def test_the_types_of_its_fields_can_be_asked_for():
    assert typing.get_type_hints(Explanation.__init__)["error"] == torch.Tensor | None


def test_a_players_score_goes_by_its_name():
    why = edges()
    assert len(why) == len(why.players)
    assert [why[name] for name in why] == why.scores.tolist()
    for called in ("11→12", "11->12", "edge 11→12", "Edge 11 -> 12"):
        assert why[called] == 1.5
    assert why["10→12"] != why["10→11"]
    with pytest.raises(KeyError, match="did you mean '11→12'") as error:
        why["edge 11-124"]
    assert str(error.value).startswith("no player is called 'edge 11-124' among 7 edges")
    with pytest.raises(TypeError, match=r"scores are why\.scores"):
        why[0]
    twice = Explanation(torch.ones(2), Players("words", torch.arange(2), ("a", "a")), 1.0)
    with pytest.raises(KeyError, match=r"2 players are called 'a', at \[0, 1\]"):
        twice["a"]


def test_named_players_go_by_name_and_by_number():
    torch.manual_seed(0)  # of some initial weights no edge matters
    net, graph = torch_geometric.nn.GCN(2, 2, 2), Data(torch.eye(3)[:, :2], torch.tensor([[0, 1, 2, 1], [1, 0, 1, 2]]))
    target = explain.wrap(net, graph, node_names=["Ann", "Bo", "2"]).node(1)
    why = explain.Shapley("edges").explain(target)
    assert why["Ann→Bo"] == why["edge ann -> bo"] == why["edge 0->1"] != why["1->0"]
    assert why["2→Bo"] == why["2->1"]
    pairs = explain.Occlusion(target.players("edges", undirected=True)).explain(target)
    assert pairs["Bo-Ann"] == pairs["Ann–Bo"] == pairs["edge 1-0"] == pairs["0-1"]
    nodes = explain.Occlusion("nodes").explain(target)
    assert nodes["node Ann"] == nodes["node 0"] == nodes["Ann"]


def test_where_both_directions_play_an_edge_without_an_arrow_head_is_asked_for():
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 2]])
    own = ("Ann→Bo", "Bo→Ann", "Bo→Cy", "Cy→Cy")
    why = Explanation(torch.arange(4.0), Players("edges", torch.arange(4), own, geometry={"ends": ends}), 0.0)
    there, back = own[:2], own[1::-1]
    for asked, either in (("Ann-Bo", there), ("edge bo – ann", back), ("0-1", there), ("edge 1-0", back)):
        with pytest.raises(KeyError) as error:
            why[asked]
        said = f"{asked!r} does not say which of 2: why[{either[0]!r}] or why[{either[1]!r}]"
        assert str(error.value) == said
    assert [why[asked] for asked in ("Ann->Bo", "1→0", "Bo-Cy", "1-2", "Cy-Cy", "2-2")] == [0, 1, 2, 2, 3, 3]
    who = Players("edges", torch.arange(2), ("co-author", "cites"), geometry={"ends": ends[:, :2]})
    named = Explanation(torch.arange(2.0), who, 0.0)
    assert (named["co-author"], named["edge co-author"], named["cites"], named["0->1"]) == (0, 0, 1, 0)
    with pytest.raises(KeyError, match=r"why\['co-author'\] or why\['cites'\]"):
        named["0-1"]


@pytest.mark.parametrize("kind", EVERY)
def test_a_notebook_shows_picture_doubts_and_table(kind):
    open_before = plt.get_fignums()
    shown = EVERY[kind]()._repr_html_()
    assert shown.index('<img alt="') < shown.index("<table>")
    assert plt.get_fignums() == open_before


def test_what_cannot_be_drawn_is_shown_as_a_table(monkeypatch):
    def no_ink(*_):
        raise RuntimeError("no <ink>")

    monkeypatch.setattr(plot, "picture", no_ink)
    shown = edges()._repr_html_()
    assert "<img" not in shown
    assert "no picture: no &lt;ink&gt;" in shown
    assert "<table>" in shown
    assert not plt.get_fignums()
