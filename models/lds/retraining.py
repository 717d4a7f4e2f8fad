"""A setting's network trained again with other weights of its examples: many at once, or one recorded run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import explain
from explain.influence.through import Recording
from explain.types import Parameters
from models.lds.settings import Setting


@dataclass(frozen=True, eq=False)
class Again:
    """``(kept bool [m, n], seed) -> parameters [m, ...]``: what `explain.metrics.Retrainings` trains.

    All start from the same first weights and see the same batches and draws; an example that is left out has weight 0
    in each, and a batch's mean is over all its examples.
    """

    setting: Setting

    def __call__(self, kept: Tensor, seed: int) -> Parameters:
        """Trained in eval mode, as `recorded` does it."""
        setting, net = self.setting, self.setting.net(seed).eval()

        def loss(params: Parameters, weights: Tensor, at: Tensor, drawn: tuple[Tensor, ...]) -> Tensor:
            return (weights * setting.losses(lambda *x: functional_call(net, params, x), at, *drawn)).mean()

        gradients = vmap(lambda *given: grad(loss)(*given), (0, 0, None, None))
        params = {name: p.detach().expand(len(kept), *p.shape).clone() for name, p in net.named_parameters()}
        optimizer = setting.optimizer(list(params.values()))
        schedule = setting.schedule(optimizer)
        for _, (at, drawn) in zip(range(setting.steps), setting.batches(seed), strict=False):
            found = gradients(params, kept.float()[:, at], at, drawn)
            for name, p in params.items():
                p.grad = found[name]
            optimizer.step()
            schedule.step()
        return params


def recorded(setting: Setting, seed: int = 0) -> tuple[nn.Module, Recording]:
    """The network trained on all examples, and the record of that."""
    net = setting.net(seed).eval()
    optimizer = setting.optimizer(net.parameters())
    schedule = setting.schedule(optimizer)
    with explain.recorded(optimizer, net) as run:
        for _, (at, drawn) in zip(range(setting.steps), setting.batches(seed), strict=False):
            optimizer.zero_grad()
            run.loss(at, lambda at, *drawn: setting.losses(net, at, *drawn), *drawn).backward()
            optimizer.step()
            schedule.step()
    return net, run
