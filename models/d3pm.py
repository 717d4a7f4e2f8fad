"""D3PM (Austin et al. 2021): tokens that become masks one by one, and a network that foresees what they were.

Words of a language whose law is known: palindromes, so that a masked letter is told by its mirror image alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.diffusion.categorical import Categorical
from explain.guard import random_states_kept

LETTERS = "abcde"
LENGTH, STEPS = 7, 10


def palindromes(count: int, generator: torch.Generator) -> Tensor:
    """Words ``[count, 7]`` that read the same from both ends, int64, 0 for "a".

    >>> word = palindromes(1, torch.Generator().manual_seed(0))[0]
    >>> torch.equal(word, word.flip(0))
    True
    """
    half = torch.randint(len(LETTERS), (count, LENGTH // 2 + 1), generator=generator)
    return torch.cat([half, half[:, :-1].flip(1)], 1)


def spelt(word: Tensor) -> str:
    """The letters of a word ``[7]``."""
    return "".join(LETTERS[letter] for letter in word.tolist())


def process() -> Categorical:
    """A letter is masked by step ``t`` with probability ``t / T``; the mask is the last class."""
    left = torch.arange(STEPS, 0, -1, dtype=torch.float64)
    return Categorical.absorbing(1 / left, len(LETTERS) + 1)


class D3PM(nn.Module):
    """Logits of the clean letters by self-attention among those of a word; it is asked for words one after the other.

    >>> D3PM()(torch.eye(6)[[0] * 14], torch.tensor(3)).shape
    torch.Size([14, 6])
    """

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.letter, self.time = nn.Linear(len(LETTERS) + 1, size), nn.Linear(1, size)
        self.place = nn.Parameter(torch.randn(LENGTH, size) / 2)
        self.read = nn.TransformerEncoderLayer(size, 2, 2 * size, dropout=0.0, batch_first=True)
        self.out = nn.Linear(size, len(LETTERS) + 1)

    def forward(self, y_t: Tensor, t: Tensor) -> Tensor:
        """Letters and masks ``[words * 7, 6]`` at a step to logits ``[words * 7, 6]``."""
        time = self.time((t.reshape(-1)[:1] / STEPS).to(y_t))
        h = self.letter(y_t.view(-1, LENGTH, len(LETTERS) + 1)) + self.place + time
        return self.out(self.read(h)).flatten(0, 1)


def train(*, seed: int = 0, updates: int = 300, words: int = 128) -> D3PM:
    """A `D3PM` of palindromes, by the cross-entropy of the clean letters (the auxiliary loss of the paper).

    >>> train(updates=1).training
    False
    """
    noise, generator = process(), torch.Generator().manual_seed(seed)
    with random_states_kept():
        torch.manual_seed(seed)
        net = D3PM().train()
    adam = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(updates):
        clean = palindromes(words, generator)
        t = torch.randint(1, STEPS + 1, (), generator=generator)
        x0 = F.one_hot(clean, len(LETTERS) + 1).float()
        noised = noise.noised(x0, torch.rand(x0.shape, generator=generator), int(t))
        adam.zero_grad()
        F.cross_entropy(net(noised.flatten(0, 1), t), clean.flatten()).backward()
        adam.step()
    adam.zero_grad()
    return net.eval()
