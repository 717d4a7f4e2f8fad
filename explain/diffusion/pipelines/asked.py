"""A pipeline's network, asked with the arguments that the pipeline's own call gives it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree  # private, but where diffusers registers its outputs

from explain.diffusion.networks import core
from explain.diffusion.pipelines.coder import Packing
from explain.diffusion.pipelines.stand_ins import tensors
from explain.diffusion.pipelines.watched import PipelineStep
from explain.diffusion.signature import arguments_of
from explain.types import Unsupported

_BESIDE = "beside"  # channels that the network is shown beside x_t


class AskedNetwork(nn.Module):
    """``(x_t [b, C, h, w], timestep [b], conditions) -> prediction``: whatever else the pipeline gives stays as it is.

    ``conditions`` are the arguments that differ from row to row, under their names in the call, such as
    ``added_cond_kwargs.text_embeds``; of a network that is shown a mask or picture beside ``x_t`` also these channels.

    Args:
        net: the pipeline's own network.
        steps: the first steps of the pipeline's own run of one picture.
        two: the first step of a run of two.
        channels: of ``x_t``.
        packing: to tokens and back, where the network is given tokens.

    Raises:
        Unsupported: arguments that change from step to step, so that no other step's are known, or several rows of
            one for each sample.
    """

    def __init__(
        self,
        net: nn.Module,
        steps: Sequence[PipelineStep],
        two: PipelineStep,
        channels: int,
        packing: Packing | None,
    ) -> None:
        super().__init__()
        self.net, self.channels, self.packing = net, channels, packing
        names = arguments_of(core(net))
        self.image, self.time = str(names.image), str(names.time)
        first, second = (self._leaves(step, 0) for step in (steps[0], two))
        count, double = (len(found[self.image]) for found in (first, second))
        if double != 2 * count:
            raise Unsupported("the network is asked for pictures of a batch one by one")
        several = [
            name
            for name, value in first.items()
            if isinstance(value, Tensor) and value.dim() and len(value) > count and len(second[name]) == 2 * len(value)
        ]
        if several:
            raise Unsupported(
                f"the network is given several rows of {', '.join(several)} for each sample, as of a video's frames: a "
                "step of it cannot be asked about by itself; ask about its run, trajectory(...)"
            )
        if packing is None and first[self.image].shape[2:] != steps[0].sample.shape[2:]:
            raise Unsupported(
                f"the network is shown samples {list(first[self.image].shape[1:])} where its scheduler steps "
                f"{list(steps[0].sample.shape[1:])}: ask about its run, trajectory(...)"
            )
        self.rowed = [
            name
            for name, value in first.items()
            if isinstance(value, Tensor) and value.dim() and (len(value), len(second[name])) == (count, double)
        ]
        self.by_step = [self._leaves(step, 0) for step in steps]
        self._check_constant()
        self.template = self._bound(steps[0], 0)

    def conditions(self, step: PipelineStep, call: int, row: int) -> dict[str, Tensor]:
        """The conditions of one row of one call, each ``[1, ...]``."""
        leaves = self._leaves(step, call)
        found = {name: leaves[name][row : row + 1] for name in self.rowed if name not in (self.image, self.time)}
        if self.packing is None and leaves[self.image].size(1) > self.channels:
            found[_BESIDE] = leaves[self.image][row : row + 1, self.channels :]
        return {name: value.detach().clone() for name, value in found.items()}

    def times(self) -> list[float]:
        """What the network is given for the time at each step."""
        return [float(torch.as_tensor(leaves[self.time]).reshape(-1)[0]) for leaves in self.by_step]

    def forward(self, x: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """The network's prediction."""
        beside = conditions.pop(_BESIDE, None)
        seen = x if beside is None else torch.cat([x, beside], 1)
        given = {**conditions, self.image: seen if self.packing is None else self.packing.pack(x), self.time: timestep}

        def put(path: Any, leaf: Any) -> Any:
            return given.get(_name(path), leaf)

        arguments = _pytree.tree_map_with_path(put, self.template)
        answer = tensors(self.net(**arguments))[0]
        return answer if self.packing is None else self.packing.unpack(answer)

    def _bound(self, step: PipelineStep, call: int) -> dict[str, Any]:
        """The arguments of one call by name."""
        args, kwargs = step.asked[call]
        signature = inspect.signature(core(self.net).forward)
        found = dict(signature.bind(*args, **kwargs).arguments)
        others = [name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD]
        for name in others:
            found |= found.pop(name, {})
        return found

    def _leaves(self, step: PipelineStep, call: int) -> dict[str, Any]:
        """The arguments of one call, however nested, by the names on the way to each."""
        found = _pytree.tree_flatten_with_path(self._bound(step, call))[0]
        return {_name(path): leaf for path, leaf in found}

    def _check_constant(self) -> None:
        """Raise where an argument beside ``x_t`` and the time changes from step to step.

        Raises:
            Unsupported: naming it.
        """
        first, *others = self.by_step
        changing = {
            name
            for later in others
            for name, value in later.items()
            if name not in (self.image, self.time) and not _equal(value, first.get(name))
        }
        beside = [found[self.image][:, self.channels :] for found in self.by_step] if self.packing is None else []
        if any(not torch.equal(beside[0], later) for later in beside[1:]):
            changing.add(f"channels of {self.image} beside x_t")
        if changing:
            raise Unsupported(
                f"the pipeline gives its network {', '.join(sorted(changing))} anew at every step (as a ControlNet "
                "does, which looks at x_t), so that for another picture they are not known: ask about its run, "
                "trajectory(...)"
            )


def _name(path: Any) -> str:
    """The names on the way to a leaf."""
    return ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and (one is other or bool(one == other))
