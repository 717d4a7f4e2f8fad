"""A real picture taken back to the noise from which a pipeline's own call ends in it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from explain.diffusion.conventions import position
from explain.diffusion.inversion import gone_back
from explain.diffusion.pipelines.call import PipelineCall
from explain.diffusion.pipelines.inside import Inside
from explain.diffusion.pipelines.stand_ins import stepped
from explain.diffusion.pipelines.watched import Enough, Watched, step_arguments
from explain.diffusion.settings import checked_count
from explain.guard import evaluating


class _Noting(Watched):
    """Ends a run at its first step, and keeps the scheduler and the further arguments of that step."""

    scheduler: Any = None

    def step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Nothing: the run ends.

        Raises:
            Enough: always.
        """
        own = step_arguments(step, args, kwargs)
        self.scheduler = stepped(step)
        self.options = {
            name: value
            for name, value in kwargs.items()
            if name not in ("generator", "return_dict") and not any(value is one for one in own)
        }
        raise Enough


@torch.no_grad()
def latents_of(inside: Inside, latent: Tensor, steps: int, guidance: float | None, iterations: int) -> Tensor:
    """``latents [1, ...]`` from which the pipeline's own call of so many steps, unguided, ends in ``latent``.

    The schedule is that of the pipeline's own call, which may have shifted it; see `gone_back`.

    Args:
        inside: the network, as this call asks it.
        latent: where the run is to end, ``[C, h, w]``.
        steps: of the call.
        guidance: the call's ``guidance_scale``.
        iterations: of each step's equation.

    Raises:
        Unsupported: steps that cannot be gone backwards.
    """
    noting, iterations = _Noting(1), checked_count(iterations, "iterations")
    with contextlib.suppress(Enough):
        row = inside.run.rows_of(inside.run.own)[:1]
        PipelineCall(inside.pipeline, steps, guidance, inside.settings)(row, noting.network, noting.step)
    model, condition = inside.denoiser(), inside.conditions[0]

    def asked(seen: Tensor, t: Tensor) -> Tensor:
        place = position(model.process, noting.scheduler, torch.as_tensor(t, device=seen.device)).reshape(1)
        return model.denoiser(seen, place.to(seen.device), condition, branch="cond")

    with evaluating(model.denoiser):
        start = gone_back(noting.scheduler, asked, latent, iterations, noting.options)[None]
    return start if inside.net.packing is None else inside.net.packing.pack(start)
