"""How a pipeline's text encoders read a prompt: which words, and which of the network's text tokens are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.pipelines.call import PipelineCall
from explain.diffusion.pipelines.prompts import Words, count_of, tokens_of, words_of
from explain.types import Unsupported

_LISTED = 12  # words that are named one by one


@dataclass(frozen=True, eq=False)
class Reading:
    """What the encoders of a pipeline made of a prompt, by the ids that they were given in the user's own call.

    Args:
        call: the pipeline.
        prompt: the user's.
        heard: the ids that each encoder was given, ``[rows, tokens]``, by its name.
    """

    call: PipelineCall
    prompt: str
    heard: Mapping[str, list[Tensor]]

    def words(self, phrases: Sequence[str] = ()) -> Words:
        """The words of the prompt, some together."""
        return words_of(self.prompt, self.tokenizer, phrases)

    def reads(self, words: Words) -> list[bool]:
        """Which words at least one encoder reads; all where it cannot be told."""
        if not self.call.readers or not self.heard:
            return [True] * len(words.spans)
        found = [self.positions(words, reader) for reader in self.call.readers]
        return [any(of_word) for of_word in zip(*found, strict=True)]

    def said(self) -> str | None:
        """Which words no encoder reads, or reads the beginning of alone; None where all are read."""
        if not self.prompt.strip() or not self.call.readers or not self.heard:
            return None
        words = self.words()
        reads = self.reads(words)
        cut = [name for name, here in zip(words.names, reads, strict=True) if not here]
        found = [
            [len(at) < len(count_of(name, self.tokenizer_of(reader))) for name, at in zip(words.names, of, strict=True)]
            for reader, of in ((reader, self.positions(words, reader)) for reader in self.call.readers)
        ]
        parted = [
            repr(name) for name, here, *short in zip(words.names, reads, *found, strict=True) if here and all(short)
        ]
        rest = "" if len(cut) <= _LISTED else f" and {len(cut) - _LISTED} more"
        said = [f"{len(cut)} words were cut: {' '.join(cut[:_LISTED])}{rest}"] if cut else []
        said += [f"of {', '.join(parted)} only the beginning is read"] if parted else []
        return f"longer than the encoder reads: {'; '.join(said)}" if said else None

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
        own = [[torch.tensor(at) for at in self.positions(words, reader)] for reader in self.call.readers]
        counts = [self.ids(reader).numel() for reader in self.call.readers]
        if length in counts:
            return own[counts.index(length)]
        if counts and length > counts[0] and not text[:, counts[0] :].any():
            return own[0]  # zeros stand for an encoder that is left out
        for i, count in enumerate(counts):  # two encoders of one length side by side, then one behind them
            for j in range(i + 1, len(counts)):
                if count + counts[j] == length:
                    return [torch.cat([a, b + count]).long() for a, b in zip(own[i], own[j], strict=True)]
        raise Unsupported(
            f"the network is given {length} text tokens, the encoders {', '.join(map(str, counts)) or 'none'}: which "
            "are whose cannot be told"
        )

    def positions(self, words: Words, reader: str) -> list[list[int]]:
        """The positions of each word's tokens among those of one encoder."""
        return tokens_of(words, self.tokenizer_of(reader), self.ids(reader).tolist())

    def ids(self, reader: str) -> Tensor:
        """The ids that an encoder was given for the prompt, ``[tokens]``: of all that it was given, the likest."""
        tokenizer, whole = self.tokenizer_of(reader), Words(self.prompt, ((0, max(1, len(self.prompt))),))
        rows = [row for ids in self.heard.get(reader, []) for row in ids.reshape(-1, ids.size(-1))]
        return max(rows, key=lambda row: len(tokens_of(whole, tokenizer, row.tolist())[0]), default=torch.zeros(0))

    def tokenizer_of(self, reader: str) -> Any:
        """The tokenizer that an encoder reads by."""
        return getattr(self.call.pipeline, self.call.readers[reader])

    @property
    def tokenizer(self) -> Any:
        """The first encoder's tokenizer, where there is one."""
        return self.tokenizer_of(next(iter(self.call.readers))) if self.call.readers else None
