"""A file gives back exactly what was saved, or says clearly what is wrong with it; nothing half-written stays."""

import errno
import json
import os
import pickle
import random

import pytest
import safetensors.torch
import torch
from explanations import EVERY, assert_same, edges
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from explain.explanation import Explanation
from explain.storage import CorruptExplanation, NewerExplanation, write_atomically
from explain.types import Players

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(text, plain, max_size=4)
tensor_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
tensors = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16]).flatmap(
    lambda dtype: st.lists(st.integers(0, 3), max_size=3).map(lambda shape: torch.randint(0, 9, shape).to(dtype))
)
mappings = st.dictionaries(tensor_names, tensors, max_size=3)


@st.composite
def explanations(draw):
    size = draw(st.integers(0, 5))
    numbers = st.lists(finite, min_size=size, max_size=size).map(lambda v: torch.tensor(v, dtype=torch.float64))
    width = draw(st.sampled_from([(), (1,), (3,)]))
    groups = st.lists(st.integers(0, 4), min_size=size, max_size=size).map(lambda n: tuple(map(torch.arange, n)))
    players = Players(
        draw(text),
        torch.randint(-(2**40), 2**40, (size, *width)),
        names=tuple(draw(st.lists(text, min_size=size, max_size=size))),
        groups=draw(st.none() | groups),
        geometry=draw(mappings),
    )
    return Explanation(
        draw(numbers),
        players,
        value=draw(finite),
        base=draw(st.none() | finite),
        error=draw(st.none() | numbers.map(torch.abs)),
        parts=draw(mappings),
        checks=draw(records),
        method=draw(text),
        settings=draw(records),
        target=draw(records),
        seed=draw(st.none() | st.integers(0, 2**64)),
        versions=draw(st.dictionaries(text, text, max_size=2)),
        seconds=draw(st.floats(0, 1e9)),
        calls=draw(st.integers(0, 2**40)),
    )


@given(explanations())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_round_trip_is_exact(tmp_path, explanation):
    explanation.save(tmp_path / "it.safetensors")
    assert_same(Explanation.load(tmp_path / "it.safetensors"), explanation)


@pytest.mark.parametrize("kind", EVERY)
def test_every_kind_of_players_comes_back(tmp_path, kind):
    explanation = EVERY[kind]()
    explanation.save(str(tmp_path / "it.safetensors"))
    assert_same(Explanation.load(str(tmp_path / "it.safetensors")), explanation)
    assert [entry.name for entry in tmp_path.iterdir()] == ["it.safetensors"]


def test_values_that_json_knows_no_name_for_come_back_as_plain_ones(tmp_path):
    explanation = edges(checks={"pair": (1, 2), "number": torch.tensor(0.5), "gap": float("inf"), 3: True})
    assert explanation.checks == {"pair": [1, 2], "number": 0.5, "gap": float("inf"), "3": True}
    explanation.save(tmp_path / "it")
    assert_same(Explanation.load(tmp_path / "it"), explanation)


def test_tensors_that_share_memory_or_run_backwards_are_saved_whole(tmp_path):
    whole = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    edges(parts={"all": whole, "turned": whole.t(), "row": whole[1]}).save(tmp_path / "it")
    parts = Explanation.load(tmp_path / "it").parts
    assert torch.equal(parts["turned"], whole.t())
    assert torch.equal(parts["row"], whole[1])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "it.safetensors"
    edges().save(path)
    return path


def test_a_truncated_file_is_corrupt_wherever_it_is_cut(saved):
    data = saved.read_bytes()
    for length in {*range(0, len(data), 7), 7, 8, 9, len(data) - 1}:
        saved.write_bytes(data[:length])
        with pytest.raises(CorruptExplanation, match=r"it\.safetensors"):
            Explanation.load(saved)


def test_a_flipped_bit_never_passes_for_an_answer(saved):
    data, draw = saved.read_bytes(), random.Random(0)
    for _ in range(800):
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        saved.write_bytes(data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :])
        with pytest.raises((CorruptExplanation, NewerExplanation)):
            Explanation.load(saved)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 200, os.urandom(300), b"PK\x03\x04" + b"\0" * 60])
def test_files_of_another_kind_are_corrupt(tmp_path, data):
    (tmp_path / "it").write_bytes(data)
    with pytest.raises(CorruptExplanation):
        Explanation.load(tmp_path / "it")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_is_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / "it").write_bytes(pickle.dumps(Trap()))
    torch.save({"scores": torch.zeros(2)}, tmp_path / "zip")
    for name in ("it", "zip"):
        with pytest.raises(CorruptExplanation):
            Explanation.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_other_safetensors_are_not_explanations(tmp_path):
    safetensors.torch.save_file({"scores": torch.zeros(2)}, tmp_path / "bare")
    safetensors.torch.save_file({"scores": torch.zeros(2)}, tmp_path / "other", metadata={"format": "pt"})
    with pytest.raises(CorruptExplanation):
        Explanation.load(tmp_path / "bare")
    with pytest.raises(CorruptExplanation, match="not an explanation"):
        Explanation.load(tmp_path / "other")


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "nothing")


def rewrite(path, change):
    """Forge a file whose checksum fits its content."""
    from explain.storage import _digest, _header

    data = path.read_bytes()
    header, tensors = _header(data), safetensors.torch.load(data)
    record = json.loads(header["explanation"])
    change(header, record, tensors)
    if isinstance(header.get("explanation"), str) and header["explanation"] == _header(data)["explanation"]:
        header["explanation"] = json.dumps(record)
    header["sha256"] = _digest(header["explanation"], tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata=header))


def test_a_forger_who_changes_nothing_is_believed(saved):
    rewrite(saved, lambda header, record, tensors: None)
    assert_same(Explanation.load(saved), Explanation.load(saved))


def test_a_newer_version_says_so(saved):
    rewrite(saved, lambda header, record, tensors: header.update(version="3", more="new"))
    with pytest.raises(NewerExplanation, match="upgrade"):
        Explanation.load(saved)


@pytest.mark.parametrize("version", ["0", "", "-1", "one", "1.0", "²", "9" * 5000])
def test_a_version_that_never_was_is_corrupt(saved, version):
    rewrite(saved, lambda header, record, tensors: header.update(version=version))
    with pytest.raises(CorruptExplanation):
        Explanation.load(saved)


FORGERIES = {
    "no scores": lambda h, r, t: t.pop("scores"),
    "no index": lambda h, r, t: t.pop("index"),
    "scores too long": lambda h, r, t: t.update(scores=torch.zeros(9, dtype=torch.float64)),
    "scores as integers": lambda h, r, t: t.update(scores=torch.zeros(7, dtype=torch.int64)),
    "scores not finite": lambda h, r, t: t.update(scores=torch.full((7,), torch.nan, dtype=torch.float64)),
    "error too short": lambda h, r, t: t.update(error=torch.zeros(1, dtype=torch.float64)),
    "index as floats": lambda h, r, t: t.update(index=torch.zeros(7)),
    "index a number": lambda h, r, t: t.update(index=torch.tensor(7)),
    "index a cube": lambda h, r, t: t.update(index=torch.zeros(7, 1, 1, dtype=torch.int64)),
    "no names": lambda h, r, t: r.pop("names"),
    "empty names": lambda h, r, t: r.update(names=[""]),
    "names not text": lambda h, r, t: r.update(names=[1] * 7),
    "more keys": lambda h, r, t: r.update(run="me"),
    "value as text": lambda h, r, t: r.update(value="1"),
    "value missing": lambda h, r, t: r.update(value=None),
    "value not finite": lambda h, r, t: r.update(value=float("nan")),
    "error negative": lambda h, r, t: t.update(error=torch.full((7,), -1e-9, dtype=torch.float64)),
    "a part not finite": lambda h, r, t: t.update({"parts/map": torch.tensor([1.0, torch.nan])}),
    "seconds negative": lambda h, r, t: r.update(seconds=-1.0),
    "calls negative": lambda h, r, t: r.update(calls=-1),
    "half a character in a name": lambda h, r, t: r.update(names=["\ud800"] * 7),
    "half a character in a setting": lambda h, r, t: r.update(settings={"solver": "\udfff"}),
    "seed as bool": lambda h, r, t: r.update(seed=True),
    "checks as a list": lambda h, r, t: r.update(checks=[]),
    "groups missing": lambda h, r, t: r.update(group_sizes=[1] * 7),
    "groups negative": lambda h, r, t: (r.update(group_sizes=[-1] * 7), t.update(groups=torch.zeros(7))),
    "groups that do not add up": lambda h, r, t: (r.update(group_sizes=[1] * 7), t.update(groups=torch.zeros(9))),
    "JSON cut": lambda h, r, t: h.update(explanation=h["explanation"][:-1]),
    "JSON of another kind": lambda h, r, t: h.update(explanation="[1]"),
    "JSON too deep": lambda h, r, t: h.update(explanation="[" * 100_000),
    "no JSON": lambda h, r, t: h.update(explanation=""),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_file_with_a_fitting_checksum_is_corrupt(saved, forgery):
    rewrite(saved, FORGERIES[forgery])
    with pytest.raises(CorruptExplanation, match=r"it\.safetensors"):
        Explanation.load(saved)


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["os.replace", "os.fsync", "safetensors.torch.save"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved, monkeypatch, step):
    before = saved.read_bytes()
    monkeypatch.setattr(step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        edges([0.0] * 7).save(saved)
    assert saved.read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "new", b"half")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("made", ["link", "dangling", "pipe", "folder"])
def test_only_files_are_replaced(tmp_path, made):
    place, file = tmp_path / "place", tmp_path / "file"
    file.write_bytes(b"the user's")
    if made == "pipe":
        os.mkfifo(place)
    elif made == "folder":
        place.mkdir()
    else:
        place.symlink_to(file if made == "link" else tmp_path / "nothing")
    before = place.lstat()
    with pytest.raises(OSError, match=r"a link to|pipe|a folder"):
        edges().save(place)
    assert os.path.samestat(place.lstat(), before)
    assert file.read_bytes() == b"the user's"
    assert {entry.name for entry in tmp_path.iterdir()} == {"place", "file"}


def test_a_missing_folder_and_what_a_file_cannot_hold_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder to save in: make it first: '.*/no/such'$"):
        edges().save(tmp_path / "no" / "such" / "it")
    with pytest.raises(TypeError, match=r"a path such as 'why\.safetensors', got int"):
        edges().save(3)  # the file descriptor of somebody
    with pytest.raises(ValueError, match="to_dense"):
        edges(parts={"sparse": torch.eye(3).to_sparse()}).save(tmp_path / "it")
    mixed = Players("edges", torch.arange(2), groups=(torch.arange(2), torch.ones(1)))
    with pytest.raises(ValueError, match="groups"):
        Explanation(torch.zeros(2), mixed, value=0.0).save(tmp_path / "it")
    with pytest.raises(TypeError, match=r"checks\['made'\]"):
        edges(checks={"made": object()})
    assert list(tmp_path.iterdir()) == []


def test_the_file_can_be_read_by_others_as_any_other_file(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~mask
