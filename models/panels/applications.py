"""Explanations at work: pre-training whose content is known, forecasts of counties, and recommendation."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data

import explain
from explain.analysis import because, content_share, similar, turned_by_edges
from explain.plot.style import FAINT
from models import chickenpox, lightgcn
from models.content_style import content_style, without_any, without_style
from models.graph_cl import GraphEncoder, pretrain
from models.panels.by_hand import agreement, held
from models.panels.panel import Finding, panel
from models.panels.pictures import in_units

FILMS = ("Rio Bravo", "High Noon", "Shane", "Stagecoach", "Solaris", "Alien", "Metropolis", "Stalker")


@panel(
    "GraphCL",
    "You et al., NeurIPS 2020; Trivedi et al., NeurIPS 2022",
    conclude="That an encoder looks at the motif more than at the rest where augmentation spares the motif, and less "
    "so where it does not.",
    beware="Which class an edge speaks for: there is none, and the scores have no sign.",
)
def content() -> Finding:
    """Edges of a graph whose motif is known, after augmentation that spares the motif, and after one that does not."""
    graphs = content_style(60, 4.0, motifs=("A", "C", "E"))
    shown, lifts = graphs[1], {}
    for name, augmentation in (("generic", without_any), ("content-aware", partial(without_style, rate=0.5))):
        torch.manual_seed(0)
        encoder = pretrain(graphs, augmentation, GraphEncoder(10, hidden=16, layers=3), epochs=40, lr=5e-3)
        turned = [turned_by_edges(encoder, graph) for graph in graphs[:12]]
        shares = [content_share(scores, graph.content) for scores, graph in zip(turned, graphs, strict=False)]
        lifts[name] = f"{sum(one.lift for one in shares) / len(shares):.2f}"
    own = torch.arange(0, shown.num_edges, 2)  # both directions of a pair lie side by side
    pairs, places = shown.edge_index[:, ::2], tuple(torch.stack([own, own + 1], 1))
    kinds = ["motif" if one else "tree" for one in shown.content[::2].tolist()]
    names = tuple(f"{a}–{b}, {kind}" for (a, b), kind in zip(pairs.T.tolist(), kinds, strict=True))
    drawn = {"edge_index": pairs, "ends": pairs, "focus": shown.content_nodes.nonzero()[:, 0]}
    players = explain.Players("edges", own, names, groups=places, geometry=drawn)
    scores, said = turned[1][::2].double(), {"scores": "1 − cosine, without a sign"}
    asked, whole = {"model": "graph encoder"}, float(scores.sum())
    why = explain.Explanation(scores, players, whole, method="Turned by edges", checks=said, target=asked)
    by_hand = torch.stack([_turned(encoder, shown, pair) for pair in places])
    return Finding.of(
        why,
        "Which edges does a pre-trained encoder look at, before there is any class? The motif is ringed.",
        "1 − cosine of a graph's representation with and without an edge, the sum over all edges",
        by_hand=held("the scores", "a copy of the graph without each edge", by_hand, why.scores),
        content_aware=f"an edge of the motif turns it {lifts['content-aware']} times as far as an even share",
        generic=f"{lifts['generic']} times after augmentation that drops any edge; both over twelve graphs",
    )


@torch.no_grad()
def _turned(encoder: GraphEncoder, graph: Data, pair: Tensor) -> Tensor:
    """``1 - cosine``, of one pair of nodes no longer linked."""
    stay = torch.ones(graph.num_edges, dtype=torch.bool).index_fill(0, pair, False)
    both = graph.edge_index, graph.edge_index[:, stay]
    whole, less = (encoder([Data(graph.x, edges)])[0].double() for edges in both)
    return 1 - whole @ less / (whole.norm() * less.norm())


@panel(
    "Forecaster",
    "Rozemberczki et al., 2021",
    conclude="Whose weeks move the forecast away from that of weeks at 0, and how long ago they were.",
    beware="That one county infects another. Two that move together can stand in for each other.",
)
def weeks() -> Finding:
    """Each week of each county that a forecast of one county hears."""
    try:
        data, name, unit = chickenpox.chickenpox(), "Hungary's chickenpox", "cases, standardised"
    except FileNotFoundError:
        data, name, unit = chickenpox.planted(), "a planted series, whose nodes follow each other in a ring", "value"
    blank = {graph: chickenpox.Forecaster(graph=graph) for graph in (True, False)}
    nets = {graph: chickenpox.train(data, net, progress=False) for graph, net in blank.items()}
    tested, net, node = data.part(0.4, 1), nets[True], 3
    with torch.no_grad():
        highest = net(tested.lags, data.edge_index)[:, node, 0].argmax()
    week = Data(x=tested.lags[highest], edge_index=data.edge_index)
    target = explain.wrap(net, week, task="node", outputs="values").node(node)
    found = explain.Shapley("node_features", seed=0).explain(target)
    names = tuple(f"node {n}, week −{data.lags.size(2) - lag}" for n, lag in found.players.index.tolist())
    why = in_units(replace(found, players=replace(found.players, names=names)), unit)

    @torch.no_grad()
    def worth(coalition: Tensor) -> float:
        rows, columns = why.players.index[~coalition].T
        return float(net(week.x.index_put((rows, columns), torch.zeros(())), week.edge_index)[node, 0])

    errors = {graph: chickenpox.errors(one, tested).per_node for graph, one in nets.items()}
    return Finding.of(
        why,
        f"Whose weeks, and which, make a forecaster expect the most of node {node} in {name}?",
        f"next week's {unit}",
        by_hand=agreement(target, why, worth),
        squared_error=f"{errors[True]:.3f} with the graph, {errors[False]:.3f} without, of each node on later weeks",
    )


@panel(
    "LightGCN",
    "He et al., SIGIR 2020",
    conclude="Which liked films the score is made of, an exact split with all embeddings held, and how like the "
    "recommended one each is: the two go together here.",
    beware="What the score would be without a like: then neighbours share differently, as the last line says. Nor "
    "that a similar film is a reason; the split is, and it counts how much the user hears of each.",
)
def liked() -> Finding:
    """Because you liked these: an exact split of the score of a film that the user has not seen."""
    likes, users, user = taste(), 12, 0
    net = lightgcn.train(lightgcn.LightGCN(users + len(FILMS), 8, 2), likes, users, seed=0)
    both = torch.cat([likes, likes.flip(0)], 1)
    unseen = [item for item in range(users, users + len(FILMS)) if item not in likes[1][likes[0] == user]]
    with torch.no_grad():
        scores, z = net(both, torch.tensor([[user] * len(unseen), unseen])), net.embeddings(both)
    best = unseen[int(scores.argmax())]
    found, near = because(net, both, user, best), dict(similar(z, best, len(FILMS), torch.arange(users, len(z))))
    players = explain.Players("items", found.items, tuple(FILMS[i] for i in (found.items - users).tolist()))
    target = {"model": "LightGCN", "payoff": "score"}
    why = explain.Explanation(found.parts, players, found.score, found.own, method="Because you liked", target=target)
    most, alike = int(found.removed.argmax()), torch.tensor([near[item] for item in found.items.tolist()])
    return Finding.of(
        why,
        f"Because of which films that this user liked is {FILMS[best - users]} recommended, and how like it are they?",
        "score, the product of two embeddings",
        beside_likeness(why, alike, FILMS[best - users]),
        by_hand=held("own part and likes", "the network's own call", scores.max(), found.own + found.parts.sum()),
        likeness=held("the cosines", "the embeddings", torch.cosine_similarity(z[found.items], z[best, None]), alike),
        like_deleted=f"the score falls most, by {found.removed[most]:.3g}, without the like of {players.names[most]}",
    )


def taste() -> Tensor:
    """Who likes what, ``[2, likes]``: twelve users, every other one fond of westerns, and some of anything."""
    users, generator = 12, torch.Generator().manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(users), torch.arange(len(FILMS)))
    liked = (pairs[:, 0] % 2 == pairs[:, 1] // 4) & (torch.rand(len(pairs), generator=generator) < 0.7)
    liked |= torch.rand(len(pairs), generator=generator) < 0.1
    return pairs[liked].T + torch.tensor([[0], [users]])


def beside_likeness(why: explain.Explanation, alike: Tensor, best: str) -> Figure:
    """Parts of a score, and beside each how like the recommended item it is."""
    figure, (parts, likeness) = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=(3, 2), layout="constrained")
    explain.plot.bars(why, parts, k=len(alike))
    likeness.barh(range(len(alike)), alike[why.order()].tolist(), height=0.7, color=FAINT)
    likeness.set_yticks([])
    likeness.set(xlim=(min(0.0, float(alike.min())), 1), ylim=parts.get_ylim(), xlabel=f"cosine with {best}")
    likeness.spines[["top", "right"]].set_visible(False)
    return figure
