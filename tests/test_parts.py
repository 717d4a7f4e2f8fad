"""One rule for tuples, dictionaries and objects: a proof of which part is meant, or a question."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from explain.parts import Part

OUT, HIDDEN, LOSS = torch.zeros(5, 3), torch.zeros(5, 8), torch.tensor(0.7)


class Slotted:
    __slots__ = ("attentions", "logits")

    def __init__(self):
        self.logits, self.attentions = OUT, torch.zeros(2, 4, 5, 5)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (OUT, None),
        ((OUT,), None),
        ([OUT, "note"], "part 0 of 2: the only part with a row of numbers for each"),
        ((LOSS, OUT), "part 1 of 2: the only part with a row of numbers for each"),
        ((HIDDEN, OUT), "part 1 of 2: the only part with 3 columns, as there are classes"),
        ((OUT, (HIDDEN, HIDDEN)), "part 0 of 2: the only part with a row of numbers for each"),
        (((HIDDEN, OUT), LOSS), "part 1 of 2: the only part with 3 columns, as there are classes"),
        ({"loss": LOSS, "output": {"logits": OUT, "hidden": OUT}}, "'logits' of logits, hidden"),
        ({"logits": OUT, "hidden": OUT}, "'logits' of logits, hidden"),
        ({"scores": OUT, "loss": LOSS}, "part 'scores' of 2: the only part with a row of numbers for each"),
        ({"anything": OUT}, None),
        (SimpleNamespace(loss=LOSS, logits=OUT), "'logits' of loss, logits"),
        (Slotted(), "'logits' of attentions, logits"),
        (
            namedtuple("Answer", "loss score")(LOSS, OUT),
            "part 'score' of 2: the only part with a row of numbers for each",
        ),
    ],
)
def test_what_is_found_and_said(answer, said):
    part = Part(classes=3)
    assert part.rows(answer, 5).data_ptr() == OUT.data_ptr()
    assert part.assumed == said


@pytest.mark.parametrize("answer", [(OUT, OUT.exp()), {"a": OUT, "b": HIDDEN}, (HIDDEN, OUT)])
def test_several_that_would_do_are_asked_about(answer):
    with pytest.raises(ValueError, match=r"several parts that may be the outputs .*output=1.*output=lambda"):
        Part().rows(answer, 5)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (lambda found: found[:, :3], HIDDEN),
        (1, (HIDDEN, OUT)),
        (-1, [HIDDEN, OUT]),
        ("b", {"a": HIDDEN, "b": OUT}),
        (lambda found: found[0][0], ((OUT,), 1)),
    ],
)
def test_what_is_given_is_taken(given, answer):
    part = Part(given)
    assert part.rows(answer, 5).shape == OUT.shape
    assert part.assumed is None


def test_the_choice_of_the_first_answer_stands():
    part = Part(classes=3)
    part.rows((HIDDEN, OUT), 5)
    assert part.rows((torch.zeros(2, 3), torch.zeros(2, 8)), 2).shape == (2, 8)  # the second, whatever it looks like


@pytest.mark.parametrize(
    ("given", "answer", "error", "message"),
    [
        (None, (LOSS, "text"), TypeError, r"got tuple of 0: \[\], 1: str"),
        (None, [], TypeError, "got list: say which"),
        (None, OUT.long(), TypeError, "got torch.int64"),
        (2, (HIDDEN, OUT), TypeError, "no part 2; it returned 0, 1"),
        ("c", {"a": OUT}, TypeError, "no part 'c'; it returned 'a'"),
        (1, OUT, TypeError, r"one tensor \[5, 3\], which has no part 1: label= says which column"),
    ],
)
def test_what_has_no_such_part(given, answer, error, message):
    with pytest.raises(error, match=message):
        Part(given).rows(answer, 5)


@pytest.mark.parametrize("given", [True, 1.5, [0]])
def test_other_choices_are_refused(given):
    with pytest.raises(TypeError, match="output must be a position, a key or a function"):
        Part(given)
