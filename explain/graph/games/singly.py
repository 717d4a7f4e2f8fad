"""Coalitions evaluated one by one, and words for those that a model has no answer for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain.graph.tensors.agreement import relative, tolerance
from explain.types import Masks, NonFinite, Players, Unsupported

_SAID = 5  # players of a coalition that an error names
_REMEDY = {
    ("edges", "delete"): 'removal="message" keeps every edge and takes out what it carries',
    ("nodes", "delete"): 'removal="message" or "features" keeps every node',
    ("edges", "message"): 'removal="delete" takes edges out',
    ("nodes", "message"): 'removal="features" keeps every message',
}
_ELSE = 'another baseline ("mean", "marginal") puts other features in place'


def singly(
    copied: Callable[[Masks], Tensor], masks: Masks, players: Players, what: tuple[str, str], pooled: bool
) -> Tensor:
    """What the model answers in each coalition, asked one by one, ``[coalitions, outputs]``.

    Args:
        copied: what the model answers for coalitions on copies of the whole place.
        masks: bool ``[coalitions, P]``.
        players: who they are of.
        what: what players own, and what their absence means: the remedy hangs on these.
        pooled: whether nodes leave a graph that is pooled: of no nodes at all, pooling may say something beside others.

    Raises:
        ValueError: a coalition that the model has no answer for; the message names it.
    """

    def alone(mask: Masks) -> Tensor:
        try:
            return copied(mask)
        except (Unsupported, NonFinite):
            raise
        except Exception as error:  # whatever a user's forward raises
            if out_of_memory(error):
                raise
            nobody = _without_nodes(copied, mask) if pooled and not bool(mask.any()) else None
            if nobody is not None:
                return nobody
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"the model has no answer for the coalition {_named(players, mask[0])}: {said}; "
                f"{_REMEDY.get(what, _ELSE)}"
            ) from error

    return torch.cat([alone(mask) for mask in masks.split(1)])


def _without_nodes(copied: Callable[[Masks], Tensor], nobody: Masks) -> Tensor | None:
    """What pooling says of a graph without nodes beside others; None where it fails, or hangs on which these are."""
    one = nobody.clone()
    one[:, 0] = True
    try:
        found = [copied(torch.cat([nobody, other]))[:1] for other in (~nobody, one)]
    except Exception:  # whatever a user's forward raises
        return None
    return found[0] if relative(found[0], found[1]) <= tolerance(found[1]) else None


def _named(players: Players, mask: Tensor) -> str:
    """A coalition in words, by who is there or who is not, whichever are fewer."""
    for who, what in ((mask, "of only"), (~mask, "without")):
        if 0 < int(who.sum()) <= _SAID:
            names = ", ".join(players.names[i] for i in who.nonzero().view(-1).tolist())
            return f"{what} {players.kind} {names} (of {len(players)})"
    if not bool(mask.any()):
        return f"without any of the {len(players)} {players.kind}"
    present = ", ".join(players.names[i] for i in mask.nonzero().view(-1)[:_SAID].tolist())
    return f"of {int(mask.sum())} of {len(players)} {players.kind} ({present}, ...)"


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which another coalition does not mend."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def too_many(count: int, why: str) -> str:
    """Words for coalitions that memory does not hold together."""
    smaller = f"give batch_size={max(1, count // 16)} or less, or none at all"
    return f"{count} coalitions in one pass need too much memory ({why}): {smaller}"
