"""A trained classifier or regressor, ready to be asked about one example."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from explain.guard import recordable, untouched, usual_modes
from explain.losses import OF_VALUES, Loss, check_loss, check_weight_decay
from explain.outputs import (
    Kind,
    LastOperation,
    Meaning,
    check_kind,
    column_count,
    label_form,
    meaning_of,
    redrawn,
    unsettled,
)
from explain.parts import Output, Part
from explain.payoffs import Payoff, checked_label, payoff_function, probed
from explain.supervised.baselines import Baseline, chosen
from explain.supervised.border import Batching, batching_of, checked_example, checked_like, outputs_of
from explain.supervised.objective import outputs_with
from explain.supervised.targets import ExampleTarget
from explain.types import NonFinite

SEEN = 64  # rows of a background or a training set that are asked about to see what outputs mean


@dataclass(frozen=True, eq=False)
class SupervisedModel:
    """Any torch classifier or regressor ``[rows, *shape] -> [rows, outputs]`` on tables or images.

    Args:
        module: the trained model. One output a row of a classifier is that of class 1.
        task: "classification" or "regression".
        background: ``[m, features]`` or ``[m, C, H, W]``, typical examples: what an absent feature may look like.
        train: what it was trained on, for `Influence`: ``(inputs, labels)``, a Dataset or a DataLoader.
        weight_decay: of the trained loss, as in ``torch.optim.SGD``.
        loss: what was trained: "cross_entropy", "bce", "mse", "mae", "huber", "hinge", "poisson", or a function
            ``(outputs, labels) -> [examples]``; None: taken from outputs and labels where these leave no doubt.
        outputs: what a classifier answers, "logits", "probabilities" or "log_probabilities"; None: found out on the
            background or the training inputs. Several outputs that do not exclude one another have ``loss="bce"``.
        output: which part of a tuple, mapping or object the model returns: its position, its name, or a function.
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
    loss: Loss | None = None
    outputs: Kind | None = None
    output: Output | None = None
    feature_names: tuple[str, ...] = ()
    batch_size: int | None = None
    query_rows: tuple[int, ...] | None = None
    part: Part = field(init=False, repr=False)
    _inputs: Tensor | None = field(init=False, repr=False)
    _labels: Tensor | None = field(init=False, repr=False)

    found = ("_inputs", "_labels")  # follow from the rest

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise TypeError(f"the model must be a torch.nn.Module, got {type(self.module).__name__}")
        if self.task not in ("classification", "regression"):
            raise ValueError(f"task must be 'classification' or 'regression', got {self.task!r}")
        check_weight_decay(self.weight_decay)
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 or None, got {self.batch_size}")
        check_loss(self.loss)
        check_kind(self.outputs)
        if (self.outputs == "values") != (self.task == "regression") and self.outputs is not None:
            raise ValueError(f"outputs={self.outputs!r} do not go with task={self.task!r}: values are a regressor's")
        object.__setattr__(self, "feature_names", tuple(self.feature_names))
        inputs, labels = _at_hand(self.train)
        object.__setattr__(self, "_inputs", inputs)
        object.__setattr__(self, "_labels", labels)
        object.__setattr__(self, "part", Part(self.output, column_count(self._labels)))
        if self.background is not None:
            self._check_background(self.background)
            object.__setattr__(self, "background", recordable(self.background))

    def example(
        self,
        x: Tensor,
        label: int | None = None,
        *,
        payoff: Payoff | None = None,
        baseline: str | Tensor | Baseline | None = None,
    ) -> ExampleTarget:
        """The number that the model says about one example, as a question to explain.

        Args:
            x: ``[features]`` or ``[C, H, W]``, of the model's dtype and device.
            label: the class; the predicted one when None. Of a regressor, which of several outputs.
            payoff: "logit", "probability", "log_probability", "loss", "value" (the model's own number) or a callable
                ``[rows, outputs] -> [rows]``; None: the model's own number, whose name follows from ``outputs``.
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
            batching = batching_of(self.answers, x, absence.reference, self.batch_size)
            meaning, outputs = self._meaning(x, absence.reference, batching)
        if not batching.independent:
            warnings.warn("rows of a batch see one another in this model: evaluated one by one, slowly", stacklevel=2)
        found = checked_label(label, outputs[0], meaning, payoff)
        asked = payoff or meaning.default_payoff
        number = payoff_function(asked, found, meaning)
        if callable(asked):
            probed(asked, outputs)
        return ExampleTarget(self, x, found, asked, number, absence, batching, meaning, label is not None)

    def answers(self, x: Tensor) -> Tensor:
        """The module's outputs ``[rows, outputs]`` for ``x [rows, *shape]``, in the mode the module is in."""
        return outputs_of(self.module, x, self.part)

    def _meaning(self, x: Tensor, reference: Tensor, batching: Batching) -> tuple[Meaning, Tensor]:
        """What the outputs mean, and those that it was read off, the example's first."""
        with LastOperation() as last:
            outputs = self.answers(x[None])
        operation = last.of(outputs)
        if self.task == "regression":
            return Meaning("values", outputs.size(1), False), outputs
        if unsettled(outputs) and self.outputs is None and batching.independent:
            like = (x.shape, x.dtype, x.device)
            seen = [part for part in (reference[None], self.background, self._inputs) if part is not None]
            rows = [part[:SEEN] for part in seen if (part.shape[1:], part.dtype, part.device) == like]
            outputs = torch.cat([outputs, *(self.answers(each) for part in rows for each in part.split(batching.rows))])
        loss = None if self.loss in OF_VALUES else self.loss  # a classifier's all the same
        params = {name: p.detach() for name, p in self.module.named_parameters()}
        found = meaning_of(
            outputs,
            operation,
            self._classes_in(outputs),
            given=self.outputs,
            loss=loss,
            elsewhere=lambda: redrawn(params, lambda drawn: outputs_with(self)(drawn, x[None])),
        )
        return found, outputs

    def _classes_in(self, outputs: Tensor) -> Tensor | None:
        """The model's own labels, unless they are of a loss of the user's."""
        form = label_form(self._labels, outputs.size(1))
        return None if form in ("reals", "whole") else self._labels

    def _check_background(self, background: Tensor) -> None:
        if not isinstance(background, Tensor):
            raise TypeError(f"background must be a torch.Tensor [m, *shape], got {type(background).__name__}")
        if background.dim() not in (2, 4) or background.numel() == 0:
            raise ValueError(f"background must be [m, features] or [m, C, H, W], got {list(background.shape)}")
        if not checked_like(background, self.module, "background").isfinite().all():
            raise NonFinite("the background holds NaN or infinity: drop those rows")


def _at_hand(train: Any) -> tuple[Tensor | None, Tensor | None]:
    """Inputs and labels of a training set where they are tensors already, and need not be read one by one."""
    data = getattr(train, "dataset", train)
    pair = getattr(data, "tensors", data)
    if isinstance(pair, (tuple, list)) and len(pair) >= 2 and all(isinstance(part, Tensor) for part in pair[:2]):
        return pair[0], pair[1]
    return None, None
