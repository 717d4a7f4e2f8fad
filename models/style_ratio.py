"""Contrastive pre-training against how much of a graph is style (Trivedi et al. 2022): accuracy beside attribution."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import scipy.stats
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from explain.analysis import content_share, contrastive, invariance, recoverability, separability, turned_by_edges
from explain.guard import evaluating, random_states_kept
from models import content_style as benchmark
from models import graph_cl
from models.checkpoints import kept, origin
from models.content_style import content_style, without_any, without_style
from models.graph_cl import Augmentation, GraphEncoder, pretrain

ENCODERS: dict[str, Augmentation | None] = {"untrained": None, "generic": without_any, "content-aware": without_style}
RATIOS, SEEDS = (1.0, 2.0, 4.0, 8.0), 5
_CHUNK = 400  # graphs that are encoded at once


@dataclass(frozen=True)
class Sizes:
    """How much is trained and measured.

    Args:
        graphs: of all six classes together.
        epochs: of pre-training.
        hidden: columns of a layer.
        layers: of the encoder.
        views: augmentations of each graph that are measured.
        attributed: graphs whose edges are taken away one by one.
    """

    graphs: int = 600
    epochs: int = 40
    hidden: int = 32
    layers: int = 5
    views: int = 10
    attributed: int = 48


def measured(
    ratio: float,
    encoder: str,
    seed: int,
    sizes: Sizes = Sizes(),
    *,
    folder: str | os.PathLike[str] | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Facts of one encoder of graphs whose style is ``ratio`` times their content; trained, or from the cache.

    ``accuracy`` is that of a linear probe on a fifth of the graphs that it has not seen; ``style`` and ``any`` are its
    accuracy there once edges of style, or any edges, are dropped, ``invariance_style`` and ``invariance_any`` how far
    representations keep their direction then; ``separability``; ``share`` of all attribution that is on content, and
    ``even``, what an even spread over the edges has. Edges are dropped with probability 0.2, in training too.

    Args:
        ratio: style to content.
        encoder: one of `ENCODERS`: first weights, whose BatchNorm has met the graphs, or trained with an augmentation.
        seed: of graphs, first weights, batches and the probe's split.
        sizes: of all this.
        folder: the cache, see `models.checkpoints.trained`.
        fresh: trains in any case.

    Raises:
        ValueError: another encoder.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
    code: list[ModuleType | Callable[..., Any]] = [_encoder, _represented, _facts, benchmark, graph_cl, contrastive]
    config = origin(
        "GraphEncoder", code, (), ratio=ratio, encoder=encoder, seed=seed, sizes=asdict(sizes), scipy=scipy.__version__
    )

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        graphs = content_style(sizes.graphs, ratio, seed=seed)
        net = _encoder(graphs, ENCODERS[encoder], sizes, seed)
        return net.state_dict(), _facts(net, graphs, sizes, seed)

    return kept("GraphEncoder", config, make, folder=folder, fresh=fresh).facts


def _encoder(graphs: list[Data], augmentation: Augmentation | None, sizes: Sizes, seed: int) -> GraphEncoder:
    with random_states_kept():
        torch.manual_seed(seed)
        net = GraphEncoder(benchmark.FEATURES, sizes.hidden, sizes.layers)
        if augmentation is not None:
            return pretrain(graphs, augmentation, net, epochs=sizes.epochs, seed=seed)
        for norm in net.norms:
            assert isinstance(norm, nn.BatchNorm1d)
            norm.momentum = None  # what it meets is kept as a plain mean over the batches
        with torch.no_grad():
            _represented(net, graphs)
    return net.eval()


def _represented(net: GraphEncoder, graphs: list[Data], change: Callable[[Data], Data] = lambda batch: batch) -> Tensor:
    chunks = (Batch.from_data_list(graphs[i : i + _CHUNK]) for i in range(0, len(graphs), _CHUNK))
    return torch.cat([net(change(chunk)) for chunk in chunks])


@torch.no_grad()
def _facts(net: GraphEncoder, graphs: list[Data], sizes: Sizes, seed: int) -> dict[str, Any]:
    generator, y = torch.Generator().manual_seed(seed), torch.cat([graph.y for graph in graphs])
    with evaluating(net):
        plain = _represented(net, graphs)
        views = {
            name: torch.stack(
                [_represented(net, graphs, partial(drop, generator=generator)) for _ in range(sizes.views)]
            )
            for name, drop in (("style", without_style), ("any", without_any))
        }
        some = graphs[: sizes.attributed]
        shares = [content_share(turned_by_edges(net, graph), graph.content) for graph in some]
    recovered = {name: recoverability(plain, view, y, seed=seed) for name, view in views.items()}
    return {
        "accuracy": recovered["style"].plain,
        **{name: found.augmented for name, found in recovered.items()},
        **{f"invariance_{name}": float(invariance(plain, view).mean()) for name, view in views.items()},
        "separability": float(separability(plain, y).mean()),
        "share": statistics.mean(one.share for one in shares),
        "even": statistics.mean(one.edges for one in shares),
    }


class Span(NamedTuple):
    """A mean over seeds, and the 95 % interval of it (Student's t)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, found: list[float]) -> Span:
        """Of one number a seed, two or more."""
        mean, reach = statistics.mean(found), statistics.stdev(found) / math.sqrt(len(found))
        reach *= float(scipy.stats.t.ppf(0.975, len(found) - 1))
        return cls(mean, mean - reach, mean + reach)

    @property
    def sign(self) -> str:
        """Whether the interval lies on one side of 0."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "open"


Facts = Callable[[float, str, int], dict[str, Any]]
_COLUMNS = ("accuracy", "style", "any", "share", "even")
_PLAIN = ("invariance_style", "invariance_any", "separability")


def section(facts: Facts = measured, seeds: int = SEEDS) -> str:
    """The measured table of all encoders at all ratios, and what it says of the paper's claims, as Markdown."""
    found = {
        (ratio, encoder): [facts(ratio, encoder, seed) for seed in range(seeds)]
        for ratio in RATIOS
        for encoder in ENCODERS
    }
    return "\n".join([*_table(found), "", *_claims(found)]) + "\n"


def _table(found: dict[tuple[float, str], list[dict[str, Any]]]) -> Iterator[str]:
    yield (
        "| style ratio | encoder | accuracy | style edges dropped | any dropped | attribution on content | even share "
        "| invariance: style | any | separability | CPU s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for (ratio, encoder), facts in found.items():
        cells = [f"{ratio:g}", encoder]
        for name in _COLUMNS:
            values = [100 * fact[name] for fact in facts]
            cells.append(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
        cells += [f"{statistics.mean(fact[name] for fact in facts):.3f}" for name in _PLAIN]
        cells.append(f"{math.fsum(fact['cpu_seconds'] for fact in facts):.0f}")
        yield f"| {' | '.join(cells)} |"


def _claims(found: dict[tuple[float, str], list[dict[str, Any]]]) -> Iterator[str]:
    """Differences of two encoders, seed by seed, in points with their intervals; and of the ends of the ratios."""

    def gap(name: str, ratio: float, one: str, other: str) -> list[float]:
        pairs = zip(found[ratio, one], found[ratio, other], strict=True)
        return [100 * (a[name] - b[name]) for a, b in pairs]

    def cell(values: list[float]) -> str:
        span = Span.of(values)
        return f"{span.mean:+.1f} ({span.low:+.1f} to {span.high:+.1f}, {span.sign})"

    columns = [f"ratio {ratio:g}" for ratio in RATIOS]
    yield f"| points, seed by seed | {' | '.join(columns)} | {columns[-1]} less {columns[0]} |"
    yield f"|---|{'---|' * (len(columns) + 1)}"
    for name, said in (("accuracy", "accuracy"), ("style", "accuracy, style edges dropped"), ("share", "attribution")):
        for one, other in (("content-aware", "generic"), ("generic", "untrained"), ("content-aware", "untrained")):
            gaps = [gap(name, ratio, one, other) for ratio in RATIOS]
            change = [last - first for first, last in zip(gaps[0], gaps[-1], strict=True)]
            yield f"| {said}: {one} less {other} | {' | '.join(map(cell, [*gaps, change]))} |"
