"""What a network of DiGress' type has learned, beside what it learned from: a section of the page of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from torch import Tensor, nn

from explain.graph_diffusion.graph_model import GraphDiffusionModel
from explain.graph_diffusion.graph_states import GraphNoise
from models.checkpoints import Trained
from models.communities import communities
from models.digress import on_communities

_STATISTICS = ("degree", "clustering", "modularity")


def section(measured: Callable[[int], tuple[Trained, GraphNoise]] = on_communities, seed: int = 0) -> str:
    """Statistics of generated graphs, real ones and draws of the limit, and the bound by its steps, as Markdown."""
    found, noise = measured(seed)
    return "\n".join([*_graphs(found), "", *_steps(bound_by_step(found.module, noise))]) + "\n"


def bound_by_step(net: nn.Module, noise: GraphNoise) -> Tensor:
    """Nats a pair of each term ``L_0, ..., L_{T-1}, L_T`` of the bound, float64 ``[T + 1]``.

    Over the four real graphs, with the noise, of ``nats`` in the facts of `on_communities`, which is their sum.
    """
    model = GraphDiffusionModel(net, process=noise, time="step")
    graphs = communities(4, seed=1)
    pairs = sum(len(graph) * (len(graph) - 1) // 2 for graph in graphs)
    terms = [model.bound(graph, draws=2) for graph in graphs]
    return sum(terms[1:], terms[0]) / pairs


def _graphs(found: Trained) -> Iterator[str]:
    facts = found.facts
    yield f"| graphs | {' | '.join(_STATISTICS)} | nats a pair |"
    yield f"|---|{'---|' * (len(_STATISTICS) + 1)}"
    for whose, nats in (
        ("generated", f"at most {facts['nats']:.3f}"),
        ("real", ""),
        ("limit", f"{facts['nats_of_the_limit']:.3f}"),
    ):
        cells = [f"{facts[whose][name]:.3f}" for name in _STATISTICS]
        yield f"| {whose} | {' | '.join(cells)} | {nats} |"


def _steps(terms: Tensor, spans: int = 5) -> Iterator[str]:
    """The terms by spans of steps as long as each other; the first and the last, which are no KL of a step, alone."""
    last = len(terms) - 1
    starts = [1 + (last - 1) * i // spans for i in range(spans + 1)]
    named = {"t = 1": terms[0]}
    for first, after in pairwise(starts):
        named[f"{first + 1}–{after}"] = terms[first:after].sum()
    named["limit"] = terms[last]
    yield f"| KL of steps, nats a pair | {' | '.join(named)} | all |"
    yield f"|---|{'---|' * (len(named) + 1)}"
    yield f"| real graphs | {' | '.join(f'{float(part):.4f}' for part in [*named.values(), terms.sum()])} |"
