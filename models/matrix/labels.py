"""Representatives that denoise the labels on a graph: a step, and runs by the equations of the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import Data

import explain
from explain.graph_diffusion.model import LabelDiffusionModel
from explain.types import Players
from models.dpm_snc import DPMSNC, cosine_betas
from models.ladder import ladder
from models.matrix.case import Case, Smooth, Training
from models.matrix.graphs import flat, stirred

RUNS = 2
LEVELS = 3  # draws of step and noise that training states are measured with
NODE, STEP = 4, 2
TRAINED = torch.tensor([[0, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0], [1, 0, 0, 1, 0, 1], [0, 0, 1, 0, 1, 1]])


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


def _ladder() -> tuple[DPMSNC, Data, Tensor, LabelDiffusionModel]:
    """A DPM-SNC on a ladder of three rungs, one way along each, and its question's model."""
    data, betas = ladder(3, 0.5, seed=1), cosine_betas(4)
    data.x = torch.randn(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    data.edge_index = data.edge_index[:, ::2]
    net = DPMSNC(2, 2, hidden=4, layers=1)
    stirred(net, 0.2)
    net.time.requires_grad_(False)  # 17,000 of its parameters, whose Hessian nobody could write down
    trained = {"loss": "known_and_others", "weight_decay": 0.1, "draws": LEVELS}
    model = explain.wrap(net, data, betas=betas, time="step", prediction_type="epsilon", scale="0/1", **trained)
    return net, data, betas, model


def _without(data: Data, gone: Tensor) -> Tensor:
    """The edges between other nodes."""
    return data.edge_index[:, ~torch.isin(data.edge_index, gone).any(0)]


def _left(data: Data, gone: Tensor) -> Tensor:
    """The other edges."""
    return data.edge_index[:, torch.ones(data.num_edges).bool().index_fill(0, gone, False)]


def labels_step() -> Case:
    """A step of a DPM-SNC: ``y0_hat`` of a node's class; an absent label says nothing, under the same noise."""
    net, data, betas, model = _ladder()
    target, (theta, back) = model.step(data.y, t=STEP, node=NODE, label=0, draws=RUNS, seed=0), flat(net)
    kept, Y, x = (1 - betas).cumprod(0), F.one_hot(data.y, 2).double(), data.x
    noise = torch.randn(RUNS, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def answer(theta: Tensor, x: Tensor, y: Tensor, t: int, edge_index: Tensor) -> Tensor:
        return functional_call(net, back(theta), (x, y, torch.full((1,), t), edge_index))

    def foreseen(theta: Tensor = theta, x: Tensor = x, edge_index: Tensor = data.edge_index, Y: Tensor = Y) -> Tensor:
        a, s = kept[STEP].sqrt(), (1 - kept[STEP]).sqrt()
        rows = [a * Y + s * e for e in noise]
        found = [(y - s * answer(theta, x, y, STEP, edge_index)) / a for y in rows]
        return torch.stack(found)[:, NODE, 0].mean()

    def nodes(players: Players, there: Tensor) -> Tensor:
        gone = players.index[~there]
        return foreseen(x=x.index_fill(0, gone, 0.0), edge_index=_without(data, gone))

    def losses(theta: Tensor) -> Tensor:
        noise = torch.randn(LEVELS, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = []
        for level, e in enumerate(noise):
            t = int((level + 0.5) / LEVELS * len(betas))
            rows = [kept[t].sqrt() * F.one_hot(own, 2) + (1 - kept[t]).sqrt() * e for own in TRAINED]
            missed = torch.stack([answer(theta, x, y, t, data.edge_index) - e for y in rows]).square().mean(2)
            found.append(missed[:, data.train_mask].mean(1) + missed[:, ~data.train_mask].mean(1))
        return torch.stack(found).mean(0)

    def of_features(players: Players) -> Smooth:
        return Smooth(x, torch.zeros_like(x), players.index.expand_as(x), lambda x: foreseen(x=x))

    answers = {
        "labels": lambda players, there: foreseen(Y=Y.index_fill(0, players.index[~there], 0.5)),
        "nodes": nodes,
        "edges": lambda players, there: foreseen(edge_index=_left(data, players.index[~there])),
        "features": lambda players, there: foreseen(x=x.index_fill(1, players.index[~there], 0.0)),
    }
    training = Training(theta, losses, foreseen, 0.1, train=TRAINED)
    return Case(target, answers, {"features": of_features}, training=training)


def labels() -> Case:
    """Runs of a DPM-SNC on a ladder: how surely a node ends as its class."""
    net, data, betas, model = _ladder()
    node, x, target = NODE, data.x, model.trajectory(NODE, 0, draws=RUNS, payoff="state")
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
        return ends(x.index_fill(0, gone, 0.0), _without(data, gone), known=data.train_mask.index_fill(0, gone, False))

    def edges(players: Players, there: Tensor) -> Tensor:
        return ends(edge_index=_left(data, players.index[~there]))

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
