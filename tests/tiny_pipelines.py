"""Tiny random diffusers pipelines, each built and run in a tenth of a second, and how each is called.

`CASES` names them: what builds the pipeline, and the further arguments of its call that make a short run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import tiny_networks as nets
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from tiny_encoders import clap, clip, clip_tokenizer, t5, t5_tokenizer, vocoder
from tiny_networks import LATENT, PIXELS, TEXT

PROMPT, NEGATIVE = "a red fox in deep snow", "blurry"
_SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

diffusers.utils.logging.set_verbosity_error()  # that some pipelines are no longer developed


class Case(NamedTuple):
    """How a pipeline is built and called: `call` holds what its call needs beside prompt, steps and generator."""

    build: Callable[[], Any]
    call: dict[str, Any]
    asks: str = "words"  # what its run is conditioned on: "words", "labels" or "nothing"


def ddim(**config: Any) -> DDIMScheduler:
    """As Stable Diffusion's."""
    return DDIMScheduler(**(_SD | {"steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False} | config))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_diffusion(
    kind: Any = diffusers.StableDiffusionPipeline, net: Any = None, scheduler: Any = None, **more: Any
) -> Any:
    """Stable Diffusion, or one of the pipelines made of the same parts and `more`."""
    parts = {"vae": nets.vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": net or nets.unet()}
    parts |= {"scheduler": scheduler or ddim(), "safety_checker": None, "feature_extractor": None}
    return _quiet(kind(**(parts | {"requires_safety_checker": False} | more)))


def sdxl(kind: Any = diffusers.StableDiffusionXLPipeline, scheduler: Any = None, **more: Any) -> Any:
    """Two encoders, of which the second is pooled, and six numbers of size."""
    size = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    net = nets.unet(cross_attention_dim=2 * TEXT, projection_class_embeddings_input_dim=6 * 8 + TEXT, **size)
    texts = {"text_encoder": clip(), "text_encoder_2": clip(projected=True, seed=1)}
    texts |= {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    scheduler = scheduler or diffusers.EulerDiscreteScheduler(**_SD, timestep_spacing="leading")
    return _quiet(kind(vae=nets.vae(), unet=net, scheduler=scheduler, add_watermarker=False, **texts, **more))


def sd3(kind: Any = diffusers.StableDiffusion3Pipeline, with_t5: bool = True) -> Any:
    """Joint attention; two CLIP encoders with pooled vectors, and a T5 or none."""
    texts = {"text_encoder": clip(projected=True), "text_encoder_2": clip(projected=True, seed=1)}
    texts |= {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    third = (t5(2 * TEXT), t5_tokenizer()) if with_t5 else (None, None)
    texts |= dict(zip(("text_encoder_3", "tokenizer_3"), third, strict=True))
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return _quiet(kind(transformer=nets.sd3_transformer(), scheduler=flow, vae=nets.flow_vae(), **texts))


def flux(kind: Any = diffusers.FluxPipeline, distilled: bool = True) -> Any:
    """Packed latents, a schedule shifted by their number, and guidance as an input of the network."""
    texts = {
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
    }
    flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return _quiet(kind(scheduler=flow, vae=nets.flow_vae(), transformer=nets.flux_transformer(distilled), **texts))


def pixart(kind: Any = diffusers.PixArtAlphaPipeline) -> Any:
    """T5 with a mask of the padding."""
    parts = {"tokenizer": t5_tokenizer(), "text_encoder": t5(), "transformer": nets.pixart_transformer()}
    return _quiet(kind(vae=nets.vae(), scheduler=diffusers.DPMSolverMultistepScheduler(), **parts))


def dit() -> Any:
    """Labels; the pipeline's null class is 1000."""
    parts = {"transformer": nets.dit_transformer(), "scheduler": DDIMScheduler(clip_sample=False)}
    return _quiet(diffusers.DiTPipeline(vae=nets.vae(), **parts))


def ldm_text() -> Any:
    """A text encoder named bert, a codebook, and 77 tokens."""
    parts = {"bert": clip(), "tokenizer": clip_tokenizer(), "unet": nets.unet(channels=3, out_channels=3)}
    return _quiet(diffusers.LDMTextToImagePipeline(vqvae=nets.vq(), scheduler=ddim(), **parts))


def super_resolution() -> Any:
    """The small picture is joined to the latent's channels."""
    parts = {"vqvae": nets.vq(), "unet": nets.plain_unet(channels=6, size=PIXELS), "scheduler": ddim()}
    return _quiet(diffusers.LDMSuperResolutionPipeline(**parts))


def upscale() -> Any:
    """The small picture, noised to a level that the network is told as a class."""
    parts = {"vae": nets.vae(scaling_factor=0.08333), "unet": nets.unet(channels=7, num_class_embeds=1000)}
    parts |= {"text_encoder": clip(), "tokenizer": clip_tokenizer(), "scheduler": ddim()}
    return _quiet(diffusers.StableDiffusionUpscalePipeline(low_res_scheduler=DDPMScheduler(), **parts))


def controlnet(kind: Any = diffusers.StableDiffusionControlNetPipeline) -> Any:
    """Stable Diffusion with a second network that looks at a picture."""
    return stable_diffusion(kind, controlnet=nets.control_network())


def latent_consistency() -> Any:
    """Guidance as an embedding of the network, in one call a step."""
    net, scheduler = nets.unet(time_cond_proj_dim=8), diffusers.LCMScheduler(clip_sample=False)
    return stable_diffusion(diffusers.LatentConsistencyModelPipeline, net, scheduler)


def perturbed_attention() -> Any:
    """Guidance by a third row, told from the one with the prompt by its place in the batch alone."""
    return stable_diffusion(diffusers.StableDiffusionPAGPipeline, pag_applied_layers="mid")


def trajectory_consistency() -> Any:
    """Stable Diffusion by the stochastic scheduler of TCD."""
    return stable_diffusion(scheduler=diffusers.TCDScheduler(**_SD, steps_offset=1))


def deepfloyd() -> Any:
    """Pixels, T5, and a network that returns a variance beside the noise."""
    parts = {"tokenizer": t5_tokenizer(), "text_encoder": t5(), "unet": nets.unet(channels=3, out_channels=6)}
    parts |= dict.fromkeys(("safety_checker", "feature_extractor", "watermarker"))
    learned = DDPMScheduler(variance_type="learned_range")
    return _quiet(diffusers.IFPipeline(**parts, scheduler=learned, requires_safety_checker=False))


def text_to_video() -> Any:
    """Latents ``[C, T, H, W]``."""
    parts = {"vae": nets.vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": nets.video_unet()}
    return _quiet(diffusers.TextToVideoSDPipeline(**parts, scheduler=ddim()))


def animate() -> Any:
    """A text-to-image network between whose blocks a motion module attends over time."""
    parts = {"vae": nets.vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": nets.unet()}
    return _quiet(diffusers.AnimateDiffPipeline(**parts, scheduler=ddim(), motion_adapter=nets.motion()))


def wan() -> Any:
    """Video by a flow; the two branches of guidance are two calls."""
    parts = {"tokenizer": t5_tokenizer(), "text_encoder": t5(), "vae": nets.video_vae()}
    flow = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    return _quiet(diffusers.WanPipeline(**parts, transformer=nets.wan_transformer(), scheduler=flow))


def audio_ldm() -> Any:
    """The pooled text as a class embedding; mel spectrograms, and a vocoder to sound."""
    net = nets.unet(
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=TEXT,
        class_embeddings_concat=True,
        cross_attention_dim=(8, 16),  # attention of each block to itself
    )
    coder = nets.vae(in_channels=1, out_channels=1)
    parts = {"vae": coder, "unet": net, "scheduler": ddim(), "text_encoder": clap(), "tokenizer": t5_tokenizer()}
    return _quiet(diffusers.AudioLDMPipeline(**parts, vocoder=vocoder()))


def dance_diffusion() -> Any:
    """Sound without text."""
    return _quiet(diffusers.DanceDiffusionPipeline(nets.sound_unet(), diffusers.IPNDMScheduler()))


def unconditional(kind: Any, scheduler: Any, **config: Any) -> Any:
    """A network and a scheduler, nothing more."""
    return _quiet(kind(unet=nets.plain_unet(**config), scheduler=scheduler))


def picture(size: int = PIXELS, seed: int = 0) -> torch.Tensor:
    """A smooth picture ``[1, 3, size, size]`` in [0, 1]."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def mask(size: int = PIXELS) -> torch.Tensor:
    """The right half of a picture ``[1, 1, size, size]``, which is painted anew."""
    return (torch.arange(size) >= size // 2).float().expand(1, 1, size, size)


_TEXT = {"guidance_scale": 5.0}
_T5 = _TEXT | {"max_sequence_length": 16}
_SIZE = {"height": PIXELS, "width": PIXELS}
_FROM = {"image": picture(), "strength": 0.6}
_PAINT = {"image": picture(), "mask_image": mask()}
_PIXART = _T5 | {"use_resolution_binning": False}

CASES = {
    "sd": Case(stable_diffusion, _TEXT),
    "sdxl": Case(sdxl, _TEXT),
    "sd3": Case(sd3, _T5),
    "sd3 without T5": Case(lambda: sd3(with_t5=False), _TEXT),
    "flux": Case(flux, _T5 | _SIZE),
    "pixart alpha": Case(pixart, _PIXART),
    "pixart sigma": Case(lambda: pixart(diffusers.PixArtSigmaPipeline), _PIXART),
    "dit": Case(dit, {"guidance_scale": 4.0}, "labels"),
    "ldm text": Case(ldm_text, _TEXT | {"height": 8 * LATENT, "width": 8 * LATENT}),
    "ldm": Case(lambda: _quiet(diffusers.LDMPipeline(nets.vq(), nets.plain_unet(), ddim())), {}, "nothing"),
    "super resolution": Case(super_resolution, {"image": picture(LATENT) * 2 - 1}, "nothing"),
    "upscale": Case(upscale, _TEXT | {"image": picture(LATENT), "noise_level": 20}),
    "img2img": Case(lambda: stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline), _TEXT | _FROM),
    "sdxl img2img": Case(lambda: sdxl(diffusers.StableDiffusionXLImg2ImgPipeline), _TEXT | _FROM),
    "sd3 img2img": Case(lambda: sd3(diffusers.StableDiffusion3Img2ImgPipeline), _T5 | _FROM),
    "inpaint": Case(lambda: stable_diffusion(diffusers.StableDiffusionInpaintPipeline), _TEXT | _PAINT),
    "inpaint of 9 channels": Case(
        lambda: stable_diffusion(diffusers.StableDiffusionInpaintPipeline, nets.unet(9)), _TEXT | _PAINT
    ),
    "pix2pix": Case(
        lambda: stable_diffusion(diffusers.StableDiffusionInstructPix2PixPipeline, nets.unet(8)),
        _TEXT | {"image": picture(), "image_guidance_scale": 1.5},
    ),
    "controlnet": Case(controlnet, _TEXT | {"image": picture()}),
    "controlnet img2img": Case(
        lambda: controlnet(diffusers.StableDiffusionControlNetImg2ImgPipeline),
        _TEXT | _FROM | {"control_image": picture(seed=1)},
    ),
    "perturbed attention": Case(perturbed_attention, _TEXT | {"pag_scale": 3.0}),
    "lcm": Case(latent_consistency, _TEXT),
    "tcd": Case(trajectory_consistency, _TEXT | {"eta": 0.3}),
    "edm": Case(lambda: sdxl(scheduler=diffusers.EDMEulerScheduler()), _TEXT),
    "consistency": Case(
        lambda: unconditional(
            diffusers.ConsistencyModelPipeline, diffusers.CMStochasticIterativeScheduler(), num_class_embeds=10
        ),
        {},
        "labels",
    ),
    "karras ve": Case(
        lambda: unconditional(diffusers.KarrasVePipeline, diffusers.KarrasVeScheduler(sigma_max=1.0)), {}, "nothing"
    ),
    "score sde ve": Case(
        lambda: unconditional(diffusers.ScoreSdeVePipeline, diffusers.ScoreSdeVeScheduler(sigma_max=1.0)), {}, "nothing"
    ),
    "ddpm": Case(lambda: unconditional(diffusers.DDPMPipeline, DDPMScheduler()), {}, "nothing"),
    "ddim": Case(lambda: unconditional(diffusers.DDIMPipeline, DDIMScheduler()), {"eta": 0.5}, "nothing"),
    "pndm": Case(lambda: unconditional(diffusers.PNDMPipeline, diffusers.PNDMScheduler()), {}, "nothing"),
    "deepfloyd": Case(deepfloyd, _TEXT | {"clean_caption": False}),
    "text to video": Case(text_to_video, _TEXT | _SIZE | {"num_frames": 2}),
    "animate": Case(animate, _TEXT | {"num_frames": 2}),
    "wan": Case(wan, _T5 | {"num_frames": 5, "height": 2 * PIXELS, "width": 2 * PIXELS}),
    "audio ldm": Case(audio_ldm, {"guidance_scale": 2.5, "audio_length_in_s": 0.032}),
    "dance diffusion": Case(dance_diffusion, {}, "nothing"),
}
