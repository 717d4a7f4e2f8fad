"""The effective diffusivity of every layer of a trained network: who mixes with whom, and how far that is from all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.attention import SGFormerAttention

from explain.analysis.energy import Energy, Penalty, energy
from explain.analysis.recording import LayerCall, Propagation, mixes, recorded
from explain.attention.ablation import uniform
from explain.attention.capture import capture
from explain.attention.maps import AttentionMap
from explain.attention.selection import NothingCaptured
from explain.attention.told import layers_told
from explain.guard import untouched

Told = Mapping[str, Callable[..., Tensor]]
CLOSE = 1e-4  # of the largest number a layer propagates: what is proved agrees so far


@dataclass(frozen=True, eq=False)
class Diffusivity:
    """What one layer does between nodes: ``z'_i`` hears ``S_ij z_j``, rows of ``S`` sum to 1.

    Args:
        layer: its name in the network; with ``[k]`` where it propagates several times in a call.
        kind: "attention", "kernel" (by a function), "propagation", "none" (``S`` is the identity) or "unknown".
        S: float64 ``[nodes, nodes]``, the mean over heads; None where there is none, `said` has the reason.
        factor: ``[nodes]``, what rows summed to before they were divided by it. Of 0: the node hears nobody, and its
            row is its own.
        gap: how far ``S`` is from what the layer did, as a share: of message passing, of what it propagated; of a
            kernel, what an affine function of ``S z`` leaves of its output; of none, 0; None where nothing was tested.
        before: `Energy` of the states that the layer is given.
        after: of those it gives. None where it has no row a node.
        value: the number of the network as it is, None where neither labels nor a number were given.
        uniform: the number with this layer's mixing replaced by uniform over those it may look at; None where it
            cannot be replaced.
        said: what to know, a sentence each.
        edges: ``[2, edges]`` of the input graph.
        labels: ``[nodes]``, or None.
    """

    layer: str
    kind: str
    S: Tensor | None
    factor: Tensor | None
    gap: float | None
    before: Energy | None
    after: Energy | None
    value: float | None
    uniform: float | None
    said: tuple[str, ...]
    edges: Tensor
    labels: Tensor | None

    @property
    def excess(self) -> Tensor:
        """``N S - 1``, ``[nodes, nodes]``: 0 where a pair is as all are.

        Raises:
            ValueError: the layer has no ``S``.
        """
        if self.S is None:
            raise ValueError(f"{self.layer} has no S: {'; '.join(self.said)}")
        return len(self.S) * self.S - 1

    @property
    def deviation(self) -> float:
        """The largest ``|N S - 1|``: near 0 a map of the layer shows nothing."""
        return float(self.excess.abs().max())

    def class_means(self) -> Tensor:
        """The mean of ``N S`` from class ``a`` (hears) to ``b`` (is heard), ``[classes, classes]``, self included.

        Raises:
            ValueError: no labels were given.
        """
        if self.labels is None:
            raise ValueError("class means need the class of each node: diffusivity(..., labels=data.y)")
        scaled = self.excess + 1
        marks = torch.nn.functional.one_hot(self.labels).to(scaled)
        return marks.T @ scaled @ marks / (marks.sum(0)[:, None] * marks.sum(0))

    def strongest(self, k: int = 10, edges: bool = False) -> list[tuple[int, int, float]]:
        """The ``k`` pairs ``(hears, is heard, N S - 1)`` with the most weight, no node with itself.

        Args:
            k: how many; fewer where there are fewer with any weight.
            edges: those that are edges of the input graph, else those that are not.
        """
        excess = self.excess.clone()
        linked = torch.zeros_like(excess, dtype=torch.bool)
        linked[self.edges[1], self.edges[0]] = True
        asked = (linked if edges else ~linked).fill_diagonal_(False) & (excess > -1)
        values = excess.masked_fill(~asked, float("-inf")).flatten()
        top = values.topk(min(k, int(asked.sum())))
        return [(int(at) // len(excess), int(at) % len(excess), float(value)) for value, at in zip(*top, strict=True)]


def diffusivity(
    net: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    *,
    call: Callable[[nn.Module], Tensor] | None = None,
    labels: Tensor | None = None,
    number: Callable[[Tensor], float] | None = None,
    attention: Told | None = None,
    penalty: Penalty = "squares",
) -> tuple[Diffusivity, ...]:
    """``S`` of every layer in one forward, in call order: of MLPs, GCN, GraphSAGE, GAT, DIFFormer, SGFormer, ...

    Where a layer weighs by a softmax, ``S`` is what `capture` sees of it; message passing without one is given
    indicators of the nodes in the place of its states, and ``S`` times the states must be what it propagated; layers
    of which no row hangs on another have the identity; of kernels that form no weights a function says them. A layer
    that mixes nodes in another way is listed without an ``S``. What a network adds up between its layers is none.

    Args:
        net: the network.
        x: ``[nodes, features]``.
        edge_index: the input graph, ``[2, edges]``.
        call: how it is called, ``net(x, edge_index)`` where not given: ``lambda net: net(x)`` for an MLP.
        labels: ``[nodes]``; then the number is the accuracy over all nodes, unless another is given.
        number: of the network's output.
        attention: by the layer's name (``*`` for any letters) a function ``(layer, *its inputs) -> S [nodes, nodes]``
            or ``[heads, nodes, nodes]``. torch_geometric's SGFormerAttention is known.
        penalty: of the energies, see `energy`; for "s" and "a" states are put to length 1.

    Raises:
        ValueError: a name that no module has; a function's weights of another shape.

    Source: Wu et al. 2023 (DIFFormer), table 1.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> edges = torch.tensor([[0, 1], [1, 0]])
    >>> found = diffusivity(net, torch.eye(2), edges, call=lambda net: net(torch.eye(2)))
    >>> [(layer.layer, layer.kind, layer.deviation) for layer in found]
    [('0', 'none', 1.0), ('2', 'none', 1.0)]
    """
    ask = call or (lambda net: net(x, edge_index))
    told = layers_told(net, attention)
    if number is None and labels is not None:
        number = partial(_accuracy, labels=labels)
    with untouched(net), torch.no_grad():
        value = None if number is None else number(_numbers(ask(net)))
        seen: dict[str, list[AttentionMap]] = defaultdict(list)
        with suppress(NothingCaptured), recorded(net, len(x)) as calls, capture(net) as maps:
            ask(net)
        for one in maps:
            seen[one.module].append(one)
        found = []
        for mixing in _mixings(calls, type(net).__name__, seen, told, len(x)):
            replaced = _replaced(net, ask, mixing, number)
            before, after = (_energy(states, edge_index, penalty) for states in (mixing.before, mixing.after))
            S, factor, said = (None, None, ()) if mixing.raw is None else _rows(mixing.raw.double())
            kind = mixing.kind if mixing.raw is None or S is not None else "unknown"
            if number is not None and replaced is None and kind in ("kernel", "propagation"):
                said = (*said, "not made uniform: that is done to attention, and to kernels that give S z itself")
            found.append(
                Diffusivity(
                    *(mixing.name, kind, S, factor, mixing.gap, before, after, value, replaced),
                    (*mixing.said, *said),
                    *(edge_index, labels),
                )
            )
    return tuple(found)


@dataclass(eq=False)
class _Mixing:
    name: str
    kind: str
    call: LayerCall
    raw: Tensor | None
    gap: float | None
    said: tuple[str, ...] = ()
    before: Tensor | None = None
    after: Tensor | None = None

    def __post_init__(self) -> None:
        self.before = self.call.before if self.before is None else self.before
        self.after = self.call.after if self.after is None else self.after


def _mixings(
    calls: list[LayerCall], root: str, seen: dict[str, list[AttentionMap]], told: dict[str, Any], nodes: int
) -> Iterator[_Mixing]:
    """The layers in call order; within one that mixes nothing more is looked for."""
    known = {call.name: KERNELS[type(call.layer)] for call in calls if type(call.layer) in KERNELS} | told
    own = {
        call.name
        for call in calls
        if call.name in known or call.name in seen or (isinstance(call.layer, MessagePassing) and call.propagations)
    }
    unknown: set[str] = set()
    for call in calls:
        if any(_inside(call.name, name, root) for name in own):
            continue
        if call.name in known:
            yield _by_kernel(call, known[call.name])
        elif call.name in seen:
            yield from _by_attention(call, seen[call.name], nodes)
        elif call.name in own:
            yield from _by_propagation(call, nodes)
        elif type(call.layer) is nn.Linear and call.before is not None and not mixes(call, nodes):
            yield _Mixing(call.name, "none", call, torch.eye(nodes, device=call.before.device), 0.0)
        elif not any(_inside(name, call.name, root) for name in own | unknown) and mixes(call, nodes):
            unknown.add(call.name)
            why = "it mixes nodes, by no propagate and no softmax: say its S, attention={layer: function}"
            yield _Mixing(call.name, "unknown", call, None, None, (why,))


def _inside(name: str, outer: str, root: str) -> bool:
    """Whether a module is a part of another, which may be the network itself."""
    return name != outer and (outer == root or name.startswith(f"{outer}."))


def _by_attention(call: LayerCall, maps: list[AttentionMap], nodes: int) -> Iterator[_Mixing]:
    for place, one in enumerate(maps):
        name = call.name if len(maps) == 1 else f"{call.name}[{place}]"
        weights = one.dense()
        if weights.shape[0] != 1 or weights.shape[-2:] != (nodes, nodes):
            why = f"its attention {list(weights.shape)} is not one among {nodes} nodes"
            yield _Mixing(name, "unknown", call, None, None, (why,))
        else:
            yield _Mixing(name, "attention", call, weights[0].double().mean(0), None)


def _by_kernel(call: LayerCall, function: Callable[..., Tensor]) -> _Mixing:
    weights = function(call.layer, *call.args, **call.kwargs).detach().double()
    nodes = weights.size(-1)
    heads = weights.reshape(-1, *weights.shape[-2:])
    if call.before is None or heads.size(1) != nodes or nodes != len(call.before):
        raise ValueError(
            f"attention of {call.name} must be S [nodes, nodes] or [heads, nodes, nodes], got {list(weights.shape)}"
        )
    gap, rounding = _left_over(heads, call)
    said: tuple[str, ...] = ()
    if gap is None:
        said = ("too few nodes to prove that the output is a function of S z",)
    elif gap > max(CLOSE, rounding):
        said = (f"of its output {gap:.3g} is no affine function of S z: it adds something else, or S is not its own",)
    return _Mixing(call.name, "kernel", call, heads.mean(0), gap, said)


def _left_over(heads: Tensor, call: LayerCall) -> tuple[float | None, float]:
    """What the best affine function of ``S_h z`` over the heads leaves of the output, and what rounding may leave.

    As shares of how far the output differs from node to node: where ``S`` is nearly uniform that is nearly nothing.
    """
    assert call.before is not None
    states = torch.nn.functional.pad(call.before.double(), (0, 1), value=1.0)  # a bias is heard, too
    one = states[None, :, -1:]
    known = torch.cat([*heads @ states, *one], 1)
    if call.after is None or len(known) < 2 * known.size(1):
        return None, 0.0
    output = call.after.double()
    best = torch.linalg.lstsq(known, output, driver="gelsd").solution
    differs = (output - output.mean(0)).norm().clamp_min(1e-12)
    rounding = 2 * torch.finfo(call.after.dtype).eps * output.norm() / differs
    return float((output - known @ best).norm() / differs), float(rounding)


def _by_propagation(call: LayerCall, nodes: int) -> Iterator[_Mixing]:
    several = len(call.propagations) > 1
    for place, one in enumerate(call.propagations):
        name = f"{call.name}[{place}]" if several else call.name
        raw, gap, said = _pushed(call.layer, one, nodes)
        states = _given(one)
        own = (states, one.result.flatten(1)) if several and states is not None else (None, None)
        yield _Mixing(name, "unknown" if raw is None else "propagation", call, raw, gap, said, *own)


def _accuracy(output: Tensor, labels: Tensor) -> float:
    """The share of rows whose largest output is their label."""
    return float((output.argmax(-1) == labels).double().mean())


def _pushed(layer: nn.Module, one: Propagation, nodes: int) -> tuple[Tensor | None, float | None, tuple[str, ...]]:
    """``S`` by indicators of the nodes in the place of the states, as many at a time as there are columns."""
    states = _given(one)
    result = one.result.flatten(1)
    if states is None or len(states) != nodes or result.shape != states.shape:
        return None, None, ("what it propagates is no row of states a node: no S",)
    width, raw = states.size(1), []
    propagate: Callable[..., Tensor] = layer.propagate  # type: ignore[assignment]  # of a MessagePassing, by `recorded`
    for columns in torch.eye(nodes, dtype=states.dtype, device=states.device).split(width, 1):
        block = torch.nn.functional.pad(columns, (0, width - columns.size(1)))
        given = one.arguments["x"]
        shaped = block.view(given[0].shape if isinstance(given, tuple) else given.shape)
        other = tuple(None if part is None else shaped for part in given) if isinstance(given, tuple) else shaped
        heard = propagate(one.edge_index, size=one.size, **one.arguments | {"x": other})
        raw.append(heard.detach().flatten(1)[:, : columns.size(1)].double())
    S = torch.cat(raw, 1)
    gap = float((S @ states.double() - result).abs().max() / result.abs().max().clamp_min(1e-12))
    if not gap <= CLOSE:
        return None, gap, (f"what it propagates is no S times its states (off by {gap:.3g}): no S",)
    return S, gap, ()


def _given(one: Propagation) -> Tensor | None:
    """The states that are propagated, of one set of nodes."""
    given = one.arguments.get("x")
    if isinstance(given, tuple):
        rows = [part for part in given if isinstance(part, Tensor)]
        given = rows[0] if rows and all(part.shape == rows[0].shape for part in rows) else None
    return given.detach().flatten(1) if isinstance(given, Tensor) and given.dim() > 1 else None


def _rows(raw: Tensor) -> tuple[Tensor | None, Tensor, tuple[str, ...]]:
    """Rows divided by their sums, these, and what to know; a row without any weight is its own."""
    sums, empty = raw.sum(1), ~raw.any(1)
    if bool((sums <= 1e-6 * raw.abs().amax(1))[~empty].any()):
        low, high = float(sums.min()), float(sums.max())
        return None, sums, (f"its rows sum to {low:.3g} to {high:.3g}: differences of neighbours, and no diffusivity",)
    S = raw / torch.where(empty, 1.0, sums)[:, None]
    own = torch.eye(len(raw), dtype=raw.dtype, device=raw.device)
    return torch.where(empty[:, None], own, S), sums, tuple(_doubts(raw, sums))


def _doubts(raw: Tensor, factor: Tensor) -> Iterator[str]:
    hears = raw.any(1)
    if not hears.all():
        yield f"nodes that hear nobody, and have themselves for a row: {int((~hears).sum())}"
    if hears.any() and float((factor[hears] - 1).abs().max()) > CLOSE:
        yield f"rows were divided by their sums, {float(factor[hears].min()):.3g} to {float(factor[hears].max()):.3g}"
    if float(raw.min()) < -1e-12:
        yield "some weights are negative: a layer that sharpens, and no diffusion"


def _energy(states: Tensor | None, edge_index: Tensor, penalty: Penalty) -> Energy | None:
    if states is None or not states.isfinite().all():
        return None
    return energy(states if penalty == "squares" else torch.nn.functional.normalize(states), edge_index, penalty)


def _replaced(
    net: nn.Module, ask: Callable[[nn.Module], Any], mixing: _Mixing, number: Callable[[Tensor], float] | None
) -> float | None:
    """The number with the layer's attention uniform; of a kernel that gives ``S z`` itself, with the mean of ``z``."""
    if number is None or mixing.raw is None:
        return None
    layer = mixing.call.layer
    if mixing.kind == "attention":
        with uniform(layer):
            return number(_numbers(ask(net)))
    if mixing.kind == "kernel" and _is_what_it_gives(mixing):
        with _mean_given(layer):
            return number(_numbers(ask(net)))
    return None


def _is_what_it_gives(mixing: _Mixing) -> bool:
    raw, before, after = mixing.raw, mixing.before, mixing.after
    if raw is None or before is None or after is None or before.shape != after.shape:
        return False
    return float((raw @ before.double() - after).abs().max() / after.abs().max().clamp_min(1e-12)) < CLOSE


@contextmanager
def _mean_given(layer: nn.Module) -> Iterator[None]:
    def mean(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
        states = args[0]
        return states.mean(-2, keepdim=True).expand_as(output)

    hook = layer.register_forward_hook(mean)
    try:
        yield
    finally:
        hook.remove()


def _numbers(output: Any) -> Tensor:
    found = output[0] if isinstance(output, (tuple, list)) else output
    if not isinstance(found, Tensor):
        raise ValueError(f"the call must give a tensor, got {type(found).__name__}: call=lambda net: net(...)[...]")
    return found


def _simplified(layer: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """``S = (q k^T + N I) / (q sum_j k_j + N)`` of SGFormer, ``q`` and ``k`` of length 1; may be negative."""
    assert isinstance(layer, SGFormerAttention)
    nodes = x.size(-2)
    q, k = (part(x).view(nodes, layer.heads, -1).transpose(0, 1) for part in (layer.q, layer.k))
    q, k = (torch.nn.functional.normalize(torch.where(one == 0, 1e-6, one), dim=-1) for one in (q, k))
    weights = q @ k.mT + nodes * torch.eye(nodes, dtype=x.dtype, device=x.device)
    return weights / weights.sum(-1, keepdim=True)


KERNELS: dict[type[nn.Module], Callable[..., Tensor]] = {SGFormerAttention: _simplified}
