"""Fields of a graph that are functions of its edges, known by computing them again.

A table of recipes, named as in the literature and in torch_geometric's transforms. None is guessed by its name: a field
is named where the recipe gives its numbers, on enough nodes that chance does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from explain.graph.tensors.structure import EDGE, NODE, Structure
from explain.graph.tensors.wiring import Wiring, wiring

FEWEST = 8  # nodes, and edges, below which a field agrees with a recipe by chance
_MOST = 2**20  # nodes and edges above which nothing is computed again
_POWERS = 8
_NODES = 64  # nodes whose walks are followed
_CLOSE = 1e-4  # of the largest number: fields are of single precision
_EXACT = 2e-5  # of the norm: by how much L f misses lambda f
_APART = 1e-3
_BESIDE = ("batch", "y", "ptr")


class Derived(NamedTuple):
    """A field by its name, what it equals, whether of the features ``x`` too, and whether up to signs of columns."""

    field: str
    equals: str
    of_features: bool = False
    signs: bool = False


def derived_fields(graph: Structure, weights: Tensor | None = None) -> tuple[Derived, ...]:
    """The fields of a homogeneous graph that a recipe gives again from its edges, and its features.

    Args:
        graph: nodes, edges and their fields.
        weights: ``[edges]``, what the edges weigh where that is no field of the graph.

    >>> edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 6], [7, 7, 7, 7, 7, 6, 6, 6, 5, 4, 2]])
    >>> graph = Structure({"": 8}, {"": {"deg": torch.bincount(edges[1])}}, {EDGE: edges}, {EDGE: {}}, {})
    >>> derived_fields(graph)
    (Derived(field='deg', equals='degrees, by the edges into a node', of_features=False, signs=False),)
    """
    if [*graph.counts] != [NODE] or [*graph.edges] != [EDGE]:
        return ()
    if min(graph.num_nodes, graph.num_edges) < FEWEST or graph.num_nodes + graph.num_edges > _MOST:
        return ()
    edge_fields = graph.edge_fields[EDGE]
    weights = edge_fields.get("edge_weight") if weights is None else weights
    wirings = [wiring(graph)]
    if weights is not None and weights.numel() == graph.num_edges and bool((weights != 1).any()):
        wirings.append(wiring(graph, weights))
    found = [_of_edges(name, field, wirings[0]) for name, field in edge_fields.items()]
    x = graph.nodes[NODE].get("x")
    passed = [] if x is None else [_Propagated(x, wires) for wires in wirings]
    for name, field in graph.nodes[NODE].items():
        if name in _BESIDE or field.dtype == torch.bool or not field.numel() or field.is_complex():
            continue
        found.append(_of_nodes(name, field.detach().double(), wirings, passed))
    return tuple(each for each in found if each is not None)


def _of_nodes(name: str, field: Tensor, wirings: list[Wiring], passed: list[_Propagated]) -> Derived | None:
    for each in passed if name != "x" else []:
        if (equals := each.of(field)) is not None:
            return Derived(name, equals, of_features=True)
    for wires in wirings:
        for recipe in _FEATURES if name == "x" else _FIELDS:
            if (equals := recipe(field, wires)) is not None:
                return Derived(name, equals, signs=recipe is _eigenvectors)
    return None


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether numbers are the same up to single precision."""
    most = expected.abs().max()
    return bool(most > 0) and bool((found - expected).abs().max() <= _CLOSE * most)


def _tells(values: Tensor) -> bool:
    """Whether there are three different numbers at least: fewer are agreed with by chance."""
    return len(values.float().reshape(-1).unique()) > 2


def _proportional(found: Tensor, expected: Tensor) -> bool:
    factor = (found * expected).sum() / expected.square().sum()
    return bool(factor != 0) and _alike(found, factor * expected)


# --- of nodes ---


def _degrees(field: Tensor, wires: Wiring) -> str | None:
    """A column in proportion to the degrees, a power or the logarithm of them (centrality, scalers of PNA)."""
    if field.numel() != len(field):
        return None
    column = field.reshape(-1)
    for way, degree in _ways(wires):
        for loops in (0, 1):
            for what, values in _of_degree(degree + loops):
                if _tells(values) and values.isfinite().all() and _proportional(column, values):
                    return f"{what}, {way}"
    return None


def _ways(wires: Wiring) -> Iterator[tuple[str, Tensor]]:
    yield "by the edges into a node", wires.degree(into=True)
    yield "by the edges out of a node", wires.degree(into=False)


def _of_degree(degree: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "degrees", degree
    yield "logarithms of degrees", degree.log1p()
    for what, power in (("inverse degrees", -1.0), ("inverse square roots of degrees", -0.5)):
        yield what, torch.where(degree > 0, degree**power, 0.0)


def _one_hot_degree(field: Tensor, wires: Wiring) -> str | None:
    """``OneHotDegree``: the last columns are one-hot codes of the degrees."""
    if field.dim() != 2:
        return None
    for way, degree in _ways(wires):
        most = int(degree.max())
        if not _tells(degree) or most >= field.size(1) or (degree != degree.round()).any():
            continue
        starts = torch.arange(field.size(1) - most)
        hot = field.gather(1, starts[None].to(field.device) + degree.long()[:, None]).eq(1).all(0)
        for start in hot.nonzero().view(-1).tolist():
            last = field[:, start:]
            if bool((last.sum(1) == 1).all() and (last.abs().sum(1) == 1).all()):
                return f"one-hot degrees, {way}"
    return None


def _degree_column(field: Tensor, wires: Wiring) -> str | None:
    """A column in proportion to the degrees among others."""
    columns = field.reshape(len(field), -1)
    for way, degree in _ways(wires):
        if not _tells(degree):
            continue
        factor = columns.T @ degree / degree.square().sum()
        gap = (columns - factor * degree[:, None]).abs().amax(0)
        alike = (gap <= _CLOSE * factor.abs() * degree.max()) & (factor != 0)
        if bool(alike.any()):
            return f"degrees in column {int(alike.int().argmax())}, {way}"
    return None


def _degree_profile(field: Tensor, wires: Wiring) -> str | None:
    """``LocalDegreeProfile`` (Cai and Wang 2018), the last columns: degree; min, max, mean, std of neighbours'."""
    if field.dim() != 2 or field.size(1) < 5:
        return None
    own = wires.degree(into=False)
    seen = torch.stack([own, *wires.ranges(own), wires.passed(own, into=False) / own.clamp_min(1)], 1)
    profile = field[:, -5:]
    if _tells(own) and _tells(seen[:, 3]) and _alike(profile[:, :4], seen):
        return "the local degree profile"
    return None


def _random_walks(field: Tensor, wires: Wiring) -> str | None:
    """``AddRandomWalkPE`` (Dwivedi et al. 2022): ``diag(P^k)``, the chance to be back; on nodes that are followed."""
    if field.dim() != 2 or not 2 <= field.size(1) <= _NODES or not _tells(field):
        return None
    nodes = torch.linspace(0, wires.nodes - 1, min(wires.nodes, _NODES)).long().unique().to(field.device)
    expected = field[nodes]
    for into in (False, True):
        degree = wires.degree(into).clamp_min(1e-12)[:, None]
        state = torch.zeros(wires.nodes, len(nodes), dtype=field.dtype, device=field.device)
        state[nodes, torch.arange(len(nodes))] = 1
        back = [state[nodes].diagonal()]
        for _ in range(field.size(1) + 1):
            state = wires.passed(state, into) / degree
            back.append(state[nodes].diagonal())
        codes = torch.stack(back, 1)
        for first in range(3):  # from the start, from one step, or from two: without loops none is back after one
            if _alike(expected, codes[:, first : first + field.size(1)]):
                return f"random-walk codes of {field.size(1)} steps"
    return None


def _eigenvectors(field: Tensor, wires: Wiring) -> str | None:
    """``AddLaplacianEigenvectorPE`` (Dwivedi et al. 2020), whatever signs and basis: ``L f = lambda f``, by column.

    Columns of zeros pad small graphs. Vectors that are constant along edges, or that share their one eigenvalue, as all
    do in a complete graph, say nothing.
    """
    if field.dim() != 2 or field.size(1) < 2:
        return None
    columns = field[:, field.abs().amax(0) > 0]
    ends = columns[wires.source] - columns[wires.target]
    varies = ends.abs().amax(0) > _APART * columns.abs().amax(0)
    if int(varies.sum()) < 2:
        return None
    for name, laplacian in wires.laplacians():
        image = laplacian(columns)
        square = wires.by_graph(columns.square())
        values = wires.by_graph(columns * image) / square.clamp_min(1e-300)
        missed = wires.by_graph((image - values[wires.graph_of] * columns).square()).sqrt()
        if not bool((missed <= (_EXACT + 1e-2 * values.abs()) * square.sqrt() + 1e-12).all()):
            continue
        own = values[0][varies]
        if bool(own.max() - own.min() > _APART) or bool(own.max() < _APART):
            return f"eigenvectors of the {name} Laplacian"
    return None


class _Propagated:
    """``SIGN`` (Rossi et al. 2020), SGC, DCNN: ``S^k x``, alone or side by side; told by random sums of columns."""

    def __init__(self, x: Tensor, wires: Wiring) -> None:
        self.x, self.wires = x.detach().double().reshape(len(x), -1), wires
        seed = torch.Generator().manual_seed(0)
        self.probe = torch.randn(self.x.size(1), 2, generator=seed, dtype=torch.float64).to(x.device)

    @cached_property
    def powers(self) -> list[tuple[str, Tensor, Tensor]]:
        """For each step ``S`` the sums of ``S^k x [powers, nodes, 2]``, and how close is alike, below 0 for never."""
        made = []
        for name, step in self.wires.steps:
            powers = [self.x @ self.probe]
            for _ in range(_POWERS):
                powers.append(step(powers[-1]))
            close = [_CLOSE * float(power.abs().max()) if _tells(power) else -1.0 for power in powers]
            made.append((name, torch.stack(powers), torch.tensor(close, dtype=torch.float64).to(self.x.device)))
        return made

    def of(self, field: Tensor) -> str | None:
        """What a field equals."""
        if field.dim() > 3 or not self.x.numel() or field.numel() % self.x.numel():
            return None
        parts = field.reshape(len(field), -1, self.x.size(1)) @ self.probe
        if not 1 <= parts.size(1) <= _POWERS + 1:
            return None
        for name, powers, close in self.powers:
            which = [_first((part - powers).abs().amax((1, 2)) <= close) for part in parts.unbind(1)]
            if None not in which and any(which):
                said = ", ".join(_powered(name, power) for power in which if power)
                return f"features that were passed on, {said} x"
        return None


def _first(alike: Tensor) -> int | None:
    return int(alike.int().argmax()) if bool(alike.any()) else None


def _powered(step: str, power: int) -> str:
    return step if power == 1 else f"({step})^{power}" if {*" ^"} & {*step} else f"{step}^{power}"


def _matrix(field: Tensor, wires: Wiring) -> str | None:
    """``[nodes, nodes]``: ``S^k``, which pairs k steps join, shortest paths, personalised PageRank (``GDC``)."""
    if field.shape != (wires.nodes, wires.nodes):
        return None
    probe = torch.randn(wires.nodes, 2, generator=torch.Generator().manual_seed(0), dtype=field.dtype).to(field.device)
    seen = field @ probe
    for name, step in wires.steps:
        power = probe
        for k in range(1, _POWERS + 1):
            power = step(power)
            if _alike(seen, power) and not _alike(power, probe):
                return f"{_powered(name, k)}"
        walked = probe - step(probe)  # F = a (I - (1 - a) S)^-1, so F (I - S) v = a (I - F S) v
        left, right = field @ walked, probe - field @ step(probe)
        share = (left * right).sum() / right.square().sum().clamp_min(1e-300)
        if 1e-3 < float(share) < 1 - 1e-3 and _alike(left, share * right):
            return f"personalised PageRank of {name}, alpha {float(share):.3g}"
    return _paths(field, wires)


def _paths(field: Tensor, wires: Wiring) -> str | None:
    """Shortest paths from a few nodes, or who is within so many steps of them."""
    nodes = torch.linspace(0, wires.nodes - 1, FEWEST).long()
    hops = torch.stack([wires.hops(int(node)) for node in nodes]).to(field)
    rows, joined = field[nodes.to(field.device)], hops >= 0
    if _tells(hops[joined]) and bool((rows[joined] == hops[joined]).all()):
        return "lengths of shortest paths"
    for k in range(2, min(_POWERS, int(hops.max())) + 1):
        within = (joined & (hops <= k)).to(field)
        off = within * (hops > 0)
        if bool((rows == within).all()) or bool((rows == off).all()):
            return f"which nodes {k} steps join"
    return None


# --- of edges ---


def _of_edges(name: str, field: Tensor, wires: Wiring) -> Derived | None:
    if field.numel() != len(wires.source) or not field.is_floating_point():
        return None
    weights = field.detach().double().reshape(-1)
    equals = _normalisation(weights, wires) if _tells(weights) else None
    return None if equals is None else Derived(name, equals)


def _normalisation(weights: Tensor, wires: Wiring) -> str | None:
    """``GCNNorm``, means over neighbours, ``TargetIndegree``; and shares, to which ``GDC`` brings its columns."""
    for way, degree in _ways(wires):
        for loops in (0, 1):
            d = degree + loops
            ends = (("source", d[wires.source]), ("target", d[wires.target]))
            known = {"GCN's normalisation D^-1/2 A D^-1/2": (ends[0][1] * ends[1][1]).rsqrt()}
            known |= {f"1 / degree of the {end}": 1 / at for end, at in ends}
            for what, values in known.items():
                if values.isfinite().all() and _tells(values) and _alike(weights, values):
                    return f"{what}, degrees {way}"
            for end, at in ends:
                if _tells(at) and _alike(weights, at / d.max()):
                    return f"the degree of the {end} over the largest, degrees {way}"
    for end, at in (("into", wires.target), ("out of", wires.source)):
        nodes, count = at.unique(return_counts=True)
        sums = torch.zeros(wires.nodes, dtype=weights.dtype, device=weights.device).index_add_(0, at, weights)[nodes]
        if int((count > 1).sum()) >= FEWEST and _alike(sums, torch.ones_like(sums)):
            return f"shares: those of the edges {end} a node sum to 1"
    return None


_Recipe = Callable[[Tensor, Wiring], str | None]
_FIELDS: tuple[_Recipe, ...] = (_degrees, _one_hot_degree, _degree_profile, _random_walks, _matrix, _eigenvectors)
_FEATURES: tuple[_Recipe, ...] = (_one_hot_degree, _degree_profile, _degree_column)
