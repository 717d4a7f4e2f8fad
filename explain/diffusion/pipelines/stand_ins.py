"""Stand-ins for a pipeline's parts: the user's own modules and scheduler, called by way of a function of ours."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree  # private, but where diffusers and transformers register their outputs

Called = Callable[..., Any]
_M = TypeVar("_M", bound=nn.Module)


def standing_in(module: _M, forward: Callable[[Called, tuple[Any, ...], dict[str, Any]], Any]) -> _M:
    """A module of the same class over the same parameters, whose call is ``forward(module, args, kwargs)``.

    It has no hooks of its own, so that those of the user's module are met once.
    """
    shell = copy.copy(module)
    for name, value in vars(module).items():
        if name.endswith("_hooks") or "_hooks_" in name:
            vars(shell)[name] = OrderedDict() if isinstance(value, dict) else value

    @functools.wraps(module.forward)  # pipelines look at the signature
    def called(*args: Any, **kwargs: Any) -> Any:
        return forward(module, args, kwargs)

    vars(shell)["forward"] = called
    return shell


def stepping(scheduler: Any, step: Callable[[Called, tuple[Any, ...], dict[str, Any]], Any]) -> Any:
    """A copy of a scheduler, for schedulers remember, whose ``step`` is ``step(its own, args, kwargs)``.

    Of the predictor-corrector scheduler of score matching it is the predictor's.
    """
    fresh = copy.deepcopy(scheduler)
    name = "step" if hasattr(fresh, "step") else "step_pred"
    own = getattr(fresh, name)

    @functools.wraps(own)  # pipelines ask whether it takes eta and a generator
    def taken(*args: Any, **kwargs: Any) -> Any:
        return step(own, args, kwargs)

    vars(fresh)[name] = taken
    return fresh


def stepped(step: Called) -> Any:
    """The scheduler that a step belongs to, as it is now and without a stand-in."""
    found = copy.copy(step.__self__)  # type: ignore[attr-defined]  # `stepping` hands on bound methods
    vars(found).pop(step.__name__, None)
    return copy.deepcopy(found)


def lengths(tree: Any) -> list[int | None]:
    """The first size of every tensor in a call's arguments, however nested; None for what has none."""
    return [len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else None for leaf in _pytree.tree_leaves(tree)]


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a call's arguments or answer, in order."""
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def replaced(tree: Any, tensor: Tensor) -> Any:
    """The same answer of a network with another first tensor, its prediction."""
    leaves, spec = _pytree.tree_flatten(tree)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    return _pytree.tree_unflatten([*leaves[:at], tensor, *leaves[at + 1 :]], spec)


def at_rows(tree: Any, rows: list[bool], at: Tensor) -> Any:
    """The same arguments with these entries of the tensors that hold one a row, ``rows`` of the flat tree."""
    leaves, spec = _pytree.tree_flatten(tree)
    some = [leaf[at.to(leaf.device)] if own else leaf for leaf, own in zip(leaves, rows, strict=True)]
    return _pytree.tree_unflatten(some, spec)


def once_each(
    called: Called, args: tuple[Any, ...], kwargs: dict[str, Any], count: int, rows: list[bool] | None = None
) -> Any:
    """A module's answer for every row of its batch, where equal rows are evaluated once.

    Rows are equal when every tensor with one entry a row holds the same bytes there.

    Args:
        called: the module.
        args: its arguments.
        kwargs: those by name.
        count: rows of the batch.
        rows: which of the flat arguments hold one entry a row; those of ``count`` entries when None.
    """
    leaves = _pytree.tree_leaves((args, kwargs))
    rows = [length == count for length in lengths((args, kwargs))] if rows is None else rows
    if count < 2 or len(rows) != len(leaves):
        return called(*args, **kwargs)
    if any(own and len(leaf) != count for leaf, own in zip(leaves, rows, strict=True)):  # of another batch than others
        return called(*args, **kwargs)
    keys = _keys([leaf for leaf, own in zip(leaves, rows, strict=True) if own], count)
    first: dict[Any, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    if len(first) == count:
        return called(*args, **kwargs)
    some_args, some = at_rows((args, kwargs), rows, torch.tensor(list(first.values())))
    answer = called(*some_args, **some)
    place = {key: i for i, key in enumerate(first)}
    own = [length == len(first) for length in lengths(answer)]
    return at_rows(answer, own, torch.tensor([place[key] for key in keys]))


def repeats(args: tuple[Any, ...], kwargs: dict[str, Any], rows: list[bool]) -> bool:
    """Whether two rows of a call's batch are equal; no, where it is given other arguments than those that are told."""
    leaves = _pytree.tree_leaves((args, kwargs))
    parts = [leaf for leaf, own in zip(leaves, rows, strict=True) if own] if len(leaves) == len(rows) else []
    count = len(parts[0]) if parts else 0
    return count > 1 and len(set(_keys(parts, count))) < count


def _keys(parts: list[Tensor], count: int) -> list[tuple[bytes, ...]]:
    """What tells each row from others."""
    flat = [part.detach().reshape(count, -1).contiguous().cpu().view(torch.uint8) for part in parts]
    return [tuple(part[row].numpy().tobytes() for part in flat) for row in range(count)]
