"""The border: every module becomes ``[rows, *shape] -> [rows, outputs]``, and what is wrong with it is said here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from explain.draws import seeded_by_input, seeded_remedy
from explain.guard import recordable
from explain.parts import Part
from explain.types import NonFinite

MEMORY = 2**28  # bytes of intermediate results in one forward pass
LARGEST_BATCH = 4096


def checked_example(x: Tensor, module: nn.Module) -> Tensor:
    """One example ``[features]`` or ``[C, H, W]``, detached, of the module's own dtype and device.

    Raises:
        TypeError: not a tensor, or another dtype than the module's.
        ValueError: another shape, or another device than the module's.
        NonFinite: NaN or infinity in the example.
    """
    parts = list(x.values()) if isinstance(x, Mapping) else x
    if isinstance(parts, (tuple, list)) and parts and all(isinstance(part, Tensor) for part in parts):
        raise TypeError(
            f"x must be one torch.Tensor, got {len(x)}: join the inputs of a model of several into one row, "
            "torch.cat([a.flatten(), b.flatten()]), and split it in a module around the model"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}: use torch.as_tensor(x)")
    if x.dim() not in (1, 3) or x.numel() == 0:
        remedy = "leave the batch dimension out"
        if x.dim() == 2 and len(x) > 1:  # a series
            remedy = (
                "of a batch give one row; an image is [C, H, W], x[None]; a series is explained as one row, net = "
                f"nn.Sequential(nn.Unflatten(1, {tuple(x.shape)}), net) and x.flatten(), its steps or channels "
                "as Players with groups"
            )
        raise ValueError(f"x must be one example, [features] or [C, H, W], got {list(x.shape)}: {remedy}")
    like = checked_like(x, module, "x")
    if like.is_floating_point() and not like.isfinite().all():
        raise NonFinite(f"x holds NaN or infinity in {int((~like.isfinite()).sum())} of {like.numel()} places")
    return like.detach()


def checked_like(x: Tensor, module: nn.Module, name: str) -> Tensor:
    """``x`` if it is of the module's device, and floating point of its dtype, or whole numbers that it looks up.

    Raises:
        TypeError: another dtype.
        ValueError: another device.
    """
    weight = next((p for p in module.parameters() if p.is_floating_point()), None)
    token_ids = x.dtype in (torch.int32, torch.int64) and any(isinstance(m, nn.Embedding) for m in module.modules())
    if not token_ids and (not x.is_floating_point() or (weight is not None and x.dtype != weight.dtype)):
        expected = "floating point" if weight is None else str(weight.dtype)
        remedy = f"use {name}.to({expected if weight is not None else 'torch.float32'})"
        if x.dtype == torch.uint8:
            remedy = f"give the numbers that the model was trained on, such as {name}.float() / 255, then normalised"
        elif not x.is_floating_point():
            remedy += "; token ids are taken as they are where the model holds an nn.Embedding"
        raise TypeError(f"{name} must be {expected} as the model is, got {x.dtype}: {remedy}")
    if weight is not None and x.device != weight.device:
        raise ValueError(f"{name} must be on {weight.device} as the model is, got {x.device}: use {name}.to(device)")
    return recordable(x)


def outputs_of(module: Callable[[Tensor], Any], x: Tensor, part: Part) -> Tensor:
    """The module's outputs ``[rows, outputs]`` for ``x [rows, *shape]``; ``[rows]`` counts as one output a row.

    Raises:
        ValueError: the module cannot take such inputs, or does not answer with one row of numbers an example.
        OutOfMemoryError: as torch raises it.
    """
    try:
        answer = module(x.clone())  # a first layer may write onto what it is given
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a user's forward raises
        name = f"{type(module).__name__}, ..." if isinstance(module, nn.Module) else "..."
        raise ValueError(
            f"explain.wrap({name}).example(x): the model could not take inputs of shape {list(x.shape)}, {x.dtype}: "
            f"{type(error).__name__}: {error}{_remedy(error, x, module)}"
        ) from error
    try:
        outputs = part.rows(answer, len(x))
    except TypeError as error:
        raise ValueError(f"{error}; or wrap it in a module that returns its logits") from None
    squeezed = isinstance(answer, Tensor) and len(x) == 1 and answer.dim() < 2
    if outputs.dim() != 2 or len(outputs) != len(x) or not outputs.size(1):
        raise ValueError(
            f"the model must answer [rows, outputs] in floating point, here [{len(x)}, outputs], "
            f"got {list(outputs.shape)} of {outputs.dtype}: wrap it in a module that returns its logits"
            f"{', a row for each: squeeze() takes that of a single one too, squeeze(-1) does not' if squeezed else ''}"
        )
    return outputs


def _remedy(error: Exception, x: Tensor, module: Any) -> str:
    """What to do about the commoner reasons for which a forward fails."""
    if "required positional argument" in str(error):
        return (
            "; the inputs of a model of several go in as one row, torch.cat([a.flatten(), b.flatten()]), which a "
            "module around the model splits"
        )
    tables = [m for m in module.modules() if isinstance(m, nn.Embedding)] if isinstance(module, nn.Module) else []
    if tables and x.is_floating_point() and "indices" in str(error):
        return "; token ids are whole numbers: use x.long()"
    if tables and not x.is_floating_point() and "out of range" in str(error):
        rows = " or ".join(dict.fromkeys(str(table.num_embeddings) for table in tables))
        return f"; ids run from {int(x.min())} to {int(x.max())}, and the embedding has {rows} rows"
    return ""


class Batching(NamedTuple):
    """How many rows one call of the model may take, and whether each row of a batch is answered as it is alone."""

    rows: int
    independent: bool


def batching_of(outputs: Callable[[Tensor], Tensor], x: Tensor, other: Tensor, batch_size: int | None) -> Batching:
    """What the memory budget allows, or one row a call where the rows of a batch see one another.

    Both are measured on the two different examples ``x`` and ``other``, alone and together.

    Raises:
        ValueError: two calls on the same input differ, or what the model draws is seeded by its input.
        NonFinite: NaN or infinity in the outputs.
    """
    with _Bytes() as alone:
        first = outputs(x[None])
    if not first.isfinite().all():
        raise NonFinite("the model answers NaN or infinity for this example: check its weights and the input's scale")
    if not _agree(first, outputs(x[None])):
        raise ValueError(
            "the model is not deterministic: two calls on the same input differ in eval mode. Make its noise a fixed "
            "input, or seed it inside forward"
        )
    scaled = 1.01 * x if x.is_floating_point() else other
    if seeded_by_input(lambda: outputs(x[None]), lambda: outputs(scaled[None])):
        raise ValueError(seeded_remedy("each coalition"))
    with _Bytes() as pair:
        together = outputs(torch.stack([x, other]))
    if not _agree(together, torch.cat([first, outputs(other[None])])):
        return Batching(1, False)
    affordable = MEMORY // max(pair.bytes - alone.bytes, 1)
    return Batching(batch_size or max(1, min(LARGEST_BATCH, affordable)), True)


def _agree(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding, relative to the largest entry."""
    scale = max(float(a.abs().max()), float(b.abs().max()))
    return float((a - b).abs().max()) <= torch.finfo(a.dtype).eps ** 0.6 * scale


class _Bytes(TorchDispatchMode):
    """Counts the bytes that a forward pass produces: an upper bound of what it needs at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.bytes += sum(part.nbytes for part in tree_leaves(found) if isinstance(part, Tensor))
        return found
