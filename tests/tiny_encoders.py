"""Tiny tokenizers from vocabularies of a few words, and the random text encoders that read them."""

from __future__ import annotations

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_networks import TEXT, seeded
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
)
from transformers.utils import logging

WORDS = ("a", "red", "fox", "in", "deep", "snow", "blurry", "blue", "cat")
LENGTH = 16  # tokens that a CLIP encoder is given
_START, _END = "<|startoftext|>", "<|endoftext|>"

logging.set_verbosity_error()  # what transformers has to say about image processors and torchvision


def _pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary: letters, and the merges that make each of `WORDS` one token."""
    tokens = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase), ",</w>", ".</w>"]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            merges.append((left, right))
            left += right
            tokens.append(left)
    tokens = list(dict.fromkeys([*tokens, _START, _END]))
    return {token: number for number, token in enumerate(tokens)}, list(dict.fromkeys(merges))


def clip_tokenizer() -> CLIPTokenizer:
    """One token a word of `WORDS`, one a letter of other words; padded by the end token."""
    vocabulary, merges = _pairs()
    with TemporaryDirectory() as folder:
        words, rules = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        words.write_text(json.dumps(vocabulary), encoding="utf-8")
        rules.write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges), encoding="utf-8")
        return CLIPTokenizer(vocab=str(words), merges=str(rules), model_max_length=LENGTH)


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A unigram tokenizer: pieces that start with a space are words, ``</s>`` ends, and ``<pad>`` is 0."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    pieces = [("\u2581" + word, -1.0) for word in WORDS]
    letters = [(start + letter, -6.0) for letter in string.ascii_lowercase for start in ("", "\u2581")]
    pieces += [piece for piece in letters if piece[0] != "\u2581a"] + [("\u2581", -8.0), (",", -6.0)]
    tokenizer = Tokenizer(models.Unigram(special + pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)


def clip(projected: bool = False, seed: int = 0) -> Any:
    """CLIP of two layers, with a pooled and projected vector or without."""
    vocabulary, _ = _pairs()
    size = {"hidden_size": TEXT, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    ends = {"bos_token_id": vocabulary[_START], "eos_token_id": vocabulary[_END], "pad_token_id": vocabulary[_END]}
    config = CLIPTextConfig(vocab_size=len(vocabulary), projection_dim=TEXT, hidden_act="gelu", **size, **ends)
    return seeded(CLIPTextModelWithProjection if projected else CLIPTextModel, config, seed=seed)


def t5(width: int = TEXT) -> Any:
    """T5 of two layers."""
    size = {"d_model": width, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    return seeded(T5EncoderModel, T5Config(vocab_size=len(t5_tokenizer()), **size))


def clap() -> Any:
    """The text half of CLAP, which AudioLDM is conditioned on."""
    size = {"hidden_size": TEXT, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    names = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "max_position_embeddings": 40}
    config = ClapTextConfig(vocab_size=len(t5_tokenizer()), projection_dim=TEXT, **size, **names)
    return seeded(ClapTextModelWithProjection, config)


def vocoder() -> Any:
    """From mel spectrograms of 16 bins to sound."""
    config = SpeechT5HifiGanConfig(
        model_in_dim=16,
        sampling_rate=16_000,
        upsample_initial_channel=16,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3, 7],
        resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5]],
        normalize_before=False,
    )
    return seeded(SpeechT5HifiGan, config)
