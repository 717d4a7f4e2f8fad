"""Every network becomes ``(x_t, t, condition) -> prediction``, and nothing behind this line asks what it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from explain.diffusion.conventions import Convention
from explain.diffusion.networks import classes, of_diffusers, required
from explain.diffusion.signature import PROMPT, Arguments, arguments_of
from explain.diffusion.sites import KINDS, SAMPLES
from explain.guard import evaluating, recordable
from explain.parts import parts_in
from explain.plain import plain_operations
from explain.types import NonFinite, Parameters

Condition: TypeAlias = dict[str, Tensor]  # arguments of the network by name, one row each: [1, ...]


class Denoiser(nn.Module):
    """``(x_t [b, *shape], timestep [b], condition, branch) -> prediction [b, *shape]`` around a user's network.

    Args:
        net: a diffusers model, or any module or function ``(x_t, t, label)``; it may return a tensor, a tuple, a
            dictionary or an output with ``.sample``. Learned variances (twice the channels) are left out.
        convention: what the network is given for ``x_t`` at ``t``, and what its answer means.
        condition: the name of the argument that takes the label, where its name does not say.

    ``branch`` ("cond" or "uncond") does nothing but name the pass for whoever watches.

    Raises:
        TypeError: neither a module nor a function, or one whose arguments cannot be told.
    """

    def __init__(
        self, net: nn.Module | Callable[..., Any], convention: Convention | None = None, condition: str | None = None
    ) -> None:
        super().__init__()
        if not callable(net):
            raise TypeError(f"a denoiser must be a module or a function (x_t, t, label), got {type(net).__name__}")
        self.net = net
        self.names: Arguments = arguments_of(net, condition)
        self.convention = convention

    def forward(
        self, x: Tensor, timestep: Tensor, condition: Condition | None = None, branch: str | None = None
    ) -> Tensor:
        """The network's prediction; the conditions' single rows are repeated to the batch.

        Raises:
            ValueError: a prediction of another shape than the picture.
        """
        return self.read(self.called(x, timestep, condition), x, timestep)

    def read(self, answer: Any, x: Tensor, timestep: Tensor) -> Tensor:
        """The prediction in a network's answer, as the process writes it.

        Raises:
            ValueError: a prediction of another shape than the picture.
        """
        prediction = _tensor(answer, x.shape)
        if _with_variances(prediction, x):
            prediction = prediction[:, : x.size(1)]
        if prediction.shape != x.shape:
            raise ValueError(
                f"the denoiser must answer with the shape of x_t, {list(x.shape)}, got {list(prediction.shape)}: of a "
                "whole diffusion, whose forward answers with its loss, give the network inside"
            )
        prediction = prediction.to(x.dtype)
        return prediction if self.convention is None else self.convention.answered(prediction, x, timestep)

    def called(self, x: Tensor, timestep: Tensor, condition: Condition | None = None) -> Any:
        """Whatever the network returns."""
        arguments: dict[str, Any] = {
            name: (value.expand(len(x), *value.shape[1:]) if len(value) == 1 else value).clone()
            for name, value in (condition or {}).items()
        }
        if self.names.drop is not None:
            arguments[self.names.drop] = _share(arguments.get(self.names.drop))
        seen, time = (x, timestep) if self.convention is None else self.convention.asked(x, timestep)
        seen, time = seen.clone(), time.clone()  # the network may write onto what it is given
        if self.names.image and self.names.time:
            return self.net(**{self.names.image: seen, self.names.time: time}, **arguments)
        return self.net(seen, time, **arguments)

    def tried(self, x: Tensor, timestep: Tensor, condition: Condition) -> dict[str, str]:
        """One call, and what was taken to be so about its answer.

        Raises:
            ValueError: the network cannot be called so, in words.
            NonFinite: NaN or infinity.
            OutOfMemoryError: as torch raises it.
        """
        self.check_complete(condition)
        try:
            output = self.called(x, timestep, condition)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a user's forward raises
            given = "".join(f", {name} {_described(value)}" for name, value in condition.items())
            video = "" if x.dim() != 5 else " (x_t is of videos here: of a batch of images ask about one, x0[i])"
            raise ValueError(
                f"explain.wrap({type(self.net).__name__}, ...): the denoiser cannot be called with x_t {list(x.shape)} "
                f"and t {list(timestep.shape)}{given}: {type(error).__name__}: {error}. "
                f"Look at the image's channels and size{video}, whether the network knows this label, and its dtype"
            ) from error
        prediction = _tensor(output, x.shape)
        if not prediction.isfinite().all():
            raise NonFinite("the denoiser answers NaN or infinity here: check its weights, or its half precision")
        if of_diffusers(self.net):
            return {}
        said = []
        parts = {} if isinstance(output, Tensor) else parts_in(output)
        if len(parts) > 1:
            name = next(name for name, part in parts.items() if part is prediction)
            why = "" if name == "sample" else ": the only one of the image's shape"
            said.append(f"part {name!r} of {len(parts)}{why}")
        if _with_variances(prediction, x):
            said.append(f"the first {x.size(1)} of {prediction.size(1)} channels; the others as learned variances")
        return {"output": ", ".join(said)} if said else {}

    def hears_itself(self, x: Tensor, timestep: Tensor, condition: Condition) -> bool:
        """Whether an argument for the network's own last answer changes what it says."""
        name = self.names.self_condition
        if name is None or name in condition:
            return name is not None
        with torch.no_grad(), evaluating(self):
            plain = self(x, timestep, condition)
            try:
                told = _tensor(self.called(x, timestep, {**condition, name: plain}), x.shape)
            except (TypeError, RuntimeError, ValueError):
                return False  # its layers have no room for one
        return not torch.allclose(plain, told[:, : x.size(1)].to(plain), rtol=1e-4, atol=1e-6)

    def condition(self, label: int | Tensor | Condition | None, what: str = "label") -> Condition:
        """A label, an embedding or named arguments as named rows ``[1, ...]``.

        Raises:
            TypeError: a label for a network that takes none, or what is no class and no tensor.
            ValueError: more than one condition, a label that the model does not know, or none where it needs one.
        """
        names = self.names
        if isinstance(label, Mapping):
            unknown = [
                n for n in label if n in (names.image, names.time) or (names.known is not None and n not in names.known)
            ]
            if unknown:
                takes = ", ".join(sorted(names.known or ())) or "none"
                raise ValueError(f"this network has no condition {', '.join(map(repr, unknown))}; it takes {takes}")
            return {name: self._row(name, value, alone=False) for name, value in label.items()}
        if label is None:
            return {}
        if isinstance(label, str):
            raise TypeError(
                f"{what} must be a class or a tensor, got the text {label!r:.40}: words are read by a text encoder: "
                f"give its answer, {what}=embedding [tokens, width], as a pipeline's encode_prompt(...) returns it"
            )
        if names.label is None and names.candidates:
            first = names.candidates[0]
            raise TypeError(
                f"which argument of this network takes the label, {' or '.join(names.candidates)}? Say "
                f"condition={first!r} to wrap, or give named arguments, {what}={{{first!r}: ...}}"
            )
        if names.label is None:
            raise TypeError(
                f"this denoiser takes no label: leave {what} out, or give named arguments {what}={{...}}"
                + (f"; {names.self_condition} takes its own last answer" if names.self_condition else "")
            )
        return {names.label: self._row(names.label, label, alone=True)}

    def check_complete(self, condition: Condition) -> None:
        """Raise where the network cannot be called on this condition alone.

        Raises:
            ValueError: naming what is missing.
        """
        for name in required(self.net) if self.names.label is None or not self.names.needed else [self.names.label]:
            if name not in condition:
                count = classes(self.net) if name == "class_labels" else None
                known = f", a class from 0 to {count - 1}" if count else ""
                raise ValueError(
                    f"this denoiser cannot do without {name}{known}: give label=..., also to ask it about no label "
                    "(the null label or embedding that it was trained with)"
                )

    def _row(self, name: str, value: Any, *, alone: bool) -> Tensor:
        """One row ``[1, ...]`` in the model's type; ``alone``: embeddings may come without their first dimension.

        Raises:
            TypeError: neither a class nor a tensor.
        """
        try:
            row = torch.as_tensor(value, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be a class or a tensor, got {type(value).__name__}") from error
        if row.dtype == torch.bool and row.numel() == 1:
            raise TypeError(f"{name} must be a class or a tensor, got {value!r}: a class is a whole number")
        row = recordable(row.to(self.dtype) if row.is_floating_point() else row)
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


def _check_row(net: Any, name: str, row: Tensor) -> None:
    """Raise where this is not one condition that the network can read.

    Raises:
        ValueError: several conditions, or no such class.
        TypeError: a prompt that is no embedding, a class that is no whole number.
    """
    if len(row) != 1:
        raise ValueError(f"{name} must be one condition, [1, ...], got {list(row.shape)}")
    if name == PROMPT and not (row.dim() == 3 and row.is_floating_point()):
        raise TypeError(
            f"{name} must be an embedding [tokens, width], such as a pipeline's encode_prompt gives; got {row!r:.80}"
        )
    count = classes(net)
    if name == "class_labels" and count and row.dim() == 1:
        if row.is_floating_point():
            raise TypeError(f"a class is a whole number from 0 to {count - 1}, got {float(row):g} as a float")
        if not 0 <= int(row) < count:
            raise ValueError(f"this model knows the labels 0 to {count - 1}, got {int(row)}")


def _share(dropped: Tensor | None) -> float:
    """Which share of the labels is dropped, of all rows of one branch: none where nobody says so.

    Raises:
        ValueError: rows that differ.
    """
    if dropped is None:
        return 0.0
    if not bool((dropped == dropped[0]).all()):
        raise ValueError("labels are dropped in a whole batch, or kept: got both")
    return float(dropped[0])


def _with_variances(prediction: Tensor, x: Tensor) -> bool:
    return prediction.dim() == x.dim() and prediction.size(1) == 2 * x.size(1)


def _described(value: Tensor) -> str:
    return str(value.item()) if value.numel() == 1 else f"{list(value.shape)} {value.dtype}"


def _tensor(output: Any, shape: torch.Size) -> Tensor:
    """The prediction in a network's answer: the tensor itself, "sample" of several, or the only one of ``x_t``'s shape.

    Raises:
        TypeError: no such tensor, or several.
    """
    if isinstance(output, Tensor):
        return output
    parts = {name: part for name, part in parts_in(output).items() if isinstance(part, Tensor)}
    if "sample" in parts:
        return parts["sample"]
    exact = [part for part in parts.values() if part.shape == shape]
    doubled = [part for part in parts.values() if part.shape == (shape[0], 2 * shape[1], *shape[2:])]
    found = exact or doubled or list(parts.values())
    if len(found) != 1:
        said = ", ".join(f"{name!r}: {list(part.shape)}" for name, part in parts.items()) or type(output).__name__
        raise TypeError(
            f"the denoiser must answer with a prediction {list(shape)}, got {len(found)} that may be it ({said}): put "
            "a module around it that returns the one"
        )
    return found[0]


def checked_image(image: Any, like: torch.dtype, what: str = "x0") -> Tensor:
    """One sample ``[*shape]``, as `sites` has them, of finite numbers in the model's type.

    Raises:
        TypeError: no tensor, or whole numbers.
        ValueError: another shape.
        NonFinite: NaN or infinity.
    """
    try:
        found = torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be one image, a float tensor {SAMPLES}, got {type(image).__name__}") from error
    if found.dim() not in KINDS:
        raise ValueError(f"{what} must be one sample, {SAMPLES}, got {list(found.shape)}")
    check_floats(found, what)
    if not found.isfinite().all():
        raise NonFinite(f"{what} holds NaN or infinity")
    return recordable(found.to(like))


def check_floats(images: Any, what: str) -> None:
    """Raise where images hold whole numbers: pixels as files store them, not as a denoiser sees them.

    Raises:
        TypeError: naming the remedy.
    """
    dtype = images.dtype
    if not dtype.is_floating_point:
        raise TypeError(
            f"{what} must hold floats on the scale that the denoiser was trained on, got {dtype}: for pixels 0 to 255 "
            "and a model of [-1, 1] give images.float() / 127.5 - 1"
        )
