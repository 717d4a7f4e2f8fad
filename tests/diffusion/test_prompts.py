"""The words of a prompt: parted, left out, read as padding, and found among the encoders' tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoders import clip_tokenizer, t5_tokenizer

from explain.diffusion.pipelines.prompts import PaddingTokenizer, Words, padded, placed, tokens_of, words_of

PROMPT = "a red fox in deep snow"


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        (PROMPT, tuple(PROMPT.split())),
        ("a red-fox, in (deep) snow!", ("a", "red-fox,", "in", "(deep)", "snow!")),
        ("fox,snow|red", ("fox,", "snow|", "red")),
        ("  red  fox ", ("red", "fox")),
        ("red - fox", ("red -", "fox")),
        ("don't", ("don't",)),
        ("", ()),
        ("...", ("...",)),
    ],
)
@pytest.mark.parametrize("tokenizer", [None, "clip"])
def test_words(prompt, names, tokenizer):
    found = words_of(prompt, clip_tokenizer() if tokenizer else None).names
    if tokenizer is None:  # white space alone
        assert "".join("".join(found).split()) == "".join(prompt.split())
        return
    assert found == names


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_words_hold_all_of_a_text_but_its_white_space(text):
    words = words_of(text, clip_tokenizer())
    assert "".join("".join(words.names).split()) == "".join(text.split())
    assert words.without([True] * len(words.spans)) == text
    assert words.without([False] * len(words.spans)) == "" or not words.spans


def test_words_that_leave_keep_the_others_apart():
    words = words_of("a red fox, in snow", clip_tokenizer())
    for gone in range(5):
        present = [i != gone for i in range(5)]
        assert words.without(present).split() == [name for name, here in zip(words.names, present, strict=True) if here]
    assert Words("redfox", ((0, 3), (3, 6))).without([True, False]) == "red"
    assert Words("red-x-fox", ((0, 4), (4, 6), (6, 9))).without([True, False, True]) == "red- fox"


def test_phrases_go_together():
    assert words_of(PROMPT, clip_tokenizer(), ["red fox", "deep snow"]).names == ("a", "red fox", "in", "deep snow")
    with pytest.raises(ValueError, match="'wolf' does not occur in the prompt"):
        words_of(PROMPT, clip_tokenizer(), ["wolf"])
    with pytest.raises(ValueError, match="'red fo' parts a word"):
        words_of(PROMPT, clip_tokenizer(), ["red fo"])


@pytest.mark.parametrize(("make", "first"), [(clip_tokenizer, 1), (t5_tokenizer, 0)])
def test_tokens_are_those_that_the_encoder_was_given(make, first):
    tokenizer = make()
    words = words_of(PROMPT, tokenizer)
    ids = tokenizer(PROMPT, padding="max_length", max_length=16, truncation=True)["input_ids"]
    found = tokens_of(words, tokenizer, ids)
    for name, positions in zip(words.names, found, strict=True):
        assert tokenizer.decode([ids[i] for i in positions]).strip("▁ ") == name
    assert found[0] == [first]
    short = tokenizer(PROMPT, max_length=5, truncation=True)["input_ids"]
    assert [bool(at) for at in tokens_of(words, tokenizer, short)] == [True] * (4 - first) + [False] * (2 + first)


def test_absent_words_are_read_as_padding():
    tokenizer = t5_tokenizer()
    plain = tokenizer([PROMPT], padding="max_length", max_length=10, return_tensors="pt")
    padding = PaddingTokenizer(tokenizer)
    texts = [padded(PROMPT, ((2, 5),))]
    read = padding(texts, padding="max_length", max_length=10, return_tensors="pt")
    changed = (read["input_ids"] != plain["input_ids"]).nonzero().tolist()
    assert changed == [[0, 1]]
    assert int(read["input_ids"][0, 1]) == tokenizer.pad_token_id
    assert (plain["attention_mask"] - read["attention_mask"]).nonzero().tolist() == [[0, 1]]
    assert padding.model_max_length == tokenizer.model_max_length
    assert padding([PROMPT])["input_ids"] == tokenizer([PROMPT])["input_ids"]
    assert padding([PROMPT.upper(), padded(PROMPT, ((0, 1), (2, 5))).lower()])["input_ids"][1][:3] == [0, 0, 5]


@pytest.mark.parametrize("text", ["  A red fox", "a red\n fox", "draw:   a  red fox, please", "a red fox a red fox"])
def test_words_are_found_in_what_a_pipeline_makes_of_a_prompt(text):
    words = words_of("A red  fox")
    found = placed(words, text)
    assert [text[start:end].lower() for start, end in found] == ["a", "red", "fox"]
    ids = t5_tokenizer()(text)["input_ids"]
    positions = tokens_of(words, t5_tokenizer(), ids, ["blurry", text])
    assert [t5_tokenizer().decode([ids[i] for i in at]).strip("\u2581 ").lower() for at in positions][1:] == [
        "red",
        "fox",
    ]


@pytest.mark.parametrize("text", ["a blue fox", "draw a red fox like a red fox", ""])
def test_words_that_are_nowhere_or_anywhere_are_not_found(text):
    words = words_of("a red fox")
    assert placed(words, text) is None
    assert tokens_of(words, t5_tokenizer(), t5_tokenizer()(text)["input_ids"], [text]) == [[], [], []]
