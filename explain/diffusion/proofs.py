"""What is proved of a network before it is asked: that it answers, always the same, and each row by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.diffusion.denoiser import Condition, Denoiser
from explain.diffusion.networks import core
from explain.diffusion.process import Process
from explain.draws import seeded_by_input, seeded_remedy
from explain.guard import evaluating, other_random_states

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the largest number, by the network's type; others: 3 %


def elsewhere(process: Process, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """``x [1, ...]`` at ``t [1]``, and below it another picture at another step: ``[2, ...]`` and ``[2]``."""
    other = x.flip(-1)
    return torch.cat([x, x / 2 if torch.equal(other, x) else other]), torch.cat(
        [t, (t - process.first + process.steps // 2) % process.steps + process.first]
    )


@torch.no_grad()
def check_rows(denoiser: Denoiser, x: Tensor, t: Tensor, condition: Condition) -> dict[str, str]:
    """Call the network on each of two rows alone, twice, and on both in one batch.

    Args:
        denoiser: the network.
        x: ``[2, ...]``.
        t: ``[2]``.
        condition: one row for both, or two.

    Returns:
        What was taken to be so about its answers.

    Raises:
        ValueError: it cannot be called, answers at random or from a seed that its input makes, or a row hangs on the
            others of its batch.
        NonFinite: NaN or infinity.
        OutOfMemoryError: as torch raises it.
    """

    def given(rows: list[int]) -> tuple[Tensor, Tensor, Condition]:
        return x[rows], t[rows], {name: part[rows] if len(part) > 1 else part for name, part in condition.items()}

    with other_random_states(0), evaluating(denoiser):
        said = denoiser.tried(*given([0]))
        alone = torch.cat([denoiser(*given([row])) for row in (0, 1)])
    with other_random_states(1), evaluating(denoiser):
        again = denoiser(*given([0]))
        try:
            batch = denoiser(*given([0, 1, 0, 1]))
        except torch.OutOfMemoryError:
            raise
        except (TypeError, RuntimeError, IndexError, ValueError) as error:
            raise ValueError(
                f"the denoiser answers one image and not a batch, x_t {[4, *x.shape[1:]]} and t [4]: "
                f"{error}. It must read t[i], and its label, for row i: no t.item() and no t[0]"
            ) from error
    together, repeated = batch.chunk(2)
    if not (_same(alone[:1], again) and _same(together, repeated)):
        raise ValueError(
            "the denoiser is not deterministic: two calls in eval mode differ. Where it drops its label at random "
            "(cond_drop_prob), wrap a function that says not to"
        )
    first, first_t, its = given([0])
    with evaluating(denoiser):  # the other row may have the same sum, which seeds are made of
        if seeded_by_input(lambda: denoiser(first, first_t, its), lambda: denoiser(1.01 * first, first_t, its)):
            raise ValueError(seeded_remedy("each filled image"))
    if not _same(alone, together):
        raise ValueError(
            "the denoiser answers a row of a batch otherwise than alone: rows are coalitions and draws, each with its "
            "own t. It must read x[i], t[i] and the label for row i (no t[0], no mean or norm over the batch)"
        )
    return said


@torch.no_grad()
def check_guidance(
    denoiser: Denoiser, x: Tensor, t: Tensor, condition: Condition, null: Condition, weight: float
) -> dict[str, str]:
    """Compare ``u + w (c - u)`` with the network's own guidance, where it has one: what its user's sampling calls.

    Args:
        denoiser: the network.
        x: ``[1, ...]``.
        t: ``[1]``.
        condition: of ``c``.
        null: of ``u``.
        weight: ``w``.

    Returns:
        What was found.

    Raises:
        ValueError: it is another.
    """
    own = getattr(core(denoiser.net), "forward_with_cond_scale", None)
    if own is None or weight == 1:
        return {}
    given = {name: value for name, value in condition.items() if name != denoiser.names.drop}
    seen, time = (x, t) if denoiser.convention is None else denoiser.convention.asked(x, t)
    try:
        answer = own(seen, time, **given, cond_scale=weight)
    except (TypeError, ValueError, RuntimeError) as error:
        return {"guidance": f"u + w (c - u); forward_with_cond_scale could not be compared with: {error}"}
    found = denoiser.read(answer[0] if isinstance(answer, tuple) else answer, x, t)
    c, u = denoiser(x, t, condition), denoiser(x, t, null)
    expected = u + weight * (c - u)
    if not _same(found, expected):
        gap = float((found - expected).norm() / expected.norm().clamp_min(1e-12))
        raise ValueError(
            f"forward_with_cond_scale(cond_scale={weight:g}) of this network is not u + w (c - u), by {gap:.2g} of its "
            "size: it rescales, or leaves out the part along c. Ask with guidance=1, or wrap a function "
            "(x_t, t, label) that calls it as your sampling does, and ask that with guidance=1"
        )
    return {"guidance": "u + w (c - u), as forward_with_cond_scale"}


def _same(one: Tensor, other: Tensor) -> bool:
    bound = _TOLERANCE.get(one.dtype, 3e-2)
    return torch.allclose(one, other, rtol=bound, atol=bound * max(float(one.abs().max()), 1e-12))
