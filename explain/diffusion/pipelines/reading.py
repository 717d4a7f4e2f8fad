"""How a pipeline's text encoders read a prompt: which words, and which of the network's text tokens are whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.pipelines.call import Heard, PipelineCall
from explain.diffusion.pipelines.prompts import Words, same_letters, tokens_of, words_of
from explain.types import Unsupported

_LISTED = 12  # words that are named one by one


@dataclass(frozen=True, eq=False)
class Reading:
    """What the encoders of a pipeline made of a prompt, by the ids that they were given in the user's own call.

    Args:
        call: the pipeline.
        prompt: the user's.
        heard: what its encoders and tokenizers were given.
    """

    call: PipelineCall
    prompt: str
    heard: Heard

    def words(self, phrases: Sequence[str] = ()) -> Words:
        """The words of the prompt, some together."""
        return words_of(self.prompt, self.tokenizer, phrases)

    def reads(self, words: Words) -> list[bool]:
        """Which words at least one encoder reads; all where it cannot be told."""
        found = [self.positions(words, reader) for reader in self.call.readers]
        return [any(of_word) for of_word in zip(*found, strict=True)] if self.told else [True] * len(words.spans)

    @cached_property
    def told(self) -> bool:
        """Whether it can be told which tokens are whose, of one encoder at least."""
        whole = Words(self.prompt, ((0, len(self.prompt)),))
        return any(any(self.positions(whole, reader)) for reader in self.call.readers)

    def said(self) -> str | None:
        """Which words no encoder reads, or reads the beginning of alone; None where all are read."""
        if not self.prompt.strip() or not self.call.readers or not self.heard.ids:
            return None
        if not self.told:
            return "which of the encoders' tokens are whose cannot be told: words that they cut play too"
        words = self.words()
        reads = self.reads(words)
        cut = [name for name, here in zip(words.names, reads, strict=True) if not here]
        found = [
            [len(at) < len(whole) for at, whole in zip(*self._with_all(words, reader), strict=True)]
            for reader in self.call.readers
        ]
        parted = [
            repr(name) for name, here, *short in zip(words.names, reads, *found, strict=True) if here and all(short)
        ]
        rest = "" if len(cut) <= _LISTED else f" and {len(cut) - _LISTED} more"
        said = [f"{len(cut)} words were cut: {' '.join(cut[:_LISTED])}{rest}"] if cut else []
        said += [f"of {', '.join(parted)} only the beginning is read"] if parted else []
        return f"longer than the encoder reads: {'; '.join(said)}" if said else None

    def _with_all(self, words: Words, reader: str) -> tuple[list[list[int]], list[list[int]]]:
        """The positions of each word's tokens among those that an encoder was given, and were it given all."""
        texts, tokenizer = self.texts(reader), self.tokenizer_of(reader)
        every = [tokens_of(words, tokenizer, tokenizer(text)["input_ids"], [text]) for text in texts]
        none: list[list[int]] = [[] for _ in words.spans]
        whole = max(every, key=lambda found: sum(map(len, found)), default=none)
        return self.positions(words, reader), whole

    @cached_property
    def read(self) -> str:
        """The part of the prompt that is read."""
        words = self.words()
        read = [span for span, here in zip(words.spans, self.reads(words), strict=True) if here]
        return self.prompt[: read[-1][1]] if 0 < len(read) < len(words.spans) else self.prompt

    def tokens(self, words: Words, text: Tensor) -> list[Tensor]:
        """The positions of each word's tokens in the text ``[rows, tokens, width]`` that the network is given.

        Raises:
            Unsupported: it is not made of the encoders' tokens one after the other.
        """
        length = text.size(1)
        own = [self.positions(words, reader) for reader in self.call.readers]
        counts = [self.ids(reader).numel() for reader in self.call.readers]
        alike = [i for i, count in enumerate(counts) if count == length]
        said = [i for i in alike if any(_holds(text, one) for one in self._said(i))]
        found: list[list[int]] | None = None
        if said or (alike and all(own[i] == own[alike[0]] for i in alike)):
            found = own[(said or alike)[0]]
        elif counts and length > counts[0] and not text[:, counts[0] :].any():
            found = own[0]  # zeros stand for an encoder that is left out
        for i, count in enumerate(counts):  # two encoders of one length side by side, then one behind them
            for j in range(i + 1, len(counts)):
                if found is None and count + counts[j] == length:
                    found = [[*a, *(at + count for at in b)] for a, b in zip(own[i], own[j], strict=True)]
        if found is None or (found and not any(found)):
            raise Unsupported(
                f"the network is given {length} text tokens, the encoders {', '.join(map(str, counts)) or 'none'}: "
                "which of them are the prompt's words cannot be told"
            )
        return [torch.tensor(at, dtype=torch.int64) for at in found]

    def _said(self, i: int) -> list[Tensor]:
        return self.heard.said.get(list(self.call.readers)[i], [])

    def padded(self, words: Words, heard: Heard) -> bool:
        """Whether each encoder that reads the prompt was given padding for these words.

        Args:
            words: of the prompt.
            heard: what the encoders were given where the words were absent.
        """
        found = []
        for reader in self.call.readers:
            at = [i for of_word in self.positions(words, reader) for i in of_word]
            pad, rows = self.tokenizer_of(reader).pad_token_id, [*heard.ids.get(reader, [])]
            found += [any(bool((ids[:, at] == pad).all(1).any()) for ids in rows)] if at else []
        return bool(found) and all(found)

    def positions(self, words: Words, reader: str) -> list[list[int]]:
        """The positions of each word's tokens among those of one encoder."""
        words, ids = Words(self.prompt, words.spans), self.ids(reader).tolist()
        return tokens_of(words, self.tokenizer_of(reader), ids, self.texts(reader))

    def ids(self, reader: str) -> Tensor:
        """The ids that an encoder was given for the prompt, ``[tokens]``: of all that it was given, the likest."""
        tokenizer, whole = self.tokenizer_of(reader), Words(self.prompt, ((0, max(1, len(self.prompt))),))
        rows = [row for ids in self.heard.ids.get(reader, []) for row in ids.reshape(-1, ids.size(-1))]

        def alike(row: Tensor) -> int:
            return len(tokens_of(whole, tokenizer, row.tolist(), self.texts(reader))[0])

        return max(rows, key=alike, default=torch.zeros(0))

    def texts(self, reader: str) -> list[str]:
        """What an encoder's tokenizer was given to read: the prompt itself, or what the pipeline made of it."""
        found = self.heard.texts.get(self.call.readers[reader], [])
        return [text for text in found if same_letters(text, self.prompt)] or found

    def tokenizer_of(self, reader: str) -> Any:
        """The tokenizer that an encoder reads by."""
        return getattr(self.call.pipeline, self.call.readers[reader])

    @property
    def tokenizer(self) -> Any:
        """The first encoder's tokenizer, where there is one."""
        return self.tokenizer_of(next(iter(self.call.readers))) if self.call.readers else None


def _holds(text: Tensor, said: Tensor) -> bool:
    """Whether a row of a text ``[rows, tokens, width]`` is, alone or beside another's, what an encoder said."""
    width = said.size(-1)
    sides = [*text[..., :width].to(said), *text[..., -width:].to(said)]
    return any(torch.equal(side, row) for side in sides for row in said)
