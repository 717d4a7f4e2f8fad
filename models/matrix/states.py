"""Representatives whose state is a graph or tokens, drawn class by class: each loop from its paper's equation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

import explain
from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.graph_model import GraphDiffusionModel
from explain.graph_diffusion.graph_states import GraphNoise
from explain.graph_diffusion.model import LabelDiffusionModel
from explain.types import Players, Target
from models.digress import ConditionalDiGress, DiGress, Layer
from models.matrix.case import Case, Training
from models.matrix.denoisers import OTHER
from models.matrix.graphs import flat, stirred
from models.matrix.labels import LEVELS, RUNS, labels, labels_step


def turned(kept: Tensor, limit: Tensor, t: int) -> Tensor:
    """``q(x_t | x_0)``, row by row, ``[K, K]``: kept with ``a_t``, else drawn from the limit."""
    a = kept[t - 1] if t else torch.ones(()).double()
    return a * torch.eye(len(limit)).double() + (1 - a) * limit


def undone(kept: Tensor, limit: Tensor, t: int) -> Tensor:
    """``q(x_{t-1} | x_t, x_0)`` by Bayes' rule, ``[x_t, x_0, x_{t-1}]``."""
    one = (kept[t - 1] / kept[t - 2]) if t > 1 else kept[0]
    single = one * torch.eye(len(limit)).double() + (1 - one) * limit
    joint = turned(kept, limit, t - 1)[None] * single.T[:, None, :]
    return joint / joint.sum(-1, keepdim=True).clamp_min(1e-300)


def drawn(p: Tensor, uniform: Tensor) -> Tensor:
    """The class that Gumbel noise picks, one-hot."""
    return F.one_hot((p.log() - (-uniform.log()).log()).argmax(-1), p.size(-1)).double()


GRAPH = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]])
LIMIT, KEPT = torch.tensor([0.6, 0.4]).double(), torch.tensor([0.8, 0.6, 0.4, 0.2]).double()


def _pairs(generator: torch.Generator) -> Tensor:
    """Uniform noise of each pair of four nodes ``[4, 4, 2]``, the same both ways."""
    torch.rand(1, 4, 1, generator=generator, dtype=torch.float64)  # of the nodes, that are all alike
    found = torch.rand(4, 4, 2, generator=generator, dtype=torch.float64)
    return torch.where(torch.ones(4, 4).triu(1).bool()[..., None], found, found.transpose(0, 1))


def _whole(pairs: Tensor) -> Tensor:
    """Nobody is joined to itself."""
    return torch.where(torch.eye(4).bool()[..., None], torch.tensor([1.0, 0.0]).double(), pairs)


def _held(players: Players, there: Tensor) -> Tensor:
    """Which pairs are there, bool ``[4, 4]``."""
    held = torch.ones(4, 4, dtype=torch.bool)
    for own in players.index[~there]:
        if players.kind == "nodes":
            held[own] = held[:, own] = False
        else:
            held[own[0], own[1]] = held[own[1], own[0]] = False
    return held


TRAINED = torch.stack([GRAPH, 1 - GRAPH - torch.eye(4).long(), GRAPH.roll((1, 1), (0, 1)).triu(2)])
TRAINED = (TRAINED | TRAINED.mT).long()


def _digress() -> tuple[DiGress, GraphDiffusionModel]:
    net = DiGress(len(KEPT), nodes=4, edges=3, whole=3, layers=1)
    stirred(net, 0.2)
    noise = GraphNoise(Categorical(KEPT, LIMIT))
    return net, explain.wrap(net, process=noise, time="step", loss="graphs", weight_decay=0.1, draws=LEVELS)


def pairs_step() -> Case:
    """A step of DiGress: ``log p`` of a pair of the clean graph, with other pairs drawn from the limit."""
    net, model = _digress()
    target, (theta, back) = model.step(GRAPH, t=2, edge=(0, 1), draws=RUNS, seed=0), flat(net)
    off = ~torch.eye(4, dtype=torch.bool)

    def log_p(theta: Tensor, state: Tensor, t: int) -> Tensor:
        return functional_call(net, back(theta), (_whole(state)[None], torch.tensor([t])))[0].log_softmax(-1)

    def asked(theta: Tensor, held: Tensor) -> Tensor:
        generator, found = torch.Generator().manual_seed(0), []
        for _ in range(RUNS):
            noise, other = _pairs(generator), _pairs(generator)
            noised = drawn(turned(KEPT, LIMIT, 2)[GRAPH], noise)
            state = torch.where(held[..., None], noised, drawn(LIMIT.expand(4, 4, 2), other))
            found.append(log_p(theta, state, 2)[0, 1, 1])
        return torch.stack(found).mean()

    @torch.no_grad()
    def number(players: Players, there: Tensor) -> Tensor:
        return asked(theta, _held(players, there))

    def losses(theta: Tensor) -> Tensor:
        generator, found = torch.Generator().manual_seed(0), []
        for level in range(LEVELS):
            t, noise = int((level + 0.5) / LEVELS * len(KEPT)) + 1, _pairs(generator)
            rows = [log_p(theta, drawn(turned(KEPT, LIMIT, t)[graph], noise), t) for graph in TRAINED]
            found.append(-torch.stack(rows).gather(3, TRAINED[..., None])[..., 0][:, off].mean(1))
        return torch.stack(found).mean(0)

    def shares(noised: Tensor) -> Tensor:
        """What each node looks at in the only layer, a mean over its channels."""
        met: list[tuple[Tensor, ...]] = []
        layer = net.layers[0]
        assert isinstance(layer, Layer)
        with layer.register_forward_pre_hook(lambda _, given: met.append(given)), torch.no_grad():
            net(noised[None], torch.tensor([2]))
            x, e = met[0][:2]
            scores = layer.q(x)[:, :, None] * layer.k(x)[:, None] / x.size(-1) ** 0.5
            return (scores * (1 + layer.scale(e)) + layer.shift(e)).softmax(2)[0].mean(-1)

    generator, looked = torch.Generator().manual_seed(0), []
    for _ in range(RUNS):
        looked.append([shares(_whole(drawn(turned(KEPT, LIMIT, 2)[GRAPH], _pairs(generator))))])
        _pairs(generator)
    training = Training(theta, losses, lambda theta: asked(theta, torch.ones(4, 4).bool()), 0.1, train=TRAINED)
    ends = torch.tensor([0.5, 0.5, 0.0, 0.0]).double()
    return Case(
        target, dict.fromkeys(("pairs", "edges", "nodes"), number), training=training, looked=_rows(looked, ends)
    )


def linked(pairs: Tensor) -> Tensor:
    """What runs are asked about: edges, weighted by place."""
    weights = torch.arange(16).view(4, 4).triu(1).double()
    return ((pairs > 0) * weights).sum((1, 2))


Foreseen = Callable[[Tensor, int, bool, bool], Tensor]  # pairs, t, guided there, told at all -> p of the clean pairs


def pairs_run() -> Case:
    """Runs of DiGress: what the graphs look like that they end in."""
    net, model = _digress()
    target = model.trajectory(4, payoff=linked, draws=RUNS, seed=0)
    return _run(target, lambda state, t, *_: net(state[None], torch.tensor([t])).softmax(-1)[0])


def guided_run() -> Case:
    """Runs of a DiGress that is told a class, with guidance of weight 3 (Ho and Salimans 2021)."""
    net = ConditionalDiGress(2, len(KEPT), nodes=4, edges=3, whole=3, layers=1)
    stirred(net, 0.3)
    model = explain.wrap(net, process=GraphNoise(Categorical(KEPT, LIMIT)), time="step", null=net.null)
    target = model.trajectory(4, payoff=linked, condition=1, guidance=3.0, draws=RUNS, seed=0)

    def foreseen(state: Tensor, t: int, guided: bool, told: bool) -> Tensor:
        u, c = (net(state[None], torch.tensor([t]), None, torch.tensor([kind]))[0] for kind in (2, 1 if told else 2))
        return (u + (3.0 if guided else 1.0) * (c - u)).softmax(-1)

    return _run(target, foreseen, told=True)


def _run(target: Target, foreseen: Foreseen, told: bool = False) -> Case:
    """Every player of runs, by the sampling loop."""
    T = len(KEPT)
    every, whole = torch.ones(T, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)

    @torch.no_grad()
    def ends(held: Tensor = whole, looks: Tensor = every, guided: Tensor = every, told: bool = True) -> Tensor:
        found = []
        for seed in range(RUNS):
            generator = torch.Generator().manual_seed(seed)
            other = _pairs(torch.Generator().manual_seed((0 ^ OTHER) + seed))
            start = torch.where(held[..., None], _pairs(generator), other)
            state, p = _whole(drawn(LIMIT.expand(4, 4, 2), start)), LIMIT.expand(4, 4, 2)
            for step, t in enumerate(range(T, 0, -1)):
                if looks[step]:
                    p = foreseen(state, t, bool(guided[step]), told)
                before = torch.einsum("ijx,ijk,xks->ijs", state, p, undone(KEPT, LIMIT, t))
                state = _whole(drawn(before, _pairs(generator)))
            found.append(linked(state.argmax(-1)[None])[0])
        return torch.stack(found).mean()

    answers = {
        "steps": lambda _, there: ends(looks=there),
        "pairs": lambda players, there: ends(_held(players, there)),
        "nodes": lambda players, there: ends(_held(players, there)),
    }
    if told:
        answers |= {
            "guidance": lambda _, there: ends(guided=there),
            "conditions": lambda _, there: ends(told=bool(there)),
        }
    return Case(target, answers)


TOKENS, CLASSES, MASK, PLACE = torch.tensor([0, 2, 1, 2, 0]), 4, 3, 2
SEQUENCES = torch.tensor([[0, 2, 1, 2, 0], [1, 1, 0, 2, 2], [2, 0, 1, 0, 1]])
GIVEN, ABSORBED = torch.tensor([True, False, False, True, False]), F.one_hot(torch.tensor(MASK), CLASSES).double()


class _Reader(nn.Module):
    """Logits of each of five tokens, by attention on all of them and their places."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.time = nn.Parameter(torch.randn(5, 4)), nn.Linear(1, 4)
        self.into, self.attention, self.out = nn.Linear(CLASSES, 4), nn.Linear(4, 12), nn.Linear(4, CLASSES)

    def looked(self, y_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The state of each token, the weights ``[.., 5, 5]`` and what is summed with them."""
        h = self.into(y_t.view(-1, 5, CLASSES)) + self.places + self.time(t.view(-1)[:1, None].to(y_t))
        q, k, v = self.attention(h).chunk(3, -1)
        return h, (q @ k.mT / 2).softmax(-1), v

    def forward(self, y_t: Tensor, t: Tensor) -> Tensor:
        h, weights, v = self.looked(y_t, t)
        return self.out(h + 8 * (weights @ v)).reshape(-1, CLASSES)


def _tokens() -> tuple[_Reader, LabelDiffusionModel]:
    net = _Reader()
    stirred(net, 0.2)
    line = Data(edge_index=torch.empty(2, 0, dtype=torch.long), y=TOKENS, train_mask=GIVEN, num_nodes=5)
    process, trained = Categorical(KEPT, ABSORBED), {"loss": "nodes", "weight_decay": 0.1, "draws": LEVELS}
    return net, explain.wrap(net, line, process=process, time="step", rule="joint", classes=CLASSES, **trained)


def _rows(draws: list[list[Tensor]], start: Tensor) -> dict[str, Callable[[Players], Tensor]]:
    """What those that are asked about looked at, one map a call, a mean over draws: halves of them and of themselves
    from the last to the first, and means.
    """
    reaches = []
    for maps in draws:
        reach = start
        for weights in reversed(maps):
            reach = (reach + reach @ weights) / 2
        reaches.append(reach)
    rows = {
        "rollout": torch.stack(reaches).mean(0),
        "mean": torch.stack([start @ torch.stack(maps).mean(0) for maps in draws]).mean(0),
        "last": torch.stack([start @ maps[-1] for maps in draws]).mean(0),
    }
    return {name: partial(_shares, row) for name, row in rows.items()}


def _shares(row: Tensor, players: Players) -> Tensor:
    return row[players.index]


def tokens_step() -> Case:
    """A step of an absorbing D3PM (Austin et al. 2021): ``log p`` of a token; others are masked."""
    net, model = _tokens()
    target, t = model.step(t=2, node=PLACE, label=1, draws=RUNS, seed=0), 2
    noise = torch.rand(RUNS, 5, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noised = drawn(turned(KEPT, ABSORBED, t)[TOKENS], noise)

    theta, back = flat(net)

    def log_p(theta: Tensor, row: Tensor, t: int) -> Tensor:
        return functional_call(net, back(theta), (row, torch.tensor([t]))).log_softmax(-1)

    def asked(theta: Tensor, held: Tensor) -> Tensor:
        rows = [log_p(theta, torch.where(held[:, None], row, ABSORBED), t) for row in noised]
        return torch.stack(rows)[:, PLACE, 1].mean()

    @torch.no_grad()
    def tokens(players: Players, there: Tensor) -> Tensor:
        return asked(theta, torch.zeros(5, dtype=torch.bool).index_fill(0, players.index[there], True))

    def losses(theta: Tensor) -> Tensor:
        drawn_anew = torch.rand(LEVELS, 5, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = []
        for level, uniform in enumerate(drawn_anew):
            at = int((level + 0.5) / LEVELS * len(KEPT)) + 1
            rows = [log_p(theta, drawn(turned(KEPT, ABSORBED, at)[own], uniform), at) for own in SEQUENCES]
            found.append(-torch.stack(rows).gather(2, SEQUENCES[..., None])[..., 0].mean(1))
        return torch.stack(found).mean(0)

    training = Training(
        theta, losses, lambda theta: asked(theta, torch.ones(5, dtype=torch.bool)), 0.1, train=SEQUENCES
    )
    looked = [[net.looked(row, torch.tensor([t]))[1][0].detach()] for row in noised]
    return Case(target, {"labels": tokens}, looked=_rows(looked, _place()), training=training)


def _place() -> Tensor:
    return F.one_hot(torch.tensor(PLACE), 5).double()


def tokens_run() -> Case:
    """Runs of an absorbing D3PM around tokens that are given: the share that ends as a class."""
    (net, model), draws, label = _tokens(), 16, 0
    target, Y = model.trajectory(PLACE, label, draws=draws, seed=0), F.one_hot(TOKENS, CLASSES).double()
    every = torch.ones(len(KEPT), dtype=torch.bool)

    @torch.no_grad()
    def ended(known: Tensor, looks: Tensor, seed: int) -> tuple[Tensor, list[Tensor]]:
        generator, maps = torch.Generator().manual_seed(seed), []

        def noise() -> Tensor:
            return torch.rand(5, CLASSES, generator=generator, dtype=torch.float64)

        y, p = drawn(ABSORBED.expand(5, CLASSES), noise()), ABSORBED.expand(5, CLASSES)
        for step, t in enumerate(range(len(KEPT), 0, -1)):
            if looks[step]:
                p = net(y, torch.tensor([t])).softmax(-1)
                maps.append(net.looked(y, torch.tensor([t]))[1][0])
            joint = torch.einsum("nx,nk,kx,xks->ns", y, p, turned(KEPT, ABSORBED, t), undone(KEPT, ABSORBED, t))
            after = drawn(joint / joint.sum(-1, keepdim=True).clamp_min(1e-300), noise())
            y = torch.where(known[:, None], drawn(Y @ turned(KEPT, ABSORBED, t - 1), noise()), after)
        return y, maps

    def share(known: Tensor, looks: Tensor) -> Tensor:
        return torch.stack([ended(known, looks, seed)[0][PLACE, label] for seed in range(draws)]).mean()

    def known_labels(players: Players, there: Tensor) -> Tensor:
        return share(GIVEN.index_fill(0, players.index[~there], False), every)

    answers = {"known_labels": known_labels, "steps": lambda _, there: share(GIVEN, there)}
    looked = _rows([ended(GIVEN, every, seed)[1] for seed in range(draws)], _place())
    del looked["rollout"]  # steps look at states that were drawn, and not at one another
    return Case(target, answers, looked=looked)


STATES: dict[str, Callable[[], Case]] = {
    "DPM-SNC step": labels_step,
    "DPM-SNC run": labels,
    "DiGress step": pairs_step,
    "DiGress run": pairs_run,
    "guided DiGress run": guided_run,
    "D3PM step": tokens_step,
    "D3PM run": tokens_run,
}
