"""A trained network and all that is known of it: how it is called, and what its outputs mean."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from explain.guard import evaluating, recordable
from explain.losses import OF_VALUES, Loss, check_loss, check_weight_decay
from explain.names import checked_names
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
from explain.plain import plain_operations
from explain.supervised.border import Batching, checked_like, outputs_of
from explain.types import NonFinite, Parameters

SEEN = 64  # rows of a background or a training set that are asked about to see what outputs mean


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """``answers [rows, *shape] -> [rows, outputs]``, and what `explain.wrap` was told: see `SupervisedModel`."""

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
    class_names: tuple[str, ...] = ()
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
        for what, names in (("feature_names", self.feature_names), ("class_names", self.class_names)):
            object.__setattr__(self, what, checked_names(what, names, len(names or ()), what.split("_")[0]))
        inputs, labels = _at_hand(self.train)
        object.__setattr__(self, "_inputs", inputs)
        object.__setattr__(self, "_labels", labels)
        object.__setattr__(self, "part", Part(self.output, column_count(self._labels)))
        if self.background is not None:
            self._check_background(self.background)
            object.__setattr__(self, "background", recordable(self.background))

    def answers(self, x: Tensor) -> Tensor:
        """The module's outputs ``[rows, outputs]`` for ``x [rows, *shape]``, in the mode the module is in."""
        return outputs_of(self.module, x, self.part)

    def answers_with(self, params: Parameters, x: Tensor) -> Tensor:
        """The outputs with other parameters, in eval mode: a pure function, which may be differentiated twice."""
        with evaluating(self.module), plain_operations(self.module):
            return outputs_of(lambda rows: functional_call(self.module, params, (rows,)), x, self.part)

    def meaning(self, x: Tensor, reference: Tensor, batching: Batching) -> tuple[Meaning, Tensor]:
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
            elsewhere=lambda: redrawn(params, lambda drawn: self.answers_with(drawn, x[None])),
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
