"""The settings of a question, checked: each error says what was expected, what came, and the remedy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.sites import KINDS, SAMPLES
from explain.payoffs import whole_number


def checked_seed(seed: Any) -> int:
    """A seed that torch's generators take.

    Raises:
        ValueError: anything else.
    """
    found = whole_number(seed)
    if found is None or not 0 <= found < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r:.60}")
    return found


def checked_count(count: Any, what: str) -> int:
    """A whole number from 1 on.

    Raises:
        ValueError: anything else.
    """
    found = whole_number(count)
    if found is None or found < 1:
        raise ValueError(f"{what} must be a whole number, at least 1, got {count!r:.60}")
    return found


def checked_batch_size(size: Any) -> int | None:
    """Images in one forward pass, or None for the memory budget.

    Raises:
        ValueError: anything else.
    """
    return None if size is None else checked_count(size, "batch_size (None: from a memory budget)")


def checked_guidance(weight: Any) -> float:
    """A finite guidance weight.

    Raises:
        ValueError: anything else.
    """
    number = weight.item() if isinstance(weight, Tensor) and weight.numel() == 1 else weight
    try:
        found = math.nan if isinstance(number, (bool, str, bytes)) else float(number)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"guidance must be a finite number, the w in u + w (c - u), 1 for none; got {weight!r:.60}")
    return found


def checked_latents(latents: Any, shape: Sequence[int], draws: int) -> Tensor:
    """The noise that each draw starts from, ``[draws, *shape]``, of standard deviation 1 as a pipeline takes it.

    Raises:
        ValueError: another shape, NaN or infinity.
    """
    found = latents.detach() if isinstance(latents, Tensor) else None
    if found is not None and tuple(found.shape) == tuple(shape):
        found = found[None]
    if found is None or tuple(found.shape) != (draws, *shape) or not bool(found.isfinite().all()):
        got = type(latents).__name__ if found is None else f"{list(found.shape)}"
        raise ValueError(f"latents must be finite numbers, one start a draw, {[draws, *shape]}, got {got}")
    return found


def checked_eta(eta: Any, scheduler: Any) -> float | None:
    """The noise that steps add beside their own, where the scheduler takes it; None: as the scheduler does by itself.

    Raises:
        ValueError: no number from 0 to 1, or a scheduler that takes none.
    """
    if eta is None:
        return None
    if isinstance(eta, bool) or not isinstance(eta, (int, float)) or not 0 <= eta <= 1:
        raise ValueError(f"eta must be from 0 (no noise in the steps) to 1 (that of DDPM), got {eta!r:.60}")
    if "eta" not in inspect.signature(scheduler.step).parameters:
        raise ValueError(f"the steps of {type(scheduler).__name__} take no eta: DDIMScheduler's do")
    return float(eta)


def checked_region(region: Any, size: torch.Size) -> Tensor:
    """Which sites of a sample count, bool ``[H, W]`` of an image; everywhere when None.

    Raises:
        ValueError: another shape, other values than true and false, or no pixel.
    """
    try:
        found = torch.ones(size) if region is None else torch.as_tensor(region)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"region must be bool {list(size)}, got {type(region).__name__}") from error
    if found.shape != size or not found.any():
        got = f"{list(found.shape)}" if found.shape != size else "none"
        raise ValueError(f"region must be bool {list(size)} with at least one pixel, got {got}")
    if not ((found == 0) | (found == 1)).all():
        raise ValueError(
            f"region must be bool {list(size)}: a pixel counts or does not, got other numbers than 0 and 1"
        )
    return found.bool()


def checked_shape(shape: Any, channels: int | None) -> tuple[int, ...]:
    """The sizes of one sample: ``(D,)``, ``(C, L)``, ``(C, H, W)`` or ``(C, T, H, W)``.

    Raises:
        ValueError: sizes that are none, or other channels than the network's.
    """
    sizes = [whole_number(size) for size in shape] if isinstance(shape, (Sequence, Tensor)) else []
    found = tuple(size for size in sizes if size is not None and size >= 1)
    if len(found) not in KINDS or len(found) != len(sizes):
        raise ValueError(f"shape must be that of one sample, {SAMPLES}, got {shape!r:.60}")
    if channels is not None and (len(found) == 1 or found[0] != channels):
        raise ValueError(f"shape must have the {channels} channels of the network, got {found}")
    return found
