"""A denoiser of tokens, in a language whose law is known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.data import Data

import explain
from models import d3pm
from models.panels.by_hand import agreement
from models.panels.panel import Finding, panel
from models.panels.pictures import in_units


@panel(
    "D3PM",
    "Austin et al., NeurIPS 2021",
    conclude="That the network goes by the law of the language: a letter is foreseen from itself, where it is not "
    "masked, and from its mirror image.",
    beware="That one of the two is needed: each does where the other is masked, so that they share what both know.",
)
def letters() -> Finding:
    """Letters of a palindrome that are masked with others at half of the steps; an absent one always is."""
    net, word, place, t = d3pm.train(), d3pm.palindromes(1, torch.Generator().manual_seed(7))[0], 1, 5
    data = Data(edge_index=torch.empty(2, 0).long(), y=word, train_mask=torch.ones(7).bool(), num_nodes=7)
    model = explain.wrap(net, data, process=d3pm.process(), time="step", classes=6)
    target = model.step(t=t, node=place, label=int(word[place]), draws=64)
    found = explain.Shapley("labels").explain(target)
    names = tuple(f"{letter}, place {at + 1}" for at, letter in enumerate(d3pm.spelt(word)))
    why = in_units(replace(found, players=replace(found.players, names=names)), "nats")

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        state = torch.where(coalition[:, None], target.noised, target.absent)
        said = net(state.float().flatten(0, 1), torch.tensor(t)).log_softmax(-1)
        return float(said.view(-1, 7, 6)[:, place, word[place]].mean())

    return Finding.of(
        why,
        f"Which letters of “{d3pm.spelt(word)}”, half of them masked, let a D3PM foresee the one at place {place + 1}?",
        f"log p of “{d3pm.LETTERS[word[place]]}”, in nats, the mean of {target.draws} draws",
        explain.plot.bars(why),
        by_hand=agreement(target, why, worth),
    )
