"""Every network becomes ``(x_t, t, condition) -> prediction``, and nothing behind this line asks what it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from explain.guard import recordable
from explain.plain import plain_operations
from explain.types import NonFinite, Parameters

Condition: TypeAlias = dict[str, Tensor]  # arguments of the network by name, one row each: [1, ...]

_IMAGE = ("sample", "hidden_states", "x", "x_t", "input", "latents")
_TIME = ("timestep", "timesteps", "t", "time", "sigma")
_PROMPT = "encoder_hidden_states"
_LABELS = ("class_labels", "labels", "label", "y", "condition", "cond", "c", _PROMPT)


class Denoiser(nn.Module):
    """``(x_t [b, C, H, W], timestep [b], condition, branch) -> prediction [b, C, H, W]`` around a user's network.

    Args:
        net: a diffusers model, or any module or function ``(x_t, t, label)``; it may return a tensor, a tuple, a
            dictionary or an output with ``.sample``. Learned variances (twice the channels) are left out.

    ``branch`` ("cond" or "uncond") does nothing but name the pass for whoever watches.

    Raises:
        TypeError: neither a module nor a function.
    """

    def __init__(self, net: nn.Module | Callable[..., Any]) -> None:
        super().__init__()
        if not callable(net):
            raise TypeError(f"a denoiser must be a module or a function (x_t, t, label), got {type(net).__name__}")
        self.net = net
        self.names = _argument_names(net.forward if isinstance(net, nn.Module) else net)

    def forward(
        self, x: Tensor, timestep: Tensor, condition: Condition | None = None, branch: str | None = None
    ) -> Tensor:
        """The network's prediction; the conditions' single rows are repeated to the batch."""
        arguments: dict[str, Any] = {
            name: value.expand(len(x), *value.shape[1:]) if len(value) == 1 else value
            for name, value in (condition or {}).items()
        }
        if self.names.image and self.names.time:
            output = self.net(**{self.names.image: x, self.names.time: timestep}, **arguments)
        else:
            output = self.net(x, timestep, **arguments)
        prediction = _tensor(output)
        if prediction.size(1) == 2 * x.size(1):
            prediction = prediction[:, : x.size(1)]
        if prediction.shape != x.shape:
            raise ValueError(
                f"the denoiser must answer with the shape of x_t, {list(x.shape)}, got {list(prediction.shape)}"
            )
        return prediction.to(x.dtype)

    def condition(self, label: int | Tensor | Condition | None) -> Condition:
        """A label, an embedding or named arguments as named rows ``[1, ...]``.

        Raises:
            TypeError: a label for a network that takes none, or what is no class and no tensor.
            ValueError: more than one condition, or a label that the model does not know.
        """
        if isinstance(label, dict):
            return {name: self._row(name, value, alone=False) for name, value in label.items()}
        if label is None:
            return {}
        if self.names.label is None:
            raise TypeError("this denoiser takes no label: leave label out, or give named arguments label={...}")
        return {self.names.label: self._row(self.names.label, label, alone=True)}

    def _row(self, name: str, value: Any, *, alone: bool) -> Tensor:
        """One row ``[1, ...]`` in the model's type; ``alone``: embeddings may come without their first dimension."""
        try:
            row = torch.as_tensor(value, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be a class or a tensor, got {type(value).__name__}") from error
        row = row.to(self.dtype) if row.is_floating_point() else row
        embedding = row.dim() == 1 and len(row) > 1 and row.is_floating_point()
        if row.dim() == 0 or (alone and (embedding or row.dim() == 2)):
            row = row[None]
        _check_row(self.net, name, row)
        return row

    def with_parameters(self, params: Parameters | None) -> Callable[..., Tensor]:
        """The denoiser itself, or the same function of other parameters, which may be differentiated twice."""
        if params is None:
            return self

        def denoise(*arguments: Any, **named: Any) -> Tensor:
            with plain_operations(self):
                return functional_call(self, params, arguments, named)

        return denoise

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())


class Arguments(NamedTuple):
    """Names of a network's arguments; None where it goes by position, or takes no label."""

    image: str | None
    time: str | None
    label: str | None


def _argument_names(forward: Callable[..., Any]) -> Arguments:
    """By name; where several names would do, the one that forward cannot do without; labels else by third place."""
    found = [
        p for p in inspect.signature(forward).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    names = [p.name for p in sorted(found, key=lambda p: p.default is not p.empty)]
    image, time, label = (next((n for n in names if n in known), None) for known in (_IMAGE, _TIME, _LABELS))
    if label is None and len(found) > 2 and found[2].default in (found[2].empty, None):
        label = found[2].name
    return Arguments(image, time, label) if image and time else Arguments(None, None, label)


def _check_row(net: Any, name: str, row: Tensor) -> None:
    """Raise where this is not one condition that the network can read."""
    if len(row) != 1:
        raise ValueError(f"{name} must be one condition, [1, ...], got {list(row.shape)}")
    if name == _PROMPT and not (row.dim() == 3 and row.is_floating_point()):
        raise TypeError(
            f"{name} must be an embedding [tokens, width], such as a pipeline's encode_prompt gives; got {row!r:.80}"
        )
    classes = _classes(net)
    if name == "class_labels" and classes and row.dim() == 1 and not 0 <= float(row) < classes:
        raise ValueError(f"this model knows the labels 0 to {classes - 1}, got {float(row):g}")


def _classes(net: Any) -> int | None:
    """How many labels a diffusers configuration knows, the null label included."""
    config = getattr(net, "config", None)
    if not isinstance(config, Mapping):
        return None
    transformer = config.get("num_embeds_ada_norm")
    return config.get("num_class_embeds") or (transformer + 1 if transformer else None)


def _tensor(output: Any) -> Tensor:
    if hasattr(output, "sample") and isinstance(output.sample, Tensor):
        return output.sample
    if isinstance(output, dict):
        output = output.get("sample", next(iter(output.values()), None))
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(f"the denoiser must answer with an image tensor, got {type(output).__name__}")
    return output


def checked_image(image: Any, like: torch.dtype, what: str = "x0") -> Tensor:
    """An image ``[C, H, W]`` of finite numbers in the model's type.

    Raises:
        ValueError: another shape. NonFinite: NaN or infinity.
    """
    found = torch.as_tensor(image)
    if found.dim() != 3:
        raise ValueError(f"{what} must be one image [channels, height, width], got {list(found.shape)}")
    if not found.isfinite().all():
        raise NonFinite(f"{what} holds NaN or infinity")
    return recordable(found.to(like))
