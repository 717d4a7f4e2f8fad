"""The words of a prompt: where they are, what is left of the text without some, and which tokens the encoders read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]
_FROM, _TO = "\ufdd0", "\ufdd1"  # characters that Unicode keeps for such use, in no text
_ENDS = ",;|/!?\u3002\uff0c\u3001"  # after these another word begins, also without white space


@dataclass(frozen=True)
class Words:
    """A prompt and its words, as spans of characters.

    >>> words = Words("a red fox, in snow", ((0, 1), (2, 5), (6, 10), (11, 13), (14, 18)))
    >>> words.names, words.without([True, False, True, False, True])
    (('a', 'red', 'fox,', 'in', 'snow'), 'a fox, snow')
    """

    prompt: str
    spans: tuple[Span, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The text of each word."""
        return tuple(self.prompt[start:end] for start, end in self.spans)

    def without(self, present: Sequence[bool]) -> str:
        """The prompt with these words alone; itself where all are there, empty where none is.

        Where a word goes, one space is left between what stood around it: words that stood apart stay apart.
        """
        if all(present):
            return self.prompt
        gone = next(mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in self.prompt)
        found, end = "", 0
        for (start, to), here in zip(self.spans, present, strict=True):
            found += self.prompt[end:start] + (self.prompt[start:to] if here else gone)
            end = to
        return re.sub(rf"\s*{gone}[\s{gone}]*", " ", found + self.prompt[end:]).strip()


def padded(prompt: str, absent: Sequence[Span]) -> str:
    """The prompt with marks around the spans that are to be read as padding, for a `PaddingTokenizer`.

    Marks within the text stay where they are when a pipeline writes it small, strips it, or puts it into more text.
    """
    found, end = "", 0
    for start, to in absent:
        found += prompt[end:start] + _FROM + prompt[start:to] + _TO
        end = to
    return found + prompt[end:]


def words_of(prompt: str, tokenizer: Any = None, phrases: Sequence[str] = ()) -> Words:
    """The words of a prompt, as the tokenizer parts them; by white space where it does not tell.

    Args:
        prompt: the text.
        tokenizer: one of transformers, whose offsets say where words are.
        phrases: words that go together, such as "red fox", each found in the prompt.

    Raises:
        ValueError: a phrase that the prompt does not hold, or that parts a word.

    >>> words_of("a red fox, in snow", phrases=["red fox,"]).names
    ('a', 'red fox,', 'in', 'snow')
    """
    spans = _parted(prompt, tokenizer) or [found.span() for found in re.finditer(r"\S+", prompt)]
    return Words(prompt, tuple(_joined(prompt, _with_punctuation(prompt, spans), phrases)))


def placed(words: Words, text: str) -> list[Span] | None:
    """Where the words are in what a pipeline made of the prompt: written small, with other white space, in more text.

    None where the prompt is not in the text, or in several places within more text.

    >>> placed(Words("A red  fox", ((0, 1), (2, 5), (7, 10))), "draw: a red fox.")
    [(6, 7), (8, 11), (12, 15)]
    """
    own, of_text = _letters(words.prompt), _letters(text)
    wanted, among = ("".join(letter for _, letter in letters) for letters in (own, of_text))
    at = among.find(wanted)
    if not wanted or at < 0 or (at > 0 and at != among.rfind(wanted)):
        return None
    found = []
    for start, end in words.spans:
        inside = [of_text[at + i][0] for i, (place, _) in enumerate(own) if start <= place < end]
        found.append((inside[0], inside[-1] + 1) if inside else (0, 0))
    return found


def same_letters(one: str, other: str) -> bool:
    """Whether two texts differ in white space and case alone."""
    return [letter for _, letter in _letters(one)] == [letter for _, letter in _letters(other)]


def _letters(text: str) -> list[tuple[int, str]]:
    """The letters of a text written small, without white space, and where each comes from."""
    return [(i, small) for i, letter in enumerate(text) if not letter.isspace() for small in letter.lower()]


def tokens_of(words: Words, tokenizer: Any, ids: Sequence[int], texts: Sequence[str] = ()) -> list[list[int]]:
    """The positions of each word's tokens among the ids that an encoder was given; none of a word that was cut.

    Args:
        words: of the prompt.
        tokenizer: the encoder's.
        ids: the row of ids that the encoder was given, ``[tokens]``.
        texts: what the tokenizer was given to read; the prompt when none.
    """
    best: tuple[int, list[Span], list[Span]] = (0, [], [])
    for text in dict.fromkeys(texts or [words.prompt]):
        spans = placed(words, text)
        try:
            read = tokenizer(text, return_offsets_mapping=True)
        except NotImplementedError:  # without the library that counts characters
            break
        own = read["input_ids"]
        alike = next((i for i, (a, b) in enumerate(zip(own, ids, strict=False)) if a != b), min(len(own), len(ids)))
        if spans is not None and alike > best[0]:
            best = alike, list(read["offset_mapping"])[:alike], spans
    _, offsets, spans = best
    if not spans:
        return [[] for _ in words.spans]
    return [
        [i for i, (start, end) in enumerate(offsets) if start < end and start < word_end and end > word_start]
        for word_start, word_end in spans
    ]


def count_of(text: str, tokenizer: Any) -> list[int]:
    """The ids of a text without marks for its beginning and end."""
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


class PaddingTokenizer:
    """A tokenizer that reads the marked spans of a `padded` prompt as padding.

    Args:
        tokenizer: the pipeline's.
        heard: filled with the texts that it is given.
    """

    def __init__(self, tokenizer: Any, heard: list[str] | None = None) -> None:
        self._tokenizer, self._heard = tokenizer, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's answer."""
        rows = [text] if isinstance(text, str) else list(text)
        if self._heard is not None:
            self._heard += [row for row in rows if isinstance(row, str)]
        if not any(isinstance(row, str) and _FROM in row for row in rows):
            return self._tokenizer(text, *args, **kwargs)
        parted = [_unmarked(row) for row in rows]
        read = self._tokenizer([row for row, _ in parted], *args, **{**kwargs, "return_offsets_mapping": True})
        offsets, pad = read.pop("offset_mapping"), self._tokenizer.pad_token_id
        masks = read.get("attention_mask", [None] * len(rows))
        for ids, mask, spans, (_, absent) in zip(read["input_ids"], masks, offsets, parted, strict=True):
            for i, (start, end) in enumerate(spans):
                if start < end and any(start < to and end > since for since, to in absent):
                    ids[i] = pad
                    if mask is not None and not _ends(self._tokenizer):
                        mask[i] = 0
        return read


def _unmarked(text: str) -> tuple[str, list[Span]]:
    """A text without marks, and the spans that were between them."""
    found, absent = "", []
    for part in re.split(f"({_FROM}[^{_TO}]*{_TO})", text):
        if part.startswith(_FROM):
            absent.append((len(found), len(found) + len(part) - 2))
        found += part.strip(_FROM + _TO)
    return found, absent


def _ends(tokenizer: Any) -> bool:
    """Whether the padding is the mark for the end as well, so that it is not masked."""
    return bool(tokenizer.pad_token_id == getattr(tokenizer, "eos_token_id", None))


def _parted(prompt: str, tokenizer: Any) -> list[Span]:
    """The words that a tokenizer parts a text into before it parts those; none where it does not tell."""
    if tokenizer is None or not prompt.strip():
        return []
    try:
        read = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        words, offsets = read.word_ids(), read["offset_mapping"]
    except (NotImplementedError, ValueError, TypeError, AttributeError):  # without the library that counts characters
        return []
    found: dict[int, Span] = {}
    for word, (start, end) in zip(words, offsets, strict=True):
        while start < end and prompt[start].isspace():  # the mark of a beginning holds the space before it
            start += 1
        if word is not None and start < end:
            low, high = found.get(word, (start, end))
            found[word] = min(low, start), max(high, end)
    spans = sorted(found.values())
    held = "".join(prompt[start:end] for start, end in spans)
    return spans if len(held) == len("".join(prompt.split())) else []  # all of the text, but its white space


def _with_punctuation(prompt: str, spans: Sequence[Span]) -> list[Span]:
    """Parts that touch are one word ("red-haired", "don't"), but after a comma and between letters as wide as words."""
    found: list[Span] = []
    for start, end in spans:
        if found and found[-1][1] == start and not _ends_word(prompt, *found[-1], prompt[start:end]):
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    worded = [not _marks(prompt[start:end]) for start, end in found]
    while any(worded) and not all(worded):  # marks that stand alone go with the word before, the first with the next
        at = worded.index(False)
        low, high = max(0, at - 1), max(1, at)
        found[low : high + 1] = [(found[low][0], found[high][1])]
        worded[low : high + 1] = [worded[low] or worded[high]]
    return found


def _ends_word(prompt: str, start: int, end: int, after: str) -> bool:
    """Whether a word ends here though another part touches it."""
    wide = unicodedata.east_asian_width(prompt[end - 1]) in "WF"
    return not (_marks(after) or _marks(prompt[start:end])) and (prompt[end - 1] in _ENDS or wide)


def _marks(text: str) -> bool:
    """Whether there is nothing but punctuation."""
    return all(unicodedata.category(letter).startswith("P") for letter in text)


def _joined(prompt: str, spans: list[Span], phrases: Sequence[str]) -> list[Span]:
    for phrase in phrases:
        start = prompt.find(phrase)
        if start < 0 or not phrase:
            raise ValueError(f"{phrase!r} does not occur in the prompt {prompt!r}")
        end = start + len(phrase)
        inside = [span for span in spans if span[0] < end and span[1] > start]
        low, high = inside[0][0], inside[-1][1]
        if prompt[low:start].strip() or any(letter.isalnum() for letter in prompt[end:high]):
            raise ValueError(f"{phrase!r} parts a word of the prompt: {prompt[low:high]!r}")
        spans = sorted([*(span for span in spans if span not in inside), (low, high)])
    return spans
