"""The trained loss as it was at a checkpoint of the training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from explain.types import NonFinite, Objective, Parameters, Players

Checkpoint: TypeAlias = Mapping[str, Tensor] | str | os.PathLike[str]
Feature: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (outputs, losses [examples]) -> [examples]


@dataclass(frozen=True, eq=False)
class At:
    """An objective at the parameters of a checkpoint; an `Objective` itself.

    Args:
        objective: that of the model as it is now.
        params: the trained parameters of the checkpoint.
        constants: its buffers and frozen parameters, which the model had then.
        feature: what stands in for each example's loss, where that is not what is asked.
        number: what stands in for the number.
    """

    objective: Objective
    params: Parameters
    constants: Parameters = field(default_factory=dict)
    feature: Feature | None = None
    number: Callable[[Parameters], Tensor] | None = None

    @property
    def players(self) -> Players:
        """The objective's."""
        return self.objective.players

    @property
    def local(self) -> bool:
        """The objective's."""
        return self.objective.local

    @property
    def weight_decay(self) -> float:
        """The objective's."""
        return self.objective.weight_decay

    @property
    def convex(self) -> bool:
        """The objective's, for its own loss."""
        return self.objective.convex and self.feature is None

    @property
    def size(self) -> int:
        """``n``."""
        return self.objective.size

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """The objective's."""
        return self.objective.batches(batch_size, generator)

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """With the checkpoint's buffers."""
        return self.objective.outputs({**self.constants, **params}, batch)

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """The loss of each example, or what stands in for it."""
        if self.feature is None:
            return self.objective.loss(outputs, batch)
        return self.feature(outputs, self.objective.loss(outputs, batch))

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """``loss(outputs(params, batch), batch)``."""
        return self.loss(self.outputs(params, batch), batch)

    def measurement(self, params: Parameters) -> Tensor:
        """With the checkpoint's buffers."""
        return (self.number or self.objective.measurement)({**self.constants, **params})

    def edited(self, player: int) -> At:
        """The same without this player."""
        return replace(self, objective=self.objective.edited(player))


def at_checkpoint(objective: Objective, checkpoint: Checkpoint | None) -> At:
    """The objective at a checkpoint's state, or as it is where there is none.

    Args:
        objective: that of the model as it is now.
        checkpoint: a state dictionary of the model, or the path of a safetensors file that holds one.

    Raises:
        ValueError: a file that is not safetensors, or parameters that are missing or of another shape.
        NonFinite: NaN or infinity in them.
    """
    if checkpoint is None:
        return At(objective, objective.params)
    state = _state(checkpoint)
    prefix = _prefix(objective.params, state)
    state = {prefix + name: value for name, value in state.items()}
    like = next(iter(objective.params.values()))
    params = {}
    for name, own in objective.params.items():
        if name not in state or state[name].shape != own.shape:
            found = list(state[name].shape) if name in state else "nothing"
            raise ValueError(f"a checkpoint of this model needs {name} {list(own.shape)}, got {found}")
        params[name] = state[name].detach().to(own)
        if not params[name].isfinite().all():
            raise NonFinite(f"the checkpoint holds NaN or infinity in {name}")
    module = getattr(objective, "module", None)
    known = {*dict(module.named_parameters()), *dict(module.named_buffers())} if isinstance(module, nn.Module) else ()
    constants = {n: v.detach().to(like.device) for n, v in state.items() if n in known and n not in params}
    return At(objective, params, constants)


def checked_checkpoints(checkpoints: Sequence[Checkpoint] | None) -> None:
    """Check that these are state dictionaries or paths, or None.

    Raises:
        TypeError: they are something else.
        ValueError: an empty list.
    """
    if checkpoints is None:
        return
    if isinstance(checkpoints, (str, os.PathLike, Mapping)):
        raise TypeError(f"checkpoints must be a list of them, got one {type(checkpoints).__name__}")
    if not len(checkpoints):
        raise ValueError("there are no checkpoints: give state dictionaries, or paths of safetensors files")
    for one in checkpoints:
        if not isinstance(one, (str, os.PathLike, Mapping)):
            raise TypeError(f"a checkpoint must be a state dictionary or a path, got {type(one).__name__}")


def _state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    if isinstance(checkpoint, Mapping):
        return dict(checkpoint)
    try:
        return safetensors.torch.load_file(checkpoint)
    except SafetensorError as error:
        raise ValueError(
            f"{checkpoint} is no safetensors file ({error}); a pickle can run any code and is not read: save with "
            "safetensors.torch.save_file(module.state_dict(), path)"
        ) from error


def _prefix(params: Parameters, state: Mapping[str, Tensor]) -> str:
    """What the objective puts before the names of the user's module: nothing, or "net." and the like."""
    parts = next(iter(params)).split(".")
    for length in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:length])
        if all(name.startswith(prefix) and name.removeprefix(prefix) in state for name in params):
            return prefix
    return ""
