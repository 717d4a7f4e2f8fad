"""What was warned of while an answer was made is kept in it: in the file, the words and the page."""

import json
import warnings

import pytest
import safetensors.torch
import torch
from torch import nn

import explain
from explain import Explanation, Lime, Shapley
from explain.doubts import doubt, kept
from explain.report import write
from explain.storage import _digest, _header


def target(outputs=2):
    torch.manual_seed(0)
    return explain.wrap(nn.Linear(6, outputs).eval(), task="classification").example(
        torch.randn(6), 0, baseline="zeros"
    )


def doubtful():
    with pytest.warns(UserWarning, match="raise samples") as shown:
        why = Lime("features", samples=4, seed=0).explain(target())
    return why, shown


def test_an_answer_keeps_what_was_warned_of():
    why, shown = doubtful()
    assert why.doubts == (str(shown[0].message),)
    assert shown[0].filename == __file__  # the user's own line
    assert f"\n  doubt: {why.doubts[0]}" in str(why)
    assert f"<mark>{why.doubts[0]}</mark>" in why._repr_html_()
    assert Shapley("features", seed=0).explain(target()).doubts == ()


def test_doubts_are_kept_where_warnings_are_not_shown():
    with warnings.catch_warnings(action="ignore"):
        assert len(Lime("features", samples=4, seed=0).explain(target()).doubts) == 1


def test_an_answer_within_an_answer_has_its_own_and_the_outer_has_both():
    with warnings.catch_warnings(action="ignore"), kept() as outer:
        doubt("first")
        with kept() as inner:
            doubt("second")
            doubt("second")
        doubt("first")
    assert (outer, inner) == (["first", "second"], ["second"])


def test_an_exception_leaves_no_list_open():
    with pytest.raises(ZeroDivisionError), kept():
        raise ZeroDivisionError
    with warnings.catch_warnings(action="ignore"), kept() as said:
        doubt("later")
    assert said == ["later"]


def test_a_file_holds_them_and_older_files_hold_none(tmp_path):
    why, _ = doubtful()
    path = tmp_path / "why.safetensors"
    why.save(path)
    assert Explanation.load(path).doubts == why.doubts
    header, tensors = _header(path.read_bytes()), safetensors.torch.load(path.read_bytes())
    record = json.loads(header["explanation"])
    del record["doubts"]
    text = json.dumps(record)
    header |= {"version": "1", "explanation": text, "sha256": _digest(text, tensors)}
    path.write_bytes(safetensors.torch.save(tensors, metadata=header))
    assert Explanation.load(path).doubts == ()


@pytest.mark.parametrize("doubts", ["one sentence", [1]], ids=["text", "number"])
def test_doubts_are_sentences(doubts):
    with pytest.raises(TypeError, match="doubts must be sentences"):
        Explanation(torch.zeros(1), explain.types.Players("edges", torch.tensor([0])), 0.0, doubts=doubts)


def test_the_page_shows_them_escaped(tmp_path):
    players = explain.types.Players("edges", torch.tensor([0]))
    why = Explanation(torch.ones(1), players, 1.0, method="Mine", doubts=["<script>alert(1)</script>"])
    write([why], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<ul class="doubts"><li>&lt;script&gt;' in page
    assert "<script>alert" not in page
