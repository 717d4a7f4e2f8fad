"""Neural machine translation by alignment (Bahdanau et al. 2015) of a small language whose alignment is known.

The source is a noun phrase, "the red fox sees a small wolf"; the target says it word by word in a language where
adjectives follow their nouns, "le renard rouge voit un loup petit". Which source word each target word comes from is
therefore known.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.attention import capture
from explain.guard import evaluating, random_states_kept
from models.descent import descend

ARTICLES = {"the": "le", "a": "un"}
ADJECTIVES = {"red": "rouge", "small": "petit", "old": "vieux", "": ""}
NOUNS = {"fox": "renard", "wolf": "loup", "cat": "chat"}
VERBS = {"sees": "voit", "hears": "entend"}
PAD, START, END = 0, 1, 2
SOURCE = ["<pad>", "<start>", "<end>", *(w for part in (ARTICLES, ADJECTIVES, NOUNS, VERBS) for w in part if w)]
TARGET = [
    "<pad>",
    "<start>",
    "<end>",
    *(w for part in (ARTICLES, ADJECTIVES, NOUNS, VERBS) for w in part.values() if w),
]


class Pair(NamedTuple):
    """A sentence, its translation, and for each target word the position of the source word that it comes from."""

    source: list[str]
    target: list[str]
    alignment: list[int]


def pairs() -> list[Pair]:
    """Every sentence "noun phrase, verb, noun phrase" of the language.

    >>> found = pairs()
    >>> len(found), found[0].source[:4], found[0].target[:4], found[0].alignment[:4]
    (1152, ['the', 'red', 'fox', 'sees'], ['le', 'renard', 'rouge', 'voit'], [0, 2, 1, 3])
    """
    phrases = list(itertools.product(ARTICLES, ADJECTIVES, NOUNS))
    return [_pair(first, verb, second) for first, verb, second in itertools.product(phrases, VERBS, phrases)]


def _pair(first: tuple[str, str, str], verb: str, second: tuple[str, str, str]) -> Pair:
    source: list[str] = []
    target: list[str] = []
    alignment: list[int] = []
    for part in (first, (verb,), second):
        at = len(source)
        words = [word for word in part if word]
        source += words
        order = [0, 2, 1] if len(words) == 3 else list(range(len(words)))
        known = ARTICLES | ADJECTIVES | NOUNS | VERBS
        target += [known[words[i]] for i in order]
        alignment += [at + i for i in order]
    return Pair(source, target, alignment)


def encoded(sentences: list[list[str]], vocabulary: list[str], bounds: bool = False) -> Tensor:
    """Positions in the vocabulary, padded, ``[n, longest]``; with ``bounds`` between start and end."""
    rows = [torch.tensor([vocabulary.index(word) for word in words]) for words in sentences]
    if bounds:
        rows = [F.pad(F.pad(row, (1, 0), value=START), (0, 1), value=END) for row in rows]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


class Translator(nn.Module):
    """An encoder of both directions, and a decoder that at every word looks at the whole source.

    ``a_tj = softmax_j v' tanh(W s_(t-1) + U h_j)``, ``c_t = sum_j a_tj h_j`` (Bahdanau et al. 2015, section 3.1).

    Args:
        width: of words and states.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read, self.write = (nn.Embedding(len(words), width, padding_idx=PAD) for words in (SOURCE, TARGET))
        self.encoder = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.decoder = nn.GRUCell(2 * width, width)
        self.align = Alignment(width)
        self.out = nn.Linear(2 * width, len(TARGET))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits ``[n, words, vocabulary]`` of the word after each of ``target [n, words]``, for ``source [n, m]``."""
        states, _ = self.encoder(self.read(source))
        state, said = states.new_zeros(len(source), states.size(2)), []
        for word in self.write(target).unbind(1):
            context = self.align(state, states, source != PAD)
            state = self.decoder(torch.cat([word, context], 1), state)
            said.append(self.out(torch.cat([state, context], 1)))
        return torch.stack(said, 1)


class Alignment(nn.Module):
    """Additive attention of one state over the source."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own, self.other, self.score = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, state: Tensor, states: Tensor, seen: Tensor) -> Tensor:
        """What is looked at, ``[n, width]``; ``seen [n, m]``: words that are there."""
        scores = self.score((self.own(state)[:, None] + self.other(states)).tanh()).squeeze(2)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(1)
        return torch.bmm(weights[:, None], states).squeeze(1)


def train(data: list[Pair], *, iterations: int = 300, seed: int = 0, progress: bool = True) -> Translator:
    """Minimise the cross-entropy of each next word; global random states are kept.

    Returns:
        The translator in eval mode.
    """
    source = encoded([pair.source for pair in data], SOURCE)
    target = encoded([pair.target for pair in data], TARGET, bounds=True)
    with random_states_kept():
        torch.manual_seed(seed)
        net = Translator().train()

        def loss() -> Tensor:
            chosen = torch.randint(len(data), (64,))
            logits = net(source[chosen], target[chosen, :-1])
            return F.cross_entropy(logits.flatten(0, 1), target[chosen, 1:].flatten(), ignore_index=PAD)

        descend(loss, torch.optim.Adam(net.parameters(), 1e-2), iterations, name="translator", progress=progress)
    return net.eval()


@torch.no_grad()
def translated(net: Translator, words: list[str]) -> list[str]:
    """The most probable next word, until the end or twice the length of the sentence."""
    source, said = encoded([words], SOURCE), [START]
    with evaluating(net):
        while len(said) <= 2 * len(words) and said[-1] != END:
            said.append(int(net(source, torch.tensor([said]))[0, -1].argmax()))
    return [TARGET[word] for word in said[1:] if word != END]


@torch.no_grad()
def alignment(net: Translator, pair: Pair) -> Tensor:
    """How much each word of the translation looked at each of the source when it was written, rows sum to 1."""
    source, target = encoded([pair.source], SOURCE), encoded([pair.target], TARGET, bounds=True)[:, :-2]
    with capture(net, modules="align") as maps:
        net(source, target)
    return torch.cat([one.weights[0, 0] for one in maps])
