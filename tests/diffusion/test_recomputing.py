"""Gradients through a run: in the memory of one call of the network, and over the noise that it starts from."""

import threading

import pytest
import torch
from diffusers import DDIMScheduler
from diffusion_cases import STEPS, digits_like, tiny_unet, unet_model
from torch import nn

from explain.diffusion.model import DiffusionModel
from explain.diffusion.recomputing import recomputed
from explain.gradient import Gradient
from explain.influence.scores import measured_gradient
from explain.shapley import Shapley
from explain.threads import alone, standing_for
from explain.types import Unsupported

TRAIN = (digits_like(3, seed=1), torch.tensor([0, 1, 2]))


def _mean(x):
    return x.square().mean((1, 2, 3))


def _kept(make):
    """The number, its gradient, and how many bytes the graph of the number holds."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = make()
    return value, sum(held.values())


def test_the_gradient_is_the_same_in_the_memory_of_one_step(monkeypatch):
    model = unet_model(draws=2)
    objectives = {steps: model.trajectory(3, steps=steps, payoff=_mean).objective(TRAIN) for steps in (2, 8)}
    bounded = {}
    for steps, objective in objectives.items():
        params = {name: p.detach().requires_grad_() for name, p in objective.params.items()}
        bounded[steps] = _kept(lambda o=objective, p=params: o.measurement(p))
    gradient = measured_gradient(objectives[8])
    monkeypatch.setattr("explain.diffusion.number.recomputed", lambda denoise, module: denoise)
    params = {name: p.detach().requires_grad_() for name, p in objectives[8].params.items()}
    value, whole = _kept(lambda: objectives[8].measurement(params))
    plain = measured_gradient(objectives[8])
    assert float(bounded[8][0].detach()) == pytest.approx(float(value.detach()), rel=1e-6)
    torch.testing.assert_close(gradient[1], plain[1], rtol=1e-5, atol=1e-8)
    parameters = sum(p.numel() * p.element_size() for p in params.values())
    assert bounded[8][1] - bounded[2][1] < 0.02 * (whole - parameters)  # images alone are kept of the further steps
    assert bounded[8][1] < 0.2 * whole


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x, t):
        return self.inside(x)


def test_the_backward_pass_finds_the_model_as_it_was_asked():
    """Dropout would draw other numbers, were the pass computed again in training mode."""
    module = Dropping().train()
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    called = recomputed(module, module)
    state = torch.get_rng_state()
    (slope,) = torch.autograd.grad(called(x, torch.zeros(1)).sum(), x)
    module.eval()
    (expected,) = torch.autograd.grad(module(x, torch.zeros(1)).sum(), x)
    torch.testing.assert_close(slope, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_worker_of_autograd_asks_for_the_thread_that_waits():
    reached = threading.Event()

    def work(thread):
        with standing_for(thread), alone():
            reached.set()

    with alone():
        worker = threading.Thread(target=work, args=(threading.get_ident(),))
        worker.start()
        worker.join(10)
    assert reached.is_set()


def test_parts_of_the_starting_noise():
    model = DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10)
    run = model.trajectory(3, steps=2, guidance=2.0, payoff=_mean, draws=2)
    players = run.players("noise", size=4)
    assert (players.kind, len(players), players.names[1]) == ("noise", 4, "noise 1")
    masks = torch.tensor([[True] * 4, [False] * 4, [True, False, False, True]])
    values = run.game(players)(masks)
    for mask, value in zip(masks, values, strict=True):
        kept = mask.view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1)
        other = model.trajectory(3, steps=2, guidance=2.0, payoff=_mean, draws=2)
        other.start = torch.where(kept, run.start, run.other_start)
        assert float(value) == pytest.approx(other.value(), rel=1e-4)
    assert not torch.equal(run.start[0], run.other_start[0])
    why = Shapley(players).explain(run)
    assert why.checks["removal"] == "noise of another seed"
    slopes = Gradient(players, method="input_x_gradient").explain(run)
    x = run.start[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run.differentiable(players).f(x).sum(), x)
    credit = (x * gradient).detach()[0].sum((0, 1)).view(2, 4, 2, 4).sum((1, 3)).reshape(-1)
    torch.testing.assert_close(slopes.scores, credit.double(), rtol=1e-4, atol=1e-7)
    with pytest.raises(Unsupported, match="over the parts of its starting noise"):
        run.differentiable("steps")
