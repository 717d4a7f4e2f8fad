"""Gradients through a whole run in the memory of one call of the network."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from explain.guard import evaluating
from explain.threads import standing_for


def recomputed(denoise: Callable[..., Tensor], module: nn.Module) -> Callable[..., Tensor]:
    """The same function, which keeps its inputs alone and computes what lies between once more in the backward pass.

    A gradient through ``n`` calls then needs the activations of one, for the time of ``n`` further forward passes
    (Chen et al. 2016). Without gradients, and inside of `torch.func`, which knows no such thing, it is called plainly.

    Args:
        denoise: ``(x, t, condition, branch=) -> prediction``.
        module: whose modes and buffers are as they were also after the backward pass.
    """

    def call(*arguments: Any, **named: Any) -> Tensor:
        if not torch.is_grad_enabled() or torch._C._functorch.maybe_current_level() is not None:
            return denoise(*arguments, **named)
        thread = threading.get_ident()

        def again(*arguments: Any, **named: Any) -> Tensor:
            with standing_for(thread), evaluating(module):
                return denoise(*arguments, **named)

        found: Tensor = checkpoint(again, *arguments, use_reentrant=False, preserve_rng_state=False, **named)
        return found

    return call
