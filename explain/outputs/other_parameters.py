"""What a model answers with other parameters: what stays true of its outputs there, it keeps itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SPREADS = (1.0, 10.0, 100.0, 1000.0) * 2  # of parameters drawn anew, in sizes of the trained ones


def redrawn(params: Mapping[str, Tensor], answers: Callable[[dict[str, Tensor]], Tensor]) -> Tensor | None:
    """What a model answers with parameters drawn at random, ``[rows, outputs]``: bounds that hold there are its own.

    Each is normal, of mean zero and 1 to 1000 times the size of the trained one. None where nothing can be told: no
    parameters, a forward that fails with them, or one answer whatever they are.

    >>> redrawn({"w": torch.ones(1)}, lambda p: (p["w"] * torch.eye(2)).sigmoid()).aminmax().max <= 1
    tensor(True)
    """
    generator, found = torch.Generator().manual_seed(0), []
    for spread in SPREADS:
        drawn = {
            name: (torch.randn(p.shape, generator=generator) * spread * max(float(p.square().mean().sqrt()), 0.1)).to(p)
            for name, p in params.items()
            if p.is_floating_point() and p.numel()
        }
        try:
            rows = answers(drawn) if drawn else None
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError):
            return None
        if rows is None:
            return None
        found.append(rows[rows.isfinite().all(1)])
    every = torch.cat(found)
    alike = all(torch.equal(rows, found[0]) for rows in found) or bool((every == every[:1]).all())
    return None if alike or not len(every) else every
