"""Representatives whose state is a graph, labels on one, or tokens: each sampling loop from its paper's equation."""

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
from explain.types import Players
from models.digress import DiGress
from models.dpm_snc import DPMSNC, cosine_betas
from models.ladder import ladder
from models.matrix.case import Case, Smooth, Training
from models.matrix.denoisers import OTHER
from models.matrix.graphs import flat, stirred

RUNS = 2


# --- labels on a graph ---


def labelled_run(
    net: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    Y: Tensor,
    known: Tensor,
    betas: Tensor,
    seed: int,
    looks: Tensor,
    corrected: Tensor,
) -> Tensor:
    """``y_0 [n, C]`` of one manifold-constrained run of DPM-SNC (Jang et al. 2023), with derivatives through all of it.

    Each step takes the ancestral mean and noise, and ``-grad_y log |Y_L - y0_hat_L|^2``; the known rows are then those
    of ``Y_L`` noised to the step that was reached. Where a step does not look, the labels foreseen before are held to.
    """
    kept, generator = (1 - betas).cumprod(0), torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(Y.shape, generator=generator, dtype=torch.float64)

    y, held = noise(), torch.full_like(Y, 1 / Y.size(1))
    for step, t in enumerate(range(len(betas) - 1, -1, -1)):
        with torch.enable_grad():
            y = y if y.requires_grad else y.requires_grad_()
            seen = (y - (1 - kept[t]).sqrt() * net(x, y, torch.full((1,), t), edge_index)) / kept[t].sqrt()
            held = seen if looks[step] else held
            e = (y - kept[t].sqrt() * held) / (1 - kept[t]).sqrt()
            after = (y - betas[t] / (1 - kept[t]).sqrt() * e) / (1 - betas[t]).sqrt()
            after = after + (t > 0) * betas[t].sqrt() * noise()
            distance = (Y - seen)[known].square().sum()
            if t and looks[step] and corrected[step] and distance > 1e-4 * known.sum():
                after = after - torch.autograd.grad(distance.log(), y, create_graph=True)[0]
            reached = kept[t - 1] if t else torch.ones_like(kept[0])
            y = torch.where(known[:, None], reached.sqrt() * Y + (1 - reached).sqrt() * noise(), after)
    return y


def labels() -> Case:
    """Runs of a DPM-SNC on a ladder: how surely a node ends as its class."""
    data, betas, node = ladder(3, 0.5, seed=1), cosine_betas(4), 4
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    data.x, data.edge_index = x, data.edge_index[:, ::2]
    net = stirred(DPMSNC(2, 2, hidden=4, layers=1), 0.2)
    model = explain.wrap(net, data, betas=betas, time="step", prediction_type="epsilon", scale="0/1")
    target = model.trajectory(node, 0, draws=RUNS, payoff="state")
    Y, every = F.one_hot(data.y, 2).double(), torch.ones(len(betas), dtype=torch.bool)

    def ends(
        x: Tensor = x,
        edge_index: Tensor = data.edge_index,
        Y: Tensor = Y,
        known: Tensor = data.train_mask,
        looks: Tensor = every,
        corrected: Tensor = every,
    ) -> Tensor:
        runs = [labelled_run(net, x, edge_index, Y, known, betas, seed, looks, corrected) for seed in range(RUNS)]
        return torch.stack(runs)[:, node, 0].mean()

    def known_labels(players: Players, there: Tensor) -> Tensor:
        return ends(known=data.train_mask.index_fill(0, players.index[~there], False))

    def nodes(players: Players, there: Tensor) -> Tensor:
        gone = players.index[~there]
        links = data.edge_index[:, ~torch.isin(data.edge_index, gone).any(0)]
        return ends(x.index_fill(0, gone, 0.0), links, known=data.train_mask.index_fill(0, gone, False))

    def edges(players: Players, there: Tensor) -> Tensor:
        return ends(
            edge_index=data.edge_index[:, torch.ones(data.num_edges).bool().index_fill(0, players.index[~there], False)]
        )

    def features(players: Players, there: Tensor) -> Tensor:
        return ends(x.index_fill(1, players.index[~there], 0.0))

    def of_labels(players: Players) -> Smooth:
        owner = torch.full((6, 1), -1)
        owner[players.index, 0] = torch.arange(len(players))
        return Smooth(Y, torch.where(owner >= 0, 0.5, Y), owner.expand_as(Y), lambda Y: ends(Y=Y))

    def of_features(players: Players) -> Smooth:
        return Smooth(x, torch.zeros_like(x), players.index.expand_as(x), ends)

    answers = {
        "known_labels": known_labels,
        "nodes": nodes,
        "edges": edges,
        "features": features,
        "steps": lambda _, there: ends(looks=there),
        "guidance": lambda _, there: ends(corrected=there),
    }
    return Case(target, answers, {"known_labels": of_labels, "features": of_features})


# --- classes that are drawn ---


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


LEVELS = 3  # draws of step and noise that the training graphs are measured with
TRAINED = torch.stack([GRAPH, 1 - GRAPH - torch.eye(4).long(), GRAPH.roll((1, 1), (0, 1)).triu(2)])
TRAINED = (TRAINED | TRAINED.mT).long()


def _digress() -> tuple[nn.Module, GraphDiffusionModel]:
    net = stirred(DiGress(len(KEPT), nodes=4, edges=3, whole=3, layers=1), 0.2)
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

    training = Training(theta, losses, lambda theta: asked(theta, torch.ones(4, 4).bool()), 0.1, train=TRAINED)
    return Case(target, dict.fromkeys(("pairs", "edges", "nodes"), number), training=training)


def linked(pairs: Tensor) -> Tensor:
    """What runs are asked about: edges, weighted by place."""
    weights = torch.arange(16).view(4, 4).triu(1).double()
    return ((pairs > 0) * weights).sum((1, 2))


def pairs_run() -> Case:
    """Runs of DiGress: what the graphs look like that they end in."""
    net, model = _digress()
    target, T = model.trajectory(4, payoff=linked, draws=RUNS, seed=0), len(KEPT)

    def ends(held: Tensor, looks: Tensor) -> Tensor:
        found = []
        for seed in range(RUNS):
            generator = torch.Generator().manual_seed(seed)
            other = _pairs(torch.Generator().manual_seed((0 ^ OTHER) + seed))
            start = torch.where(held[..., None], _pairs(generator), other)
            state, p = _whole(drawn(LIMIT.expand(4, 4, 2), start)), LIMIT.expand(4, 4, 2)
            for step, t in enumerate(range(T, 0, -1)):
                if looks[step]:
                    with torch.no_grad():
                        p = net(state[None], torch.tensor([t])).softmax(-1)[0]
                before = torch.einsum("ijx,ijk,xks->ijs", state, p, undone(KEPT, LIMIT, t))
                state = _whole(drawn(before, _pairs(generator)))
            found.append(linked(state.argmax(-1)[None])[0])
        return torch.stack(found).mean()

    def entries(players: Players, there: Tensor) -> Tensor:
        return ends(_held(players, there), torch.ones(T, dtype=torch.bool))

    everybody = torch.ones(4, 4, dtype=torch.bool)
    return Case(target, {"steps": lambda _, there: ends(everybody, there), "pairs": entries, "nodes": entries})


TOKENS, CLASSES, MASK, PLACE = torch.tensor([0, 2, 1, 2, 0]), 4, 3, 2
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
    return net, explain.wrap(net, line, process=Categorical(KEPT, ABSORBED), time="step", rule="joint", classes=CLASSES)


def _rows(maps: list[Tensor]) -> dict[str, Callable[[Players], Tensor]]:
    """What the token looked at, one map a call: halves of them and of itself from the last to the first, and means."""
    reach = F.one_hot(torch.tensor(PLACE), 5).double()
    for weights in reversed(maps):
        reach = (reach + reach @ weights) / 2
    rows = {"rollout": reach, "mean": torch.stack(maps)[:, PLACE].mean(0), "last": maps[-1][PLACE]}
    return {name: partial(_shares, row) for name, row in rows.items()}


def _shares(row: Tensor, players: Players) -> Tensor:
    return row[players.index]


def tokens_step() -> Case:
    """A step of an absorbing D3PM (Austin et al. 2021): ``log p`` of a token; others are masked."""
    net, model = _tokens()
    target, t = model.step(t=2, node=PLACE, label=1, draws=RUNS, seed=0), 2
    noise = torch.rand(RUNS, 5, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noised = drawn(turned(KEPT, ABSORBED, t)[TOKENS], noise)

    @torch.no_grad()
    def tokens(players: Players, there: Tensor) -> Tensor:
        held = torch.zeros(5, dtype=torch.bool).index_fill(0, players.index[there], True)
        rows = [net(torch.where(held[:, None], row, ABSORBED), torch.tensor([t])) for row in noised]
        return torch.stack(rows).log_softmax(-1)[:, PLACE, 1].mean()

    first = net.looked(noised[0], torch.tensor([t]))[1][0].detach()
    return Case(target, {"labels": tokens}, looked=_rows([first]))


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
    looked = _rows(ended(GIVEN, every, 0)[1])
    del looked["rollout"]  # steps look at states that were drawn, and not at one another
    return Case(target, answers, looked=looked)


STATES: dict[str, Callable[[], Case]] = {
    "DPM-SNC run": labels,
    "DiGress step": pairs_step,
    "DiGress run": pairs_run,
    "D3PM step": tokens_step,
    "D3PM run": tokens_run,
}
