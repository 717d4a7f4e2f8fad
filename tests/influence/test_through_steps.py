"""The steps of a training by themselves: torch's own, their transposed derivatives, and whose parameters they move."""

import pytest
import torch
from through_cases import OPTIMIZERS

from explain.influence.linear_maps import Flat
from explain.influence.through.course import Course, Step
from explain.influence.through.optimizers import kind_of, update_of

SETTINGS = {
    **OPTIMIZERS,
    "plain, uphill": lambda p: torch.optim.SGD(p, lr=0.2, maximize=True),
    "damped, uphill": lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.5, dampening=0.3, maximize=True),
    "adam, uphill": lambda p: torch.optim.Adam(p, lr=0.2, maximize=True, weight_decay=0.1),
    "adamw, coarse": lambda p: torch.optim.AdamW(p, lr=0.2, eps=0.1, weight_decay=0.1),
}


def course_of(make, sizes=(3, 2), clip=None, before=0):
    """Two parameters, a group each, at a state with momentum."""
    params = [torch.nn.Parameter(torch.randn(size).double()) for size in sizes]
    optimizer = make([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.07}])
    kind = kind_of(optimizer)
    updates = tuple(update_of(kind, group) for group in optimizer.param_groups)
    start = torch.randn(1 + updates[0].slots, sum(sizes)).double()
    start[2:] = start[2:].square()
    named = dict(zip("ab", params, strict=True))
    return optimizer, Course(Flat(named), sizes, start, [Step((), clip, updates)], 1, before)


@pytest.mark.parametrize("clip", [None, 0.5, 100.0])
@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("make", SETTINGS)
def test_what_is_pulled_back_is_autograds(make, before, clip):
    torch.manual_seed(0)
    _, course = course_of(SETTINGS[make], clip=clip, before=before)
    state, gradient = course.start.requires_grad_(), torch.randn(5).double().requires_grad_()
    u = torch.randn(4, *state.shape).double()
    after = course.updated(state, gradient, 0)
    with torch.no_grad():
        by_state, by_gradient = course.pulled(state, gradient, 0, u)
    for k, row in enumerate(u):
        expected = torch.autograd.grad(after, [state, gradient], row, retain_graph=True, materialize_grads=True)
        assert torch.allclose(by_state[k], expected[0], rtol=1e-10, atol=1e-12)
        assert torch.allclose(by_gradient[k], expected[1], rtol=1e-10, atol=1e-12)
    assert float(by_gradient.abs().max()) > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", SETTINGS)
def test_steps_are_torchs_to_the_bit(make, dtype):
    """Or a long run in single precision would not be met again."""
    torch.manual_seed(0)
    _, course = course_of(SETTINGS[make])
    params = [torch.nn.Parameter(torch.randn(size, dtype=dtype)) for size in course.groups]
    optimizer = SETTINGS[make]([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.07}])
    state = torch.zeros_like(course.start, dtype=dtype)
    state[0] = torch.cat([p.detach() for p in params])
    for taken in range(100):
        gradient = torch.randn(5, dtype=dtype)
        for p, part in zip(params, gradient.split([3, 2]), strict=True):
            p.grad = part.clone()
        optimizer.step()
        state = Course(course.flat, course.groups, state, course.steps, 1, taken).updated(state, gradient, 0)
        assert torch.equal(state[0], torch.cat([p.detach() for p in params]))


def test_adam_at_rest_is_not_moved_and_not_felt():
    """A gradient that has always been zero: the root has no derivative there, and is taken to have none."""
    _, course = course_of(OPTIMIZERS["adam"])
    state, nothing = torch.zeros_like(course.start), torch.zeros(5).double()
    by_state, by_gradient = course.pulled(state, nothing, 0, torch.ones(1, *state.shape).double())
    assert by_state.isfinite().all()
    assert by_gradient.isfinite().all()
