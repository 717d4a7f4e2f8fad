"""Operations whose fused form has no second derivative, or a wrong one, in their plain form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn, mkldnn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from explain.threads import alone


@contextmanager
def plain_operations(module: nn.Module) -> Iterator[None]:
    """Within: the module computes the same function by operations that may be differentiated twice.

    Attention by matrix products, recurrent layers step by step, and ``g v / |v|`` of a weight normalisation as it is
    written: the backward of torch's fused one is not differentiated rightly. The module itself stays as it is.
    """
    with alone(), ExitStack() as stack:  # these switches are the process's
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        parts = list(module.modules())
        if any(isinstance(part, nn.RNNBase) for part in parts):
            stack.enter_context(_without_mkldnn())
            stack.enter_context(cudnn.flags(enabled=False))
        if any(parametrize.is_parametrized(part) or part._forward_pre_hooks for part in parts):
            stack.enter_context(_PlainWeightNorm())
        yield


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    before = mkldnn.set_flags(False, None, None, None)[0]  # mkldnn.flags sets others too, and warns
    try:
        yield
    finally:
        mkldnn.set_flags(before, None, None, None)


class _PlainWeightNorm(TorchFunctionMode):
    """Within: ``torch._weight_norm``, which both forms of weight normalisation call, in plain operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation itself, unless it is that one."""
        return (_weight_norm if func is torch._weight_norm else func)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``g v / |v|``, the norm over all dimensions but ``dim``, over all of them where it is -1."""
    over = [d for d in range(v.dim()) if d != dim]
    return v * (g / torch.linalg.vector_norm(v, dim=over, keepdim=True))
