"""The networks and graphs of the table, each part kept on disk once it is done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import explain
from explain import Players
from explain.guard import random_states_kept
from models.checkpoints import kept
from models.datasets import cora, karate_club
from models.removal.minima import Training
from models.removal.networks import Sgc, SmoothGcn
from models.removal.study import Chosen, Row, some, study


@dataclass(frozen=True)
class Experiment:
    """One network and what is removed around some explained nodes.

    Args:
        name: in the table.
        data: makes the graph, float64.
        weight_decay: of the trained loss.
        nodes: the explained ones.
        hidden: units of a `SmoothGcn`; 0 for a `Sgc`.
        removals: of each kind and explained node, half of them within its sight; None for all there are.
        added: edges.
        newton: with a Newton step for each removal.
    """

    name: str
    data: Callable[[], Data]
    weight_decay: float
    nodes: tuple[int, ...]
    hidden: int = 0
    removals: int | None = None
    added: int = 100
    newton: bool = True

    def run(self, kind: str, **other: Any) -> Row:
        """The line of the table for "nodes", "edges" or "added" edges; ``other`` settings of this experiment."""
        asked = dataclasses.replace(self, **other)
        data, net = _trained(asked.data, asked.weight_decay, asked.hidden)
        choose = _sample(asked.removals) if asked.removals else lambda everyone, near: everyone
        training = _training(data, asked.weight_decay)
        return study(
            asked.name, net, training, asked.nodes, kind, choose=choose, added=asked.added, newton=asked.newton
        )

    def kept(self, kind: str, *, fresh: bool = False) -> Row:
        """The same from the cache (`models.checkpoints`), as long as the code that it comes from is what it was."""
        settings = dataclasses.asdict(self) | {"data": self.data.__name__}
        config = {"settings": settings, "kind": kind, "code": _code(), "torch": torch.__version__}

        def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
            return {}, {"row": dataclasses.asdict(self.run(kind))}

        name = f"removal-{self.name.replace(' ', '-')}-{kind}"
        return Row(**kept(name, config, make, fresh=fresh).facts["row"])


def _code() -> str:
    folders = [Path(__file__).parent, *(Path(explain.__file__).parent / part for part in ("graph", "influence"))]
    return hashlib.sha256(b"".join(p.read_bytes() for f in folders for p in sorted(f.rglob("*.py")))).hexdigest()


def _training(data: Data, weight_decay: float) -> Training:
    return Training(data, weight_decay, int(data.train_mask.sum()))


@lru_cache(maxsize=4)
def _trained(make: Callable[[], Data], weight_decay: float, hidden: int) -> tuple[Data, nn.Module]:
    data = make()
    classes = int(data.y.max()) + 1
    with random_states_kept():
        torch.manual_seed(0)
        net = SmoothGcn(data.num_features, classes, hidden) if hidden else Sgc(data.num_features, classes)
    return data, _training(data, weight_decay).to_minimum(net.double(), first=2000 if hidden else 0)


def _sample(removals: int) -> Chosen:
    """Half of them from the players that the number can see, half from the others."""
    generator = torch.Generator().manual_seed(0)

    def choose(everyone: Players, near: Players) -> Players:
        inside = torch.isin(everyone.index, near.index)
        halves = [part.nonzero().view(-1) for part in (inside, ~inside)]
        drawn = [half[torch.randperm(len(half), generator=generator)[: removals // 2]] for half in halves]
        return some(everyone, torch.cat(drawn).sort().values)

    return choose


def four_labels() -> Data:
    """The karate club, four members of each community labelled."""
    return _club(4)


def two_labels() -> Data:
    """The karate club, two members of each community labelled."""
    return _club(2)


def _club(labelled: int) -> Data:
    data = karate_club(labelled=labelled)
    data.x = data.x.double()
    return data


def blocks(size: int = 100, labelled: int = 30, seed: int = 0) -> Data:
    """Three communities whose members are linked five times as often as others, with noisy features (Holland 1983)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(3).repeat_interleave(size)
    chance = torch.where(y[:, None] == y, 0.03, 0.006)
    linked = (torch.rand(3 * size, 3 * size, generator=generator) < chance).triu(1)
    pairs = linked.nonzero().T
    x = torch.randn(3, 8, generator=generator)[y] + 2 * torch.randn(3 * size, 8, generator=generator)
    train = torch.arange(3 * size) % size < labelled
    return Data(x=x.double(), edge_index=torch.cat([pairs, pairs.flip(0)], 1), y=y, train_mask=train)


def words() -> Data:
    """Cora with words that are there or not, 0 or 1.

    Raises:
        FileNotFoundError: Cora is not at hand.
    """
    data = cora()
    data.x = (data.x > 0).double()
    return data


KARATE = Experiment("karate sgc", four_labels, 0.05, (8, 16, 25, 33))
HARDER = Experiment("karate sgc, 2 labels", two_labels, 0.01, (8, 16, 25, 33))
BLOCKS = Experiment("block model gcn", blocks, 0.03, (50, 170, 290), hidden=8, removals=60)
ROUGHER = dataclasses.replace(BLOCKS, name="block model gcn, less decay", weight_decay=0.01)
CORA = Experiment("cora gcn", words, 0.01, (1708, 2500), hidden=16, removals=60, newton=False)
FLATTER = dataclasses.replace(CORA, name="cora gcn, less decay", weight_decay=0.005, nodes=(1708,))


def rows(experiments: Sequence[Experiment], *, fresh: bool = False) -> Iterator[Row]:
    """Line by line; what was done before is not done again."""
    for experiment in experiments:
        for kind in ("nodes", "edges", "added"):
            yield experiment.kept(kind, fresh=fresh)
