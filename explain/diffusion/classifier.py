"""Classifier guidance: a denoiser that no label was trained into, steered by a classifier of noised images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.denoiser import Condition, Denoiser
from explain.diffusion.process import Gaussian
from explain.plain import plain_operations
from explain.types import NonFinite

_LABEL = "label"


class ClassifierGuided(Denoiser):
    """``e(x_t, t) - s_t grad log p(y | x_t)`` where a label ``y`` is given, ``e(x_t, t)`` where none is.

    As branches of ``u + w (c - u)`` these are the guidance of Dhariwal and Nichol (2021, algorithm 2) with scale ``w``,
    in every parameterisation of the prediction: ``grad log q(x_t | y) = -e / s_t + grad log p(y | x_t)``.

    Args:
        denoiser: of a network that takes no label.
        classifier: ``(x_t [b, *shape], t [b]) -> logits [b, classes]``, given what the network itself is given.
        process: its noise.

    Raises:
        TypeError: a network that takes a label itself, or a classifier that is no function.
    """

    def __init__(self, denoiser: Denoiser, classifier: nn.Module | Callable[..., Tensor], process: Gaussian) -> None:
        super().__init__(denoiser.net, denoiser.convention)
        if not callable(classifier):
            raise TypeError(f"classifier must be a function (x_t, t) -> logits, got {type(classifier).__name__}")
        if self.names.label is not None or self.names.candidates:
            taken = self.names.label or " or ".join(self.names.candidates)
            raise TypeError(
                f"this network takes a label itself ({taken}), and which it is given beside the classifier's is not "
                "known: wrap a function (x_t, t) that gives it, lambda x, t: unet(x, t, class_labels=...)"
            )
        self.classifier, self.process = classifier, process
        self.names = replace(self.names, label=_LABEL, known=frozenset({_LABEL}))

    def called(self, x: Tensor, timestep: Tensor, condition: Condition | None = None) -> Any:
        """Whatever the network itself returns."""
        return super().called(x, timestep, _without_label(condition))

    def forward(
        self, x: Tensor, timestep: Tensor, condition: Condition | None = None, branch: str | None = None
    ) -> Tensor:
        """The prediction, steered where there is a label."""
        prediction = super().forward(x, timestep, condition, branch)
        if not condition or _LABEL not in condition:
            return prediction
        label = condition[_LABEL].expand(len(x))
        noise = self.process.noise_in(x, prediction, timestep)
        steered = noise - self.process.levels(timestep, x)[1] * self.gradient(x, timestep, label)
        a, s = self.process.levels(timestep, x)
        return self.process.wanted((x - s * steered) / a, steered, timestep)

    def gradient(self, x: Tensor, timestep: Tensor, label: Tensor) -> Tensor:
        """``grad log p(y | x_t)`` with respect to ``x_t``, ``[b, *shape]``."""

        def evidence(x: Tensor) -> Tensor:
            return self.logits(x, timestep).log_softmax(1).gather(1, label[:, None]).sum()

        again = torch.is_grad_enabled()  # whether it is differentiated once more
        with plain_operations(self) if again else nullcontext():
            if torch._C._functorch.maybe_current_level() is not None:
                found: Tensor = torch.func.grad(evidence)(x)
                return found
            with torch.enable_grad():  # torch.func does not go into what is recomputed
                own = x if x.requires_grad and again else x.detach().requires_grad_()
                return torch.autograd.grad(evidence(own), own, create_graph=again)[0]

    def logits(self, x: Tensor, timestep: Tensor) -> Tensor:
        """What the classifier says about ``x_t``, ``[b, classes]``.

        Raises:
            ValueError: no row of logits for each image.
        """
        seen, time = (x, timestep) if self.convention is None else self.convention.asked(x, timestep)
        logits = self.classifier(seen, time)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"classifier must give logits [{len(x)}, classes], got {got}")
        return logits

    def tried(self, x: Tensor, timestep: Tensor, condition: Condition) -> dict[str, str]:
        """One call of both, and what was taken to be so.

        Raises:
            ValueError: one of them cannot be called so, in words; the label is no class of the classifier, or it gives
                probabilities.
            NonFinite: NaN or infinity.
        """
        said = super().tried(x, timestep, condition)
        if _LABEL not in condition:
            return said
        try:
            logits = self.logits(x, timestep)
        except (TypeError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"the classifier cannot be called as the network is, with x_t {list(x.shape)} and t "
                f"{list(timestep.shape)}: {type(error).__name__}: {error}"
            ) from error
        label = condition[_LABEL]
        if label.is_floating_point() or label.dim() != 1 or not 0 <= int(label[0]) < logits.size(1):
            raise ValueError(f"the classifier knows the classes 0 to {logits.size(1) - 1}, got {label.tolist()!r:.60}")
        if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-3):
            raise ValueError("the classifier gives probabilities: its logits are needed, before the softmax")
        if not self.gradient(x, timestep, label.expand(len(x))).isfinite().all():
            raise NonFinite("the classifier's gradient is NaN or infinity here")
        return said | {"classifier": "given x_t and t as the network is; w is the scale of grad log p(y | x_t)"}


def _without_label(condition: Condition | None) -> Condition:
    return {name: value for name, value in (condition or {}).items() if name != _LABEL}
