"""A checkpoint comes back exactly, and is trained again when it is missing, damaged, or of another configuration."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from models import checkpoints, gat, gcn
from models.checkpoints import cache_folder, trained
from models.datasets import karate_club
from models.training import Recipe

RECIPE = Recipe(epochs=3, lr=0.01, weight_decay=5e-4)


@pytest.fixture(scope="module")
def club():
    return karate_club(labelled=3)


def make(club, folder, recipe=RECIPE, seed=0, kind=gcn.GCN, **options):
    return trained(kind, club, recipe, seed=seed, folder=folder, progress=False, **options)


def same(first, second) -> bool:
    ours, theirs = first.module.state_dict(), second.module.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", [gcn.GCN, gat.GAT])
def test_round_trip(club, tmp_path, kind):
    first, second = make(club, tmp_path, kind=kind), make(club, tmp_path, kind=kind)
    assert (first.cached, second.cached) == (False, True)
    assert same(first, second)
    assert first.facts == second.facts
    assert 0 <= second.facts["test_accuracy"] <= 1
    assert not second.module.training
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written beside it


def test_every_part_of_the_configuration_counts(club, tmp_path):
    make(club, tmp_path)
    other = club.clone()
    other.x = other.x * 2
    assert not make(club, tmp_path, seed=1).cached
    assert not make(club, tmp_path, recipe=replace(RECIPE, epochs=4)).cached
    assert not make(club, tmp_path, hidden=4).cached
    assert not make(other, tmp_path).cached
    assert make(club, tmp_path).cached


def test_fresh_trains_again(club, tmp_path):
    make(club, tmp_path)
    assert not make(club, tmp_path, fresh=True).cached


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "folder"])
def test_a_damaged_file_is_trained_again_and_replaced(club, tmp_path, damage):
    first = make(club, tmp_path)
    (path,) = tmp_path.iterdir()
    blob = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
        with pytest.warns(UserWarning, match="EXPLAIN_CACHE"):
            assert same(make(club, tmp_path), first)
        return
    if damage == "flipped":
        blob[-1] ^= 1
    path.write_bytes({"empty": b"", "cut": blob[:-5], "flipped": blob, "other": b'{"not": "safetensors"}'}[damage])
    again = make(club, tmp_path)
    assert not again.cached
    assert same(again, first)
    assert make(club, tmp_path).cached


def test_a_stale_file_is_trained_again(club, tmp_path):
    first = make(club, tmp_path)
    (path,) = tmp_path.iterdir()
    state = {name: torch.zeros_like(tensor) for name, tensor in first.module.state_dict().items()}
    checkpoints.write(path, state, {"model": "GCN"}, {})
    again = make(club, tmp_path)
    assert not again.cached
    assert same(again, first)


def test_the_cache_goes_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("EXPLAIN_CACHE", raising=False)
    assert cache_folder().parts[-3:] == (".cache", "explain", "models")
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder(tmp_path / "here") == tmp_path / "here"


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_pickle_is_refused(tmp_path, name):
    torch.save({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(ValueError, match=r"is a pickle.*save the weights as safetensors"):
        checkpoints.load(tmp_path / name)


def test_a_header_as_long_as_a_pickle_begins_is_no_pickle(tmp_path):
    path, begins = tmp_path / "weights.safetensors", set()
    for spaces in range(0, 256, 8):  # its length is a multiple of eight, and its lowest byte comes first
        checkpoints.write(path, {"w": torch.ones(1)}, {"note": " " * spaces}, {})
        begins.add(path.read_bytes()[:1])
        assert checkpoints.load(path)[0]["w"] == 1
    assert b"\x80" in begins


def test_another_safetensors_file_is_refused(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not a whole checkpoint of these models"):
        checkpoints.load(tmp_path / "other.safetensors")


def test_an_altered_file_is_refused(club, tmp_path):
    make(club, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in (len(whole) - 1, whole.index(b"epochs") + 12, whole.index(b"test_accuracy") + 19):
        blob = bytearray(whole)
        blob[place] ^= 1  # a weight, the configuration, a fact: a digit is another digit
        path.write_bytes(blob)
        with pytest.raises(ValueError, match="altered"):
            checkpoints.load(path)
