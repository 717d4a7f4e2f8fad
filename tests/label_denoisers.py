"""Denoisers of labels that are set by hand: each node is another class than its neighbours, of two."""

import itertools
import math

import torch
from torch import nn
from torch_geometric.data import Data

from models.dpm_snc import cosine_betas, sample
from models.ladder import ladder

T = 8
BETAS = cosine_betas(T)


class Colouring(nn.Module):
    """The noise by Bayes' rule on what a node and its neighbours, each turned around, show: one hop.

    ``y0_hat = softmax(min(1, a_t / s_t^2) (y + strength * sum over neighbours of (1 - y)))``: sure, and never quite.
    """

    def __init__(self, betas=BETAS, strength=1.0, answers="epsilon", low=0.0):
        super().__init__()
        self.register_buffer("signal", (1 - betas).cumprod(0).sqrt())
        self.strength, self.answers, self.low = nn.Parameter(torch.tensor(strength).double()), answers, low

    def foreseen(self, x, y_t, a, edge_index):
        heard = torch.zeros_like(y_t).index_add(0, edge_index[1], y_t.flip(1)[edge_index[0]])
        seen = (y_t + self.strength * x[:, :1] * heard) * (a / (1 - a**2)).clamp_max(1.0) * (1 - self.low)
        return self.low + (1 - self.low) * seen.softmax(1)

    def forward(self, x, y_t, t, edge_index):
        a = self.signal[t].reshape(-1, 1)
        clean = self.foreseen(x, y_t, a, edge_index)
        s = (1 - a**2).sqrt()
        noise = (y_t - a * clean) / s
        return {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * clean}[self.answers]


def small_ladder(columns=5, known=0.4, seed=1) -> Data:
    data = ladder(columns, known, seed)
    data.x = data.x.double()
    return data


def by_hand(net, data, known, node, label, draws, seed=0, edges=None, **options):
    """The share of runs, one after the other in the form of the paper, in which the node ends as the label."""
    graph = Data(x=data.x, edge_index=data.edge_index if edges is None else data.edge_index[:, edges])
    seen = torch.where(known, data.y, -1)
    ends = [
        sample(net, graph, seen, torch.Generator().manual_seed(seed + i), BETAS, 2, **options).argmax(1)[node]
        for i in range(draws)
    ]
    return sum(int(end) == label for end in ends) / draws


def exact_shapley(value, players):
    """``phi_i = sum_S |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))``, every subset by itself."""
    n = len(players)
    values = {
        frozenset(held): value(frozenset(held))
        for size in range(n + 1)
        for held in itertools.combinations(players, size)
    }
    credit = []
    for player in players:
        own = 0.0
        for held, before in values.items():
            if player not in held:
                weight = math.factorial(len(held)) * math.factorial(n - len(held) - 1) / math.factorial(n)
                own += weight * (values[held | {player}] - before)
        credit.append(own)
    return credit
