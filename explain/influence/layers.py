"""The linear and convolution layers of a model, what goes into them, and what comes back: found by watching it run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explain.types import Objective, Parameters, Unsupported

Name: TypeAlias = tuple[str, str | None]  # of the weight and the bias, as the objective names them


class Use(NamedTuple):
    """One call of a layer: its input and output, which are still part of the graph of derivatives."""

    name: Name
    layer: nn.Module
    input: Tensor
    output: Tensor

    def rows(self) -> Tensor:
        """What each row of outputs is the weight's product with, ``[rows, in (+ 1 for the bias)]``, float64."""
        a = _patches(self.layer, self.input) if _convolves(self.layer) else self.input.reshape(-1, self.input.size(-1))
        a = a.detach().double()
        return a if self.name[1] is None else torch.cat([a, a.new_ones(len(a), 1)], 1)

    def output_rows(self, gradient: Tensor) -> Tensor:
        """A gradient in the output, ``[rows, out]``, float64."""
        if _convolves(self.layer):
            gradient = _batched(self.layer, gradient).flatten(2).transpose(1, 2)
        return gradient.reshape(-1, gradient.size(-1)).double()


def watched(objective: Objective, batch: Tensor) -> tuple[Tensor, list[Use]]:
    """The model's outputs for these examples, and every call of a layer on the way, in order.

    A layer is a convolution, or any module that owns a weight ``[out, in]`` and answers with ``x W^T + b``.

    Raises:
        Unsupported: the objective does not say which module its parameters belong to.
    """
    module = getattr(objective, "module", None)
    if not isinstance(module, nn.Module):
        raise Unsupported(
            f"K-FAC watches the layers of a model, and {type(objective).__name__} has no `module`: use solver='cg', "
            "which needs none"
        )
    names = {id(p): name for name, p in module.named_parameters() if name in objective.params}
    params = {name: p.detach().requires_grad_() for name, p in objective.params.items()}
    uses: list[Use] = []
    with torch.enable_grad():
        handles = [
            part.register_forward_hook(_watch(name, uses)) for part in module.modules() if (name := _named(part, names))
        ]
        try:
            outputs = objective.outputs(params, batch)
        finally:
            for handle in handles:
                handle.remove()
    return outputs, uses


def matrix(params: Parameters, name: Name) -> Tensor:
    """Weight and bias of a layer as one matrix ``[out, in (+ 1)]``; the same of anything with leading dimensions."""
    weight = params[name[0]]
    return weight.flatten(1) if name[1] is None else torch.cat([weight.flatten(1), params[name[1]][:, None]], 1)


def _named(part: nn.Module, names: dict[int, str]) -> Name | None:
    """Which trained parameters are this part's weight and bias, None for a frozen bias; None where it is no layer."""
    weight, bias = part._parameters.get("weight"), part._parameters.get("bias")
    if weight is None or id(weight) not in names:
        return None
    if len(part._parameters) > 2 or not (weight.dim() == 2 or _convolves(part)):
        return None
    return names[id(weight)], None if bias is None else names.get(id(bias))


def _watch(name: Name, uses: list[Use]):  # type: ignore[no-untyped-def]  # torch's own type of hooks
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            return None
        if not _convolves(layer) and not _linear(layer, inputs[0], output):
            return None
        uses.append(Use(name, layer, inputs[0], output))
        return output.clone()  # what follows may work in place

    return hook


def _linear(layer: nn.Module, a: Tensor, output: Tensor) -> bool:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not a.is_floating_point() or a.layout != torch.strided or a.size(-1) != weight.size(1):
        return False
    with torch.no_grad():
        expected = F.linear(a, weight, layer.bias)  # type: ignore[arg-type]
        return expected.shape == output.shape and torch.allclose(expected, output, rtol=1e-4, atol=1e-5)


def _convolves(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups == 1


def _batched(layer: nn.Module, x: Tensor) -> Tensor:
    spatial = 1 if isinstance(layer, nn.Conv1d) else 2
    return x if x.dim() == spatial + 2 else x[None]


def _patches(layer: nn.Module, x: Tensor) -> Tensor:
    """What each output of a convolution looks at, ``[images * positions, channels * kernel]``."""
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d))
    x = F.pad(_batched(layer, x), list(_padding(layer)), _PADDING[layer.padding_mode])
    kernel, dilation, stride = (tuple(map(int, size)) for size in (layer.kernel_size, layer.dilation, layer.stride))
    if isinstance(layer, nn.Conv1d):
        x, kernel, dilation, stride = x[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    found = F.unfold(x, kernel, dilation, 0, stride).transpose(1, 2)
    return found.reshape(-1, math.prod(kernel) * x.size(1))


_PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def _padding(layer: nn.Conv1d | nn.Conv2d) -> Iterator[int]:
    """As ``F.pad`` wants it: both ends of the last dimension first."""
    for i in reversed(range(len(layer.kernel_size))):
        if isinstance(layer.padding, str):
            total = layer.dilation[i] * (layer.kernel_size[i] - 1) if layer.padding == "same" else 0
            yield total // 2
            yield total - total // 2
        else:
            yield int(layer.padding[i])
            yield int(layer.padding[i])
