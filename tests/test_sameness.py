"""Two answers are the same to the bit, or what differs is told: each field of an answer counts, but its wall time."""

from dataclasses import fields, replace

import pytest
import torch
from explanations import EVERY, edges, undirected_edges

from explain import Explanation
from explain.types import Players


@pytest.mark.parametrize("kind", EVERY)
def test_what_was_saved_and_loaded_is_the_same_answer(kind, tmp_path):
    why = EVERY[kind]()
    why.save(tmp_path / "why.safetensors")
    again = Explanation.load(tmp_path / "why.safetensors")
    assert again.differences(why) == ()
    assert why.equals(again)
    assert why != again  # it is another object, and may be a key beside it


PARTS = {"attention": torch.zeros(2, 3), "kept": torch.tensor([True, False])}
CHANGES = {
    "scores": (torch.tensor([0.5, -0.1, 1.5, 0.0, -2.0, 0.25, 0.8]), "scores: up to 0.05 apart"),
    "value": (1.5, "value: 1.4 here, 1.5 there"),
    "base": (None, "base: 0.5 here, None there"),
    "error": (None, "error: of another form, or there only once"),
    "parts": ({**PARTS, "kept": torch.tensor([True, True])}, "parts kept: up to 1 apart"),
    "checks": ({"exact": True, "note": float("nan")}, "checks: note: 1 here, nan there"),
    "method": ("Lime", "method: 'Shapley' here, 'Lime' there"),
    "settings": ({"samples": 64}, "settings: players: 'edges' here, nothing there"),
    "target": ({"node": 11, "label": 1, "payoff": "logit", "removal": "delete"}, "target: node: 12 here, 11 there"),
    "seed": (None, f"seed: {2**40 + 1} here, None there"),
    "versions": ({"torch": "3"}, "versions: torch: '2' here, '3' there"),
    "calls": (129, "calls: 128 here, 129 there"),
    "doubts": (["a"], "doubts: () here, ('a',) there"),
}


def whole():
    return edges(parts=PARTS, checks={"exact": True, "note": 1})


@pytest.mark.parametrize("name", CHANGES)
def test_each_field_counts(name):
    value, said = CHANGES[name]
    why = whole()
    other = replace(why, **{name: value})
    assert why.differences(other) == (said,)
    assert not why.equals(other)
    assert other.equals(replace(other))  # also where a check is no number


def test_every_field_is_compared_but_the_wall_time():
    assert {*CHANGES, "players", "seconds"} == {field.name for field in fields(Explanation)}
    assert whole().equals(replace(whole(), seconds=9.0))


def test_players_are_the_same_by_kind_names_places_groups_and_geometry():
    why, who = undirected_edges(), undirected_edges().players

    def other(**changes):
        given = {"kind": who.kind, "index": who.index, "names": who.names, "groups": who.groups}
        return replace(why, players=Players(**given | {"geometry": who.geometry} | changes))

    assert why.equals(other())
    (first, second, third) = who.names
    said = {
        "players: 3 edges here, 3 nodes there": other(kind="nodes"),
        f"players: 3 edges here, 3 edges there, 1 of other names, the first {third!r} and 'x'": other(
            names=(first, second, "x")
        ),
        "players: 3 edges here, 3 edges there, of other places": other(index=torch.tensor([0, 2, 5])),
        "geometry focus: up to 1 apart": other(geometry={**who.geometry, "focus": torch.tensor([13])}),
    }
    for words, changed in said.items():
        assert why.differences(changed) == (words,)
    for groups in ((*who.groups[:2], torch.tensor([4])), None, (*who.groups[:2], who.groups[2].double())):
        assert why.differences(other(groups=groups)) == ("players: 3 edges here, 3 edges there, of other places",)


def test_only_answers_are_compared():
    with pytest.raises(TypeError, match="an answer is compared with another, got dict"):
        whole().equals({})
    assert whole().differences(replace(whole(), scores=-whole().scores, value=0.0)) == (
        "value: 1.4 here, 0.0 there",
        "scores: up to 4 apart",
    )
