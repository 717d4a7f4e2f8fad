"""A formula for what a part of a network computes: symbolic regression, with fit and complexity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from explain.guard import random_states_kept, untouched

FUNCTIONS = ("add", "sub", "mul", "div")
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


@dataclass(frozen=True, eq=False)
class Formula:
    """The best formula that a search found, and how well it does.

    Args:
        text: as it is read. ``/`` is protected: it gives 1 where the denominator is below 0.001.
        complexity: its operations, variables and constants together.
        fit: ``R^2`` on the rows that it was sought on.
        held: ``R^2`` on rows that the search never saw: far below `fit` the formula is one of noise.
        evaluate: the formula itself, of rows ``[n, columns]``.
    """

    text: str
    complexity: int
    fit: float
    held: float
    evaluate: Callable[[Tensor], Tensor]


def formula(
    x: Tensor,
    y: Tensor,
    names: Sequence[str] | None = None,
    *,
    functions: Sequence[str] = FUNCTIONS,
    parsimony: float = 1e-3,
    population: int = 500,
    generations: int = 12,
    seed: int = 0,
) -> Formula:
    """The formula in which ``y`` is a function of ``x``, by genetic programming: a message, a readout, a mean.

    The mean squared error and ``parsimony`` times the complexity are made small together; ``y`` is taken in units of
    its deviation, so that ``parsimony`` means the same everywhere. A quarter of the rows is held out. A search finds
    no proof that there is no better formula: read `Formula.held`. It is gplearn's, which the extra "formula" installs.

    Args:
        x: ``[n, columns]``: what the part is given, see `messages`.
        y: ``[n]``: one number that it gives.
        names: of the columns; ``x0``, ``x1``, ... where not given.
        functions: gplearn's, such as "add", "sub", "mul", "div", "sqrt", "log", "abs", "max", "min", "sin".
        parsimony: the price of a node of the formula, as a share of the variance of ``y``.
        population: formulas in a generation.
        generations: how often the better ones are crossed and changed.
        seed: of the search and of the rows held out.

    Raises:
        ImportError: gplearn is not there.
        ValueError: rows that do not belong together, fewer than 8 of them, numbers that are not finite, or a ``y``
            that never changes.

    Source: Cranmer et al. 2020 (messages); Koza 1992.
    """
    try:
        from gplearn.genetic import SymbolicRegressor
    except ImportError as missing:
        raise ImportError("formula searches with gplearn: pip install 'explain-models[formula]'") from missing
    rows, numbers = x.detach().double().cpu().numpy(), y.detach().double().cpu().numpy()
    if rows.ndim != 2 or numbers.shape != rows.shape[:1] or len(rows) < 8:
        raise ValueError(f"x must be [n, columns] and y [n], 8 rows or more, got {list(x.shape)} and {list(y.shape)}")
    if not (np.isfinite(rows).all() and np.isfinite(numbers).all()) or not numbers.std() > 0:
        raise ValueError("x and y must be finite, and y must change from row to row")
    columns = [f"x{i}" for i in range(rows.shape[1])] if names is None else list(names)
    order = np.random.default_rng(seed).permutation(len(rows))
    held, sought = order[: len(rows) // 4], order[len(rows) // 4 :]
    variance = float(numbers[sought].var()) or 1.0
    search = SymbolicRegressor(
        population_size=population,
        generations=generations,
        function_set=tuple(functions),
        parsimony_coefficient=parsimony * variance,
        metric="mse",
        stopping_criteria=1e-9 * variance,
        random_state=seed,
    )
    with random_states_kept():
        search.fit(rows[sought], numbers[sought])
    program = search._program

    def evaluate(x: Tensor) -> Tensor:
        return torch.as_tensor(program.execute(x.detach().double().cpu().numpy()))

    fit, unseen = (_r2(numbers[part], program.execute(rows[part])) for part in (sought, held))
    return Formula(_written(list(program.program), columns), len(program.program), fit, unseen, evaluate)


class Messages(NamedTuple):
    """What a layer's ``message`` was given and gave: ``inputs [edges, columns]``, ``names``, ``outputs [edges, d]``."""

    inputs: Tensor
    names: tuple[str, ...]
    outputs: Tensor


def messages(net: nn.Module, layer: str, call: Callable[[nn.Module], Any]) -> Messages:
    """The messages of a layer in one forward, edge by edge.

    ``formula(found.inputs, found.outputs[:, 0], found.names)`` is then the law of the first column.

    Args:
        net: the network.
        layer: the name of a torch_geometric layer in it.
        call: how the network is called, such as ``lambda net: net(x, edge_index)``.

    Raises:
        ValueError: a name that is no message passing layer, or one that the call does not run message by message.

    Source: Cranmer et al. 2020.

    >>> from torch_geometric.nn import SAGEConv
    >>> found = messages(SAGEConv(2, 3), "SAGEConv", lambda net: net(torch.ones(3, 2), torch.tensor([[0, 1], [1, 2]])))
    >>> found.names, found.outputs.shape
    (('x_j[0]', 'x_j[1]'), torch.Size([2, 2]))
    """
    parts = {name or type(net).__name__: part for name, part in net.named_modules() if isinstance(part, MessagePassing)}
    if layer not in parts:
        raise ValueError(f"{layer!r} is no message passing layer; there are {', '.join(parts) or 'none'}")
    seen: list[tuple[dict[str, Any], Tensor]] = []
    hook = parts[layer].register_message_forward_hook(lambda part, inputs, output: seen.append((inputs[-1], output)))
    try:
        with untouched(net), torch.no_grad():
            call(net)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"{layer!r} sent no message in this call: it did not run, or adds them up in one product")
    given, sent = seen[0]
    columns = {
        name: value.detach().reshape(len(sent), -1)
        for name, value in given.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0 and len(value) == len(sent)
    }
    names = tuple(f"{name}[{i}]" for name, value in columns.items() for i in range(value.size(1)))
    return Messages(torch.cat([*columns.values()], 1), names, sent.detach().reshape(len(sent), -1))


def _written(program: list[Any], names: Sequence[str]) -> str:
    """A program in prefix order as it is read; what it takes of the list is gone from it."""
    node = program.pop(0)
    if isinstance(node, int):
        return names[node]
    if isinstance(node, float):
        return f"{node:.3g}"
    parts = [_written(program, names) for _ in range(node.arity)]
    sign = _SIGNS.get(node.name)
    return f"({f' {sign} '.join(parts)})" if sign else f"{node.name}({', '.join(parts)})"


def _r2(truth: np.ndarray, found: np.ndarray) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1 - float(((truth - found) ** 2).sum()) / spread if spread > 0 else float("nan")
