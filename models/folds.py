"""Networks for graphs, each trained on all folds of a data set but one and tested on that."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from explain.guard import random_states_kept
from models import checkpoints, motif_nets
from models.checkpoints import Trained
from models.motif_nets import Schedule, fit, share_right
from models.splits import folds


def without_fold(
    kind: type[nn.Module],
    graphs: list[Data],
    fold: int,
    schedule: Schedule,
    *,
    count: int = 10,
    seed: int = 0,
    fresh: bool = False,
    **sizes: Any,
) -> Trained:
    """``kind(features, classes, **sizes)`` trained on the graphs outside of a fold; ``facts["test_accuracy"]`` in it.

    The epochs are those of the schedule: no graph of the fold chooses anything.

    Args:
        kind: a network asked as ``net(x, edge_index, batch)``.
        graphs: with one label ``y`` each.
        fold: from 0 to ``count - 1``; classes are spread evenly.
        schedule: how long, how fast.
        count: of folds.
        seed: of the folds, the first weights and the batches.
        fresh: trains in any case.
        sizes: of the network.
    """
    labels = torch.stack([graph.y.view(-1)[0] for graph in graphs])
    held = folds(labels, seed, count) == fold
    inside, outside = (
        [g for g, here in zip(graphs, held.tolist(), strict=True) if here is part] for part in (True, False)
    )
    with random_states_kept():
        torch.manual_seed(seed)
        net = kind(graphs[0].num_features, int(labels.max()) + 1, **sizes)
    code = [inspect.getsource(sys.modules[name]) for name in (kind.__module__, motif_nets.__name__, __name__)]
    config = {
        "model": kind.__name__,
        "sizes": sizes,
        "data": checkpoints.digest(*(t.numpy().tobytes() for g in graphs for t in (g.x, g.edge_index, g.y))),
        "fold": [fold, count],
        "schedule": asdict(schedule),
        "seed": seed,
        "code": checkpoints.digest("".join(code).encode()),
        "torch": torch.__version__,
    }

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        fit(net, outside, schedule, seed)
        return net.state_dict(), {"test_accuracy": share_right(net, inside), "tested": len(inside)}

    found = checkpoints.kept(f"{kind.__name__}-fold{fold}", config, make, fresh=fresh)
    net.load_state_dict(found.state)
    return Trained(net.eval(), found.facts, found.cached)
