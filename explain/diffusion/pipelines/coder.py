"""Between pictures and the samples that a scheduler steps in: a pipeline's VAE, scaled as the pipeline itself does."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from explain.diffusion.pipelines.stand_ins import tensors
from explain.guard import evaluating
from explain.types import NonFinite, Unsupported

_CODERS = ("vae", "vqvae")
_EXACT = 1e-4  # relative difference up to which two latents are the same


@dataclass(eq=False)
class Listening:
    """A copy of a pipeline whose VAE tells what it is asked to decode; the pipeline itself is not written on.

    Args:
        pipeline: a diffusers pipeline.
        heard: what was decoded, and what came out of it.
    """

    pipeline: Any
    heard: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def part(self) -> str | None:
        """The name of the VAE."""
        return next((name for name in _CODERS if isinstance(getattr(self.pipeline, name, None), nn.Module)), None)

    def copied(self) -> Any:
        """The copy."""
        own = self.pipeline
        made = object.__new__(type(own))
        vars(made).update(vars(own))
        if self.part is not None:
            vae = getattr(own, self.part)
            shell = copy.copy(vae)
            vars(shell)["decode"] = partial(self._decoded, vae)
            vars(made)[self.part] = shell
        return made

    def _decoded(self, vae: Any, z: Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = vae.decode(z, *args, **kwargs)
        self.heard.append((z.detach(), tensors(answer)[0].detach()))
        return answer


@dataclass(frozen=True, eq=False)
class Coder:
    """``x = (E(2 p - 1) - shift) / factor`` of a picture ``p`` in [0, 1]; back, ``p = D(factor x + shift) / 2 + 1/2``.

    Pictures are clamped to [0, 1]. ``E`` is the mean of the VAE's posterior; without a VAE ``E`` and ``D`` do nothing.

    Args:
        vae: the VAE, or None.
        factor: what the pipeline multiplies a sample by before it decodes it, ``[]`` or one number a channel.
        shift: what it then adds.
    """

    vae: nn.Module | None = None
    factor: Tensor = field(default_factory=lambda: torch.tensor(1.0))
    shift: Tensor = field(default_factory=lambda: torch.tensor(0.0))

    def encode(self, pictures: Tensor) -> Tensor:
        """Samples ``[n, C, h, w]`` of pictures ``[n, 3, H, W]``.

        Raises:
            NonFinite: the VAE answers NaN or infinity.
            ValueError: pictures that it cannot encode.
        """
        seen = 2 * pictures - 1
        if self.vae is None:
            return seen
        vae: Any = self.vae  # a module's attributes may be anything to mypy, also no function
        own = next(vae.parameters())
        with evaluating(vae):
            try:
                answer = vae.encode(seen.to(own))
            except RuntimeError as error:
                raise ValueError(
                    f"the pipeline's VAE cannot encode pictures {list(pictures.shape)}: {error}"
                ) from error
        posterior = getattr(answer, "latent_dist", None)
        z = posterior.mode() if posterior is not None else tensors(answer)[0]
        self._check(z, "encodes these pictures as")
        return (z.to(pictures) - _shaped(self.shift, pictures)) / _shaped(self.factor, pictures)

    def decode(self, samples: Tensor) -> Tensor:
        """Pictures ``[n, 3, H, W]`` in [0, 1] of samples ``[n, C, h, w]``.

        Raises:
            NonFinite: the VAE answers NaN or infinity.
        """
        made = samples
        if self.vae is not None:
            z = _shaped(self.factor, samples) * samples + _shaped(self.shift, samples)
            vae: Any = self.vae
            with evaluating(vae):
                made = tensors(vae.decode(z.to(next(vae.parameters()))))[0].to(samples)
            self._check(made, "decodes a sample to")
        return (made / 2 + 0.5).clamp(0, 1)

    def _check(self, found: Tensor, does: str) -> None:
        if not bool(found.detach().isfinite().all()):
            assert self.vae is not None
            kind = next(self.vae.parameters()).dtype
            half = "" if kind == torch.float32 else ": such a range is too small for it, pipeline.vae.to(torch.float32)"
            raise NonFinite(f"the pipeline's VAE {does} NaN or infinity, in {kind}{half}")


def coder_of(pipeline: Any, sample: Tensor, picture: Tensor, heard: list[tuple[Tensor, Tensor]]) -> Coder:
    """How a pipeline decodes, proved on its own run.

    Args:
        pipeline: the pipeline.
        sample: what its scheduler stepped to last, ``[1, C, h, w]``.
        picture: what the pipeline made of it, ``[1, 3, H, W]`` in [0, 1].
        heard: what its VAE was asked to decode for that, and its answers.

    Raises:
        Unsupported: it does more than to scale, shift and decode.
    """
    part = Listening(pipeline).part
    name = type(pipeline).__name__
    if picture.dim() != 4:
        raise Unsupported(
            f"a step of {name} cannot be asked about pixels: a run of it answers with {list(picture.shape[1:])}. Ask "
            "about latents, step(..., space='latents'), or about its run, trajectory(...)"
        )
    if part is None:
        if not _same((sample / 2 + 0.5).clamp(0, 1), picture):
            raise Unsupported(f"{name} makes its picture otherwise than (x / 2 + 0.5).clamp(0, 1) of its last sample")
        return Coder()
    vae = getattr(pipeline, part)
    if not heard:
        raise Unsupported(f"this call of {name} never asked its VAE to decode: pixels of its steps are not known")
    z, made = heard[-1]
    if not _same((made / 2 + 0.5).clamp(0, 1), picture):
        raise Unsupported(f"{name} makes its picture otherwise than (x / 2 + 0.5).clamp(0, 1) of what its VAE decodes")
    found = next((way for way in _ways(vae) if _share(way, sample, z) > 0.1), None)  # inpainting keeps what is known
    if found is None:
        raise Unsupported(
            f"what the VAE of {name} is asked to decode is not its last sample by the VAE's scaling_factor and "
            "shift_factor, or latents_mean and latents_std: ask about latents, step(..., space='latents')"
        )
    return Coder(vae, *found)


def latent_of(pipeline: Any, picture: Tensor) -> Tensor | None:
    """The latent ``[C, h, w]`` of a picture ``[1, 3, H, W]`` in [0, 1] by a pipeline's VAE, where it has and can."""
    part = Listening(pipeline).part
    if part is None or picture.dim() != 4:
        return None
    vae = getattr(pipeline, part)
    try:
        with torch.no_grad():
            return Coder(vae, *_ways(vae)[0]).encode(picture)[0]
    except (ValueError, TypeError, AttributeError, NonFinite):  # of sound, or in half precision
        return None


def _ways(vae: Any) -> list[tuple[Tensor, Tensor]]:
    """Factors and shifts that a VAE's configuration may mean."""
    config = vae.config
    scale, shift = config.get("scaling_factor"), config.get("shift_factor") or 0.0
    found = [(1 / scale, shift)] if scale else []
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        found += [(torch.tensor(std) / (scale or 1.0), torch.tensor(mean)), (torch.tensor(std), torch.tensor(mean))]
    found.append((1.0, 0.0))
    return [(torch.as_tensor(factor), torch.as_tensor(move)) for factor, move in found]


def _share(way: tuple[Tensor, Tensor], sample: Tensor, z: Tensor) -> float:
    """How much of a latent is the sample scaled and shifted this way."""
    if sample.shape != z.shape:
        return 0.0
    wanted = _shaped(way[0], sample) * sample + _shaped(way[1], sample)
    return float(((wanted - z).abs() <= _EXACT * z.abs().clamp_min(_EXACT)).float().mean())


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """A number, or one a channel, to multiply ``[n, C, ...]``."""
    values = values.to(like)
    return values if values.dim() == 0 else values.view(1, -1, *[1] * (like.dim() - 2))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one.to(other), other, atol=1e-3)


@dataclass(frozen=True, eq=False)
class Packing:
    """How a pipeline packs latents ``[n, C, h, w]`` of pictures of this size into tokens ``[n, tokens, width]``."""

    pipeline: Any
    height: int
    width: int

    def pack(self, latents: Tensor) -> Tensor:
        """The tokens."""
        return self.pipeline._pack_latents(latents, *latents.shape)

    def unpack(self, tokens: Tensor) -> Tensor:
        """The latents."""
        return self.pipeline._unpack_latents(tokens, self.height, self.width, self.pipeline.vae_scale_factor)


def packing_of(pipeline: Any, sample: Tensor, picture: Tensor) -> Packing | None:
    """How a pipeline packs latents ``[n, C, h, w]`` into the tokens that its network is given, and unpacks them.

    Args:
        pipeline: the pipeline.
        sample: what its scheduler steps, ``[1, tokens, width]`` where it is packed.
        picture: what came of it, ``[1, 3, H, W]``.

    Raises:
        Unsupported: packed in a way that the pipeline does not tell.
    """
    if sample.dim() != 3 or not hasattr(pipeline, "_pack_latents") or not hasattr(pipeline, "_unpack_latents"):
        return None
    found = Packing(pipeline, *picture.shape[-2:])
    try:
        back = found.pack(found.unpack(sample))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unsupported(f"how {type(pipeline).__name__} packs its latents is not known: {error}") from error
    if back.shape != sample.shape or not torch.equal(back, sample):
        raise Unsupported(f"{type(pipeline).__name__} does not unpack what it packs")
    return found
