"""A denoiser small enough to invert its whole Hessian, trained to a minimum: what influence functions ask for."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from explain.diffusion.model import DiffusionModel
from explain.guard import random_states_kept
from explain.types import Objective, Parameters
from models.datasets import Images

STEPS = 100
NULL = 10


class TinyDenoiser(nn.Module):
    """``e_hat = W_2 tanh(W_1 [x_t, cos(pi k t/T), sin(pi k t/T), label] + b_1) + b_2``, ``k`` 1 and 2.

    Args:
        hidden: units of the layer between; 16 make 2368 parameters.

    >>> net = TinyDenoiser()
    >>> net(torch.zeros(3, 1, 8, 8), torch.tensor([0, 50, 99]), torch.tensor([1, 2, 10])).shape
    torch.Size([3, 1, 8, 8])
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.inner = nn.Linear(64 + 4 + NULL + 1, hidden)
        self.outer = nn.Linear(hidden, 64)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The noise in ``x [n, 1, 8, 8]`` at steps ``t [n]``, for labels ``[n]``."""
        angle = math.pi / STEPS * t.to(x.dtype)[:, None] * torch.tensor([1.0, 2.0], dtype=x.dtype, device=x.device)
        given = F.one_hot(label, NULL + 1).to(x.dtype)
        seen = torch.cat([x.flatten(1), angle.cos(), angle.sin(), given], 1)
        return self.outer(self.inner(seen).tanh()).view_as(x)


def untrained(hidden: int = 16, *, weight_decay: float = 0.02, draws: int = 8, seed: int = 0) -> DiffusionModel:
    """A `TinyDenoiser` at its first weights, in float64, with a linear schedule of 100 steps."""
    with random_states_kept():
        torch.manual_seed(seed)
        net = TinyDenoiser(hidden).double()
    betas = torch.linspace(1e-3, 0.1, STEPS)
    return DiffusionModel(
        net, time="step", betas=betas, null=NULL, shape=(1, 8, 8), weight_decay=weight_decay, draws=draws
    )


def train(model: DiffusionModel, data: Images, *, progress: bool = True) -> DiffusionModel:
    """Train in place, to a minimum of the very loss that influence functions differentiate."""
    loss = model.step(data.images[0], t=0, label=NULL).objective(data)  # whatever is asked, the loss is the same
    model.denoiser.load_state_dict(minimum(loss, loss.params, progress=progress))
    return model


def minimum(trained: Objective, start: Parameters, *, iterations: int = 1000, progress: bool = False) -> Parameters:
    """L-BFGS from ``start`` on ``J(theta)``, until no slope is above 1e-7.

    Raises:
        RuntimeError: not there after so many iterations.
    """
    params = {name: value.clone().requires_grad_() for name, value in start.items()}
    everyone = torch.arange(trained.size)
    optimizer = torch.optim.LBFGS(
        list(params.values()),
        max_iter=iterations,
        tolerance_grad=1e-7,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )
    with tqdm(desc="training tiny denoiser", disable=not progress) as bar:

        def closure() -> Tensor:
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in params.values())
            loss = trained.train_loss(params, everyone).sum() / trained.size + trained.weight_decay / 2 * penalty
            loss.backward()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.5f}", refresh=False)
            return loss

        optimizer.step(closure)
    slope = max(float(p.grad.abs().max()) for p in params.values() if p.grad is not None)
    if not slope <= 1e-6:
        raise RuntimeError(f"no minimum after {iterations} iterations, the slope is {slope:.2g}: allow more iterations")
    return {name: value.detach() for name, value in params.items()}
