"""A trained classifier or regressor, ready to be asked about one example."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from explain.guard import recordable, untouched, usual_modes
from explain.payoffs import Payoff, checked_label, payoff_function
from explain.supervised.baselines import Baseline, chosen
from explain.supervised.border import batching_of, checked_example, checked_like, outputs_of
from explain.supervised.targets import ExampleTarget
from explain.types import NonFinite


@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """Any torch classifier or regressor ``[rows, *shape] -> [rows, outputs]`` on tables or images.

    Args:
        module: the trained model. Of a tuple its first tensor is read, of a mapping its "logits"; one output a row of a
            classifier is the logit of class 1.
        task: "classification" or "regression".
        background: ``[m, features]`` or ``[m, C, H, W]``, typical examples: what an absent feature may look like.
        train: what it was trained on, for `Influence`: ``(inputs, labels)``, a Dataset or a DataLoader.
        weight_decay: of the trained loss, as in ``torch.optim.SGD``.
        loss: ``(outputs, labels) -> [examples]``; cross entropy or squared error when None.
        feature_names: one a feature of a table.
        batch_size: rows in one call of the model; from a memory budget when None. Never changes a result.
        query_rows: for `Attention`, the rows of an attention map that outputs are read from: ``(0,)``, a class token.

    Raises:
        TypeError: ``module`` is no module, ``background`` no tensor or of another dtype than the module.
        ValueError: an unknown task, a negative weight decay, no batch, an empty background or one on another device.
        NonFinite: NaN or infinity in the background.

    >>> linear = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(linear.weight, 2.0)
    >>> target = SupervisedModel(linear, task="regression").example(torch.tensor([1.0, 3.0]))
    >>> target.value(), target.game("features")(torch.tensor([[True, False], [False, True]]))
    (8.0, tensor([2., 6.], dtype=torch.float64))
    """

    module: nn.Module
    _: KW_ONLY
    task: str
    background: Tensor | None = None
    train: Any = None
    weight_decay: float = 0.0
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    feature_names: tuple[str, ...] = ()
    batch_size: int | None = None
    query_rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"the model must be a torch.nn.Module, got {type(self.module).__name__}")
        if self.task not in ("classification", "regression"):
            raise ValueError(f"task must be 'classification' or 'regression', got {self.task!r}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or None, got {self.batch_size}")
        object.__setattr__(self, "feature_names", tuple(self.feature_names))
        if self.background is not None:
            self._check_background(self.background)
            object.__setattr__(self, "background", recordable(self.background))

    def example(
        self,
        x: Tensor,
        label: int | None = None,
        *,
        payoff: Payoff = "logit",
        baseline: str | Tensor | Baseline | None = None,
    ) -> ExampleTarget:
        """The number that the model says about one example, as a question to explain.

        Args:
            x: ``[features]`` or ``[C, H, W]``, of the model's dtype and device.
            label: the class; the predicted one when None. Of a regressor, which of several outputs.
            payoff: "logit", "probability", "log_probability", "loss", or a callable ``[rows, outputs] -> [rows]``.
            baseline: what an absent feature looks like. "zeros"; "mean" of the background; a tensor like ``x``; a
                tensor ``[m, *x.shape]`` or "background": the number averaged over those rows (interventional);
                "conditional" or a `Conditional`: ``E[f(x) | x_S]`` under a Gaussian fitted to the background.
                None: "background" where the model has one, else "zeros".

        Raises:
            TypeError, ValueError, NonFinite: see `checked_example`, `outputs_of`, `batching_of`, `chosen` and
                `payoff_function`; no such label; a name a feature is missing.

        Warns:
            UserWarning: the rows of a batch see one another, so that each is evaluated alone.
        """
        with usual_modes():
            x = checked_example(x, self.module)
        if self.feature_names and (len(self.feature_names),) != x.shape:
            raise ValueError(
                f"{len(self.feature_names)} feature names need x [{len(self.feature_names)}], got {list(x.shape)}"
            )
        with usual_modes():
            absence = chosen(baseline, x, self.background)
        with untouched(self.module), torch.no_grad():
            batching = batching_of(self.outputs, x, absence.reference, self.batch_size)
            outputs = self.outputs(x[None])
        if not batching.independent:
            warnings.warn("rows of a batch see one another in this model: evaluated one by one, slowly", stacklevel=2)
        label, number = self._number(payoff, label, outputs)
        number(outputs)  # a callable that does not fit is told so now
        return ExampleTarget(self, x, label, payoff, number, absence, batching)

    def outputs(self, x: Tensor) -> Tensor:
        """The module's outputs ``[rows, outputs]`` for ``x [rows, *shape]``, in the mode the module is in."""
        return outputs_of(self.module, x)

    def _number(
        self, payoff: Payoff, label: int | None, outputs: Tensor
    ) -> tuple[int | None, Callable[[Tensor], Tensor]]:
        """The label that is meant, and the number as a function of the outputs ``[rows, outputs] -> [rows]``."""
        asked = None if label is None else _as_index(label)
        if self.task == "classification":
            found = checked_label(asked, outputs[0])
            return found, payoff_function(payoff, found)
        number = payoff_function(payoff, None)
        count = outputs.size(1)
        if asked is None and (count == 1 or callable(payoff)):
            return None, number
        if asked is None or not 0 <= asked < count:
            raise ValueError(f"label must say which of the regressor's {count} outputs is meant, 0 to {count - 1}")
        return asked, number if callable(payoff) else lambda found: number(found[:, asked, None])

    def _check_background(self, background: Tensor) -> None:
        if not isinstance(background, Tensor):
            raise TypeError(f"background must be a torch.Tensor [m, *shape], got {type(background).__name__}")
        if background.dim() not in (2, 4) or background.numel() == 0:
            raise ValueError(f"background must be [m, features] or [m, C, H, W], got {list(background.shape)}")
        if not checked_like(background, self.module, "background").isfinite().all():
            raise NonFinite("the background holds NaN or infinity: drop those rows")


def _as_index(label: Any) -> int:
    try:
        return operator.index(label)
    except TypeError:
        raise TypeError(f"label must be an int, got {label!r}") from None
