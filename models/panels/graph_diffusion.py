"""Denoisers whose state is labels on a graph, or the graph itself."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

import explain
from explain.graph_diffusion.graph_states import GraphNoise
from explain.plot.node_link import RING
from explain.plot.style import DIVERGING, FAINT, INK, centred, colour_bar, ink_on, title, units
from models import digress, dpm_snc
from models.communities import communities
from models.ladder import ladder
from models.panels.by_hand import agreement
from models.panels.panel import Finding, panel

RUNGS, T = 20, 20


@panel(
    "DPM-SNC",
    "Jang et al., NeurIPS 2023",
    conclude="Which known labels the class of the node hangs on when all others are sampled together with it.",
    beware="That a label far away says nothing in other runs: this is the run of one start, without noise.",
)
def known_labels() -> Finding:
    """Known labels on a ladder whose features say nothing: unknown, one is sampled with the others.

    In float64: a correction divides by how far off the known labels are, and makes much of float32's rounding.
    """
    recipe = replace(dpm_snc.LADDER, steps=600, warm=200, lr=0.003, decay=False, renewed=1)
    trained = dpm_snc.on_ladder(0, RUNGS, recipe, T, progress=False)
    net, data, betas = deepcopy(trained.module).double(), ladder(RUNGS), dpm_snc.cosine_betas(T)
    data.x = data.x.double()
    model = explain.wrap(net, data, betas=betas, time="step", prediction_type="epsilon", scale="0/1")
    ends = model.trajectory(payoff=lambda ends: ends[:, 0, 0], draws=1, temperature=0.0).labels()[0]
    node = int((data.test_mask & (ends == data.y)).nonzero()[0])
    target = model.trajectory(node, draws=1, temperature=0.0, payoff="state")
    why = explain.Shapley("known_labels", samples=1024, seed=0).explain(target)

    def worth(coalition: Tensor) -> float:
        known = torch.full_like(data.y, -1)
        held = why.players.index[coalition]
        known[held] = data.y[held]
        return float(dpm_snc.sample(net, data, known, torch.Generator(), betas, 2, temperature=0.0)[node, target.label])

    return Finding.of(
        why,
        f"Which known labels let DPM-SNC find the class of node {node} on a ladder of {RUNGS} rungs?",
        f"state of class {target.label} that a run without noise ends in, 1 where it is sure and 0 where of another",
        on_ladder(why, node),
        by_hand=agreement(target, why, worth),
        ladder=f"{trained.facts['one_run']:.0%} of the test nodes right; of features alone "
        f"{trained.facts['features_alone']:.0%}",
    )


def on_ladder(why: explain.Explanation, node: int) -> Axes:
    """The ladder, with known labels in the colour of their credit; the node that is asked about is ringed."""
    ax = plt.subplots(figsize=(8, 2.2), layout="constrained")[1]
    place, norm = torch.arange(2 * RUNGS), centred(why.scores.tolist())
    x, y, edges = place % RUNGS, place // RUNGS, ladder(RUNGS).edge_index
    ax.plot(x[edges], y[edges], color=FAINT, linewidth=0.8, zorder=0)
    ax.scatter(x, y, 170, "white", edgecolors=INK, linewidths=0.8)
    known, colours = why.players.index, DIVERGING(norm(why.scores.numpy()))
    ax.scatter(x[known], y[known], 170, colours, edgecolors=INK, linewidths=0.8)
    ax.scatter(x[node], y[node], 360, "none", edgecolors=RING, linewidths=2.4)
    for at, name, colour in zip(known.tolist(), why.players.names, colours, strict=True):
        ax.text(int(x[at]), int(y[at]), name[-1], ha="center", va="center", fontsize="small", color=ink_on(colour))
    ax.text(int(x[node]), int(y[node]), "?", ha="center", va="center", fontsize="small")
    ax.margins(0.03, 0.4)
    ax.set_axis_off()
    colour_bar(ax, norm, units(why), below=True)
    title(ax, why)
    return ax


@panel(
    "DiGress",
    "Vignac et al., ICLR 2023",
    conclude="Whose pairs let the network see through the noise that two nodes were joined.",
    beware="That a node is important in the graph: an absent node's pairs are drawn anew and not deleted.",
)
def pairs() -> Finding:
    """Nodes of a noised graph; the pairs of an absent one are drawn from the limit."""
    fitted = digress.train(communities(60, sizes=(8, 8)), digress.Recipe(updates=300, steps=T), seed=0, progress=False)
    net, graph, edge, t = fitted.net, communities(1, sizes=(8, 8), seed=3)[0], (0, 1), 8
    target = explain.wrap(net, process=GraphNoise(fitted.process), time="step").step(graph, t=t, edge=edge)
    why = explain.Shapley("nodes", seed=0).explain(target)

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        there = (coalition[:, None] & coalition)[..., None]
        state = torch.where(there, target.noised.pairs, target.absent.entries.pairs)
        return float(net(state, torch.full((target.draws,), t)).log_softmax(-1)[:, *edge, 1].mean())

    return Finding.of(
        why,
        f"Whose pairs let DiGress see, at step {t} of {T}, that nodes 0 and 1 of a graph were joined?",
        f"log p of the edge, in nats, the mean of {target.draws} draws",
        by_hand=agreement(target, why, worth),
    )
