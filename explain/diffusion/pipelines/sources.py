"""Superpixels and patches of the clean picture that a pipeline's run starts from or is led by, as players."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from explain.diffusion.pipelines.number import PipelineNumber
from explain.diffusion.pipelines.tracing import Variation
from explain.diffusion.players import owner_of_pixels
from explain.spelling import came
from explain.types import Game, Masks, Players, Unsupported, Values, present_atoms

SourceFill = Literal["mean", "blur", "grey"]
FILLS = ("mean", "blur", "grey")
_PLAYED = ("image", "control_image")  # arguments of a pipeline's call that are whole pictures


@dataclass(frozen=True, eq=False)
class Source:
    """A picture ``[C, H, W]`` as the user gives it to the call: a tensor, an array or a PIL image, on its own scale.

    Args:
        name: the call's argument.
        given: what the user gave for it.
    """

    name: str
    given: Any

    @property
    def picture(self) -> Tensor:
        """The picture, on the scale that it was given in.

        Raises:
            Unsupported: several pictures, or none that can be read.
        """
        one = self.given[0] if isinstance(self.given, (list, tuple)) and len(self.given) == 1 else self.given
        if isinstance(one, Tensor):
            found = one[0] if one.dim() == 4 and len(one) == 1 else one
        elif isinstance(one, np.ndarray):
            found = torch.from_numpy(one[0] if one.ndim == 4 and len(one) == 1 else one).movedim(-1, 0)
        elif hasattr(one, "convert"):  # PIL
            found = torch.from_numpy(np.array(one.convert("RGB"))).movedim(-1, 0)
        else:
            found = torch.zeros(0)
        if found.dim() != 3 or found.shape[0] > 4:
            kind = list(one.shape) if isinstance(one, (Tensor, np.ndarray)) else type(one).__name__
            raise Unsupported(
                f"the parts of {self.name}= play where it is one picture, [C, H, W], [1, C, H, W], an array [H, W, C] "
                f"or a PIL image; got {kind}"
            )
        return found.float()

    def like(self, picture: Tensor) -> Any:
        """Another picture in the form that this one was given in."""
        if isinstance(self.given, (list, tuple)):
            return type(self.given)([Source(self.name, self.given[0]).like(picture)])
        if isinstance(self.given, Tensor):
            return picture.to(self.given).expand(self.given.shape)
        if isinstance(self.given, np.ndarray):
            array = picture.movedim(0, -1).numpy()
            return np.broadcast_to(array, self.given.shape).astype(self.given.dtype)
        from PIL import Image

        return Image.fromarray(picture.round().clamp(0, 255).byte().movedim(0, -1).numpy())


def played_source(number: PipelineNumber, of: str | None = None) -> Source:
    """The picture of the call whose parts play.

    Args:
        number: the user's own call.
        of: the call's argument; may be left out where one picture alone is given.

    Raises:
        Unsupported: the call is given no picture.
        ValueError: several are given and ``of`` names none of them.
    """
    given = _given(number)
    if not given:
        raise Unsupported(
            f"this call of {number.call.name} is given no picture whose parts could play: they are those of image= "
            "(img2img, inpainting, ControlNet) or control_image=; of a run from noise play words, steps or guidance"
        )
    if of is None and len(given) > 1:
        raise ValueError(f"whose parts play? This call is given {' and '.join(given)}: say of={given[0]!r}")
    name = given[0] if of is None else of
    if name not in given:
        raise ValueError(f"of must be a picture that this call is given, {' or '.join(given)}; {came(of, given)}")
    return Source(name, number.call.sources[name])


def source_of(number: PipelineNumber, players: Players) -> Source:
    """The picture of the call that these players are parts of.

    Raises:
        Unsupported: none of them.
    """
    own = players.geometry.get("image")
    for name in _given(number):
        source = Source(name, number.call.sources[name])
        if own is not None and torch.equal(own, source.picture):
            return source
    raise Unsupported(
        "these are no parts of a picture that the call is given: parts of the picture that it makes do not play, they "
        f"are for reading attention. Make them by run.players({players.kind!r}, of={played_source(number).name!r})"
    )


def _given(number: PipelineNumber) -> list[str]:
    return [name for name in _PLAYED if number.call.sources.get(name) is not None]


def checked_fill(fill: Any) -> Any:
    """The fill.

    Raises:
        ValueError: an unknown one.
    """
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}, {came(fill, FILLS)}")
    return fill


def filled(picture: Tensor, fill: str) -> Tensor:
    """What absent parts of a picture ``[C, H, W]`` show: its mean colour, itself blurred, or middle grey."""
    if fill == "mean":
        return picture.mean((1, 2), keepdim=True).expand_as(picture)
    if fill == "grey":
        low = -1.0 if picture.min() < 0 else 0.0
        high = 255.0 if picture.max() > 1 else 1.0
        return torch.full_like(picture, (low + high) / 2)
    from scipy.ndimage import gaussian_filter

    width = max(picture.shape[1:]) / 8
    return torch.from_numpy(gaussian_filter(picture.cpu().numpy(), (0, width, width))).to(picture)


@dataclass(frozen=True, eq=False)
class SourceCoalitions:
    """The number for masks over parts of the clean picture that the call is given.

    Absent parts show the fill, and the pipeline itself takes the picture from there: it resizes and encodes it, noises
    it to where the run starts, or shows it to the network beside.

    Args:
        number: the user's own call.
        players: parts of the picture, which their geometry holds.
        source: the picture as the user gave it.
        fill: see `filled`.
    """

    number: PipelineNumber
    players: Players
    source: Source
    fill: str
    _made: dict[bytes, Any] = field(default_factory=dict)

    def game(self) -> Game:
        """The game; the same picture is run once."""
        return self.number.played(self.players, self, f"{self.fill} of {self.source.name}")

    def __call__(self, masks: Masks) -> Values:
        """Values of these coalitions."""
        return self.number.numbers([self.variation(mask) for mask in masks.cpu()])

    def variation(self, mask: Tensor) -> Variation:
        """The call of one coalition."""
        own = self.number.own
        if bool(mask.all()):
            return own
        key = mask.numpy().tobytes()
        if key not in self._made:
            picture = self.source.picture
            owner = owner_of_pixels(self.players, picture.shape[1:])
            present = present_atoms(mask[None], owner)[0]
            self._made[key] = self.source.like(torch.where(present, picture, filled(picture, self.fill)))
        return Variation(own.condition, own.negative, None, {self.source.name: self._made[key]})
