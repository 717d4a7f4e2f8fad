"""Tiny random networks of diffusers, made from configurations: what a pipeline denoises, decodes and controls with."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    ControlNetModel,
    DiTTransformer2DModel,
    FluxTransformer2DModel,
    MotionAdapter,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet1DModel,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    VQModel,
    WanTransformer3DModel,
)

LATENT, PIXELS = 8, 16  # the sides of a latent and of the picture that it is decoded to
TEXT = 32  # features of a token, from the text encoders

_BLOCKS = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
_CODER = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
_TRANSFORMER = {"num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 2}
_PATCHES = {"sample_size": LATENT, "patch_size": 2, "in_channels": 4}


def seeded(kind: Any, *arguments: Any, seed: int = 0, **config: Any) -> Any:
    """A random module in evaluation mode, the same at every call; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(*arguments, **config).eval()


def vae(channels: int = 4, **config: Any) -> AutoencoderKL:
    """Pictures of 16 x 16 pixels to latents of 8 x 8."""
    width = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": channels, "sample_size": PIXELS}
    return seeded(AutoencoderKL, **_CODER, **width, **config)


def flow_vae() -> AutoencoderKL:
    """As SD3's and Flux's: shifted, without quantisation layers."""
    return vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)


def vq() -> VQModel:
    """Pictures to latents of three channels, by a codebook."""
    width = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 3, "num_vq_embeddings": 32}
    return seeded(VQModel, **_CODER, **width)


def video_vae() -> AutoencoderKLWan:
    """An eighth of the height and width, a fourth of the frames after the first."""
    latents = {"z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    layers = {"base_dim": 4, "dim_mult": [1] * 4, "num_res_blocks": 1, "temperal_downsample": [False, True, True]}
    return seeded(AutoencoderKLWan, **latents, **layers)


def unet(channels: int = 4, **config: Any) -> UNet2DConditionModel:
    """Conditional on text by cross-attention, in one of its two blocks down and up and in the middle."""
    layers = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 2,
    }
    own = {"sample_size": LATENT, "in_channels": channels, "out_channels": 4, "cross_attention_dim": TEXT}
    return seeded(UNet2DConditionModel, **(_BLOCKS | layers | own | config))


def plain_unet(channels: int = 3, size: int = LATENT, **config: Any) -> UNet2DModel:
    """Without text, with self-attention."""
    layers = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 8,
    }
    return seeded(UNet2DModel, **_BLOCKS, **layers, sample_size=size, in_channels=channels, out_channels=3, **config)


def video_unet() -> UNet3DConditionModel:
    """Latents ``[C, T, H, W]``, conditional on text."""
    layers = {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 4,
    }
    own = {"sample_size": LATENT, "in_channels": 4, "out_channels": 4, "cross_attention_dim": TEXT}
    return seeded(UNet3DConditionModel, **_BLOCKS, **layers, **own)


def sound_unet() -> UNet1DModel:
    """Sound ``[2, L]``."""
    return seeded(
        UNet1DModel,
        block_out_channels=(32, 32, 64),
        extra_in_channels=64,
        sample_size=512,
        sample_rate=16_000,
        in_channels=2,
        out_channels=2,
        flip_sin_to_cos=True,
        use_timestep_embedding=False,
        time_embedding_type="fourier",
        mid_block_type="UNetMidBlock1D",
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"),
    )


def motion() -> MotionAdapter:
    """Attention over time between the blocks of `unet`."""
    attention = {"motion_num_attention_heads": 2, "motion_max_seq_length": 4, "motion_norm_num_groups": 4}
    return seeded(MotionAdapter, block_out_channels=(8, 16), motion_layers_per_block=1, **attention)


def control_network() -> ControlNetModel:
    """One whose last layers, which start at zero, are random, so that it says something."""
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 2}
    own = {"cross_attention_dim": TEXT, "conditioning_embedding_out_channels": (4, 8)}
    network = seeded(ControlNetModel, **_BLOCKS, **blocks, **own)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "controlnet_" in name and not weights.any():
                weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
    return network


def sd3_transformer() -> SD3Transformer2DModel:
    """Joint attention of picture and text, and a pooled vector."""
    own = {"caption_projection_dim": 16, "joint_attention_dim": 2 * TEXT, "pooled_projection_dim": 2 * TEXT}
    return seeded(SD3Transformer2DModel, **_TRANSFORMER, **_PATCHES, **own, out_channels=4, pos_embed_max_size=LATENT)


def flux_transformer(distilled: bool = True) -> FluxTransformer2DModel:
    """Packed latents of 16 channels; guidance is an input where it was distilled."""
    attention = {"attention_head_dim": 16, "num_attention_heads": 2, "axes_dims_rope": (4, 4, 8)}
    own = {"joint_attention_dim": TEXT, "pooled_projection_dim": TEXT, "guidance_embeds": distilled}
    layers = {"patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1}
    return seeded(FluxTransformer2DModel, **attention, **own, **layers)


def pixart_transformer() -> PixArtTransformer2DModel:
    """Cross-attention to T5; a variance is returned beside the noise."""
    own = {"cross_attention_dim": 16, "caption_channels": TEXT, "out_channels": 8}
    return seeded(PixArtTransformer2DModel, **_TRANSFORMER, **_PATCHES, **own)


def dit_transformer() -> DiTTransformer2DModel:
    """1,000 labels and a null; a variance is returned beside the noise."""
    return seeded(DiTTransformer2DModel, **_TRANSFORMER, **_PATCHES, out_channels=8, num_embeds_ada_norm=1000)


def wan_transformer() -> WanTransformer3DModel:
    """Video latents, cross-attention to T5."""
    width = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "freq_dim": 16, "num_layers": 2}
    return seeded(WanTransformer3DModel, in_channels=4, out_channels=4, text_dim=TEXT, rope_max_seq_len=32, **width)
