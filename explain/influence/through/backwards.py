"""The derivative of a number at the end of a training with respect to every example's weight, step by step backwards.

With ``u_t = d number / d state_t``, from the last step to the first::

    (u_t, v_t) = (d update_t)^T u_{t+1}                      by the state and by the gradient g_t
    u_t       += (d g_t / d theta)^T v_t                     a product with the Hessian of the step's loss
    score_it   = (d g_t / d w_i)^T v_t                       what the example's weight at this step does

States are kept where memory allows, else every ``sqrt(T)``-th, and the steps between are taken again. So are graphs,
of the last steps before the way back passes: of other steps they are built again. Of a training whose states were
seen while it went no more is taken again than from each to the next, which proves it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from explain.influence.linear_maps import Bytes, Columns
from explain.influence.through.course import MEMORY, SAME, Course, Slope, Step
from explain.influence.through.proof import Proof, proved
from explain.layouts import held_bytes
from explain.progress import in_sight
from explain.types import NonFinite, Unsupported

SIZED = 8  # steps whose graphs are measured, where there are many
GRAPHS = 2**26  # bytes of graphs that are kept
STALE = 1e-3  # of what is pulled back, that a graph that was kept may be off by
SLOT = 1e-3  # of itself, that a momentum may be off by
SPANS = 100  # of steps, for which what an example did is told apart


class Replay(NamedTuple):
    """A training taken again: the parameters at its end, the states kept, every ``every``-th, and the last slopes.

    ``whose``: says what it must end with. ``gap``: how far it ended from there; None of one that is proved on the way
    back. ``graphs``: of how many steps they are kept at once.
    """

    end: Tensor
    whose: str
    gap: float | None
    kept: list[Tensor]
    every: int
    slopes: dict[int, Slope]
    graphs: int


class Found(NamedTuple):
    """``d number_k / d w_i`` by spans of steps, float64 ``[k, spans, n]``.

    ``steps``: how many were evaluated or pulled back. ``gap``: how far the training taken again is from what was seen.
    ``proof``: of some steps.
    """

    spans: Tensor
    steps: int
    gap: float
    proof: Proof


def replayed(course: Course, end: Tensor, whose: str, progress: bool = False) -> Replay:
    """The training taken again, if it ends where it ended.

    Args:
        course: the training.
        end: parameters ``[p]`` that it ended with.
        whose: says what these are.
        progress: a bar where it takes more than five seconds.

    Raises:
        NonFinite: it diverged.
        Unsupported: it ends elsewhere.
    """
    total, size = len(course.steps), held_bytes(course.start)
    with course.differentiable():
        graphs = GRAPHS // _graph_bytes(course)
        if course.known:
            _check_finite(course, end)
            first, *later = course.known
            return Replay(end, whose, None, [*course.known.values()], (later or [total])[0] - first, {}, graphs)
        every = 1 if (total + 1) * size <= MEMORY else max(1, math.isqrt(total))
        state, kept, slopes = course.start, [], {}
        last = range(max(0, total - graphs), total) if every == 1 else range(0)
        steps = in_sight(course.taken(again=last), total=total, desc="training again", progress=progress)
        for t, (slope, after) in enumerate(steps):
            if t % every == 0:
                kept.append(state)
            if t in last:
                slopes[t] = slope
            state = after
    _check_finite(course, state[0])
    return Replay(state[0], whose, _gap(course, state[0], end, whose), kept, every, slopes, graphs)


def _check_finite(course: Course, reached: Tensor) -> None:
    """Whether a training got somewhere.

    Raises:
        NonFinite: it diverged.
    """
    if not reached.isfinite().all():
        step = _first(course, lambda t, slope, state: not bool(state[0].isfinite().all()))
        raise NonFinite(f"the training diverged: NaN or infinity after step {step} of {len(course.steps)}")


def _gap(course: Course, reached: Tensor, seen: Tensor, whose: str) -> float:
    """How far the parameters ``[p]`` that were reached are from those that were seen.

    Raises:
        Unsupported: too far.
    """
    gap = float((reached - seen).abs().max())
    if not gap <= SAME * max(1.0, float(seen.abs().max())):
        raise Unsupported(
            f"the training taken again ends elsewhere, by up to {gap:.2g}{_departure(course)}, than {whose}"
        )
    return gap


def _check_slots(reached: Tensor, seen: Tensor, t: int) -> None:
    """Whether what the optimizer keeps beside the parameters came from its own steps.

    Raises:
        Unsupported: it was written by another hand.
    """
    largest = seen.abs().amax(1, keepdim=True) if len(seen) else seen
    if bool(((reached - seen).abs() > SLOT * (seen.abs() + 0.01 * largest)).any()):
        raise Unsupported(
            f"what the optimizer keeps (momentum, mean squares) was changed before step {t + 1} other than by its own "
            "steps, and what went before is then not felt as its derivative says: record each stage by itself"
        )


def metagradient(course: Course, replay: Replay, cotangents: Tensor, progress: bool = False) -> Found:
    """See above.

    Args:
        course: the training.
        replay: of it.
        cotangents: the gradients of the numbers at its end, ``[k, p]``.
        progress: a bar where it takes more than five seconds.

    Raises:
        Unsupported: the training taken again goes elsewhere.
        RuntimeError: an operation of the model cannot be differentiated.
    """
    total = len(course.steps)
    spans = torch.zeros(len(cotangents), min(SPANS, total), course.size, dtype=torch.float64)
    u = torch.zeros(len(cotangents), *course.start.shape).to(course.start)
    u[:, 0] = cotangents.to(u)
    gap, proof, asked = replay.gap or 0.0, Proof(), _asked(course, replay)
    through, evaluated = Columns(), (2 if replay.every == 1 or course.known else 3) * total
    with course.differentiable(), in_sight(total=total, desc="backwards", progress=progress) as bar:
        for t, state, kept, off in _backwards(course, replay):
            gap = max(gap, off)
            slope = kept or course.slope(state[0], t, again=True)
            evaluated += kept is None
            u, v = course.pulled(state, slope.gradient.detach(), t, u)
            try:
                back = _pulled(through, slope, v)
            except RuntimeError as error:
                if kept is None or "inplace" not in str(error):  # a loss that writes into memory of its own
                    raise
                back, evaluated = _pulled(through, course.slope(state[0], t, again=True), v), evaluated + 1
            if t in asked:
                if kept is not None and not _as_built_again(course, t, state, v[:1], back[:1]):
                    bar.close()
                    return metagradient(course, replay._replace(slopes={}, graphs=0), cotangents, progress)
                proof = proof.and_(proved(course, t, state[0], v[0], back[0, : course.flat.size]))
            u[:, 0] += back[:, : course.flat.size]
            positions = torch.cat([batch.positions for batch in course.steps[t].batches]).cpu()
            found = back[:, course.flat.size :].detach().double().cpu()
            spans[:, t * spans.size(1) // total].index_add_(1, positions, found)
            bar.update()
    return Found(spans, evaluated, gap, proof)


def _asked(course: Course, replay: Replay) -> set[int]:
    """The steps whose derivative is proved: of three segments the first, and the first whose graph is kept.

    Of these something that a loss had written into, unseen by torch, would be another step's by now.
    """
    total = len(course.steps)
    long = total if replay.every == 1 and not course.known else replay.every
    starts = range(0, total, long)
    some = [range(first, min(first + long, total)) for first in {starts[0], starts[len(starts) // 2], starts[-1]}]
    return {t for steps in some for t in (steps[0], steps[max(0, len(steps) - max(1, replay.graphs))])}


def _as_built_again(course: Course, t: int, state: Tensor, v: Tensor, back: Tensor) -> bool:
    """Whether a graph that was kept gives what one that is built now does."""
    again = _pulled(Columns(), course.slope(state[0], t, again=True), v)
    return float((again - back).norm()) <= STALE * float(again.norm())


def _pulled(through: Columns, slope: Slope, v: Tensor) -> Tensor:
    """Rows ``v [k, p]`` pulled back by the gradient to the parameters and weights it hangs on."""

    def one(v: Tensor) -> Tensor:
        parts = torch.autograd.grad(
            slope.gradient, [*slope.params, *slope.weights], v, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in parts])

    return through(one, v)


def _backwards(course: Course, replay: Replay) -> Iterator[tuple[int, Tensor, Slope | None, float]]:
    """Every step from the last to the first: the state before it, its slope where that was kept, the gap so far."""
    slopes, seen, gap = replay.slopes, replay.end[None], 0.0
    for first, state in zip(range(0, len(course.steps), replay.every)[::-1], replay.kept[::-1], strict=True):
        steps, states = range(first, min(first + replay.every, len(course.steps))), [state]
        if course.known or replay.every > 1:
            last = steps[max(0, len(steps) - replay.graphs) :]
            for t, (slope, after) in zip(steps, course.taken(start=state, steps=steps, again=last), strict=True):
                states.append(after)
                if t in last:
                    slopes[t] = slope
        if course.known and not torch.equal(states[-1][: len(seen)], seen):
            gap = max(gap, _gap(course, states[-1][0], seen[0], replay.whose))
            _check_slots(states[-1][1 : len(seen)], seen[1:], first + len(steps))
        seen = state
        for t in steps[::-1]:
            yield t, states[t - first], slopes.pop(t, None), gap


def _graph_bytes(course: Course) -> int:
    """What the graph of a step's gradient holds at most: all that is made on the way to it, of some steps.

    Those with the most positions, and a few others: rows may be of any size.
    """
    total = len(course.steps)
    sizes = [sum(len(batch.positions) for batch in step.batches) for step in course.steps]
    asked = {sizes.index(max(sizes)), *range(0, total, -(-total // max(1, min(SIZED, total // 25))))}
    most = 1
    for t in asked:
        with Bytes() as made:
            course.slope(course.start[0], t, again=True)
        most = max(most, made.total)
    return most


def _first(course: Course, wrong: Callable[[int, Slope, Tensor], bool]) -> int | None:
    """The first step that is wrong, from 1 on, by its number, its slope and the state after it."""
    with course.differentiable():
        for t, (slope, state) in enumerate(course.taken()):
            if wrong(t, slope, state):
                return t + 1
    return None


def _departure(course: Course) -> str:
    """Where a training that was recorded went another way."""
    step = _first(course, lambda t, slope, state: _departs(course.steps[t], slope.losses))
    if step is not None:
        return f"; its losses are others from step {step} of {len(course.steps)} on"
    followed = all(batch.seen is not None for each in course.steps for batch in each.batches)
    if followed and course.start.dtype != torch.float64:
        return f" (each loss is as recorded, to {SAME:g}: it may be the rounding of {course.start.dtype}; try float64)"
    return ""


def _departs(step: Step, losses: list[Tensor]) -> bool:
    """Whether these losses are others than those recorded."""
    return any(
        batch.seen is not None and not torch.allclose(found, batch.seen, rtol=SAME, atol=SAME)
        for batch, found in zip(step.batches, losses, strict=True)
    )
