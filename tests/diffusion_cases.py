"""Small denoisers that several diffusion tests share."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from explain.diffusion.model import DiffusionModel

STEPS = 100


def tiny_unet(size=8, channels=1, classes=11, seed=0) -> UNet2DModel:
    """A random class-conditional U-Net with attention; the last class is "no label"."""
    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    ).eval()


def digits_like(count=1, seed=0, size=8) -> torch.Tensor:
    """Smooth images ``[count, 1, size, size]`` in [-1, 1]."""
    coarse = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear").tanh()


def unet_model(**options) -> DiffusionModel:
    """The tiny U-Net with a DDIM schedule of `STEPS` steps and null class 10."""
    return DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS, clip_sample=False), null=10, **options)


class _Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.labels = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 1, 3, padding=1),
            nn.Embedding(11, 8),
        )

    def forward(self, sample, timestep, class_labels):
        h = self.first(sample) + self.labels(class_labels)[:, :, None, None] + timestep.view(-1, 1, 1, 1) / STEPS
        return UNet2DOutput(self.second(h.tanh()))


def tiny_net(seed=0) -> nn.Module:
    """Two convolutions and a label: a denoiser for thousands of single calls."""
    torch.manual_seed(seed)
    return _Convolutions().eval()


class Tally:
    """Two counters."""

    rows = 0
    null_rows = 0


class Counting(nn.Module):
    """Counts the rows that a network is asked for, and how many of them hold the null label."""

    tally = Tally()  # of the class: what an instance holds is put back

    def __init__(self, net, null=10):
        super().__init__()
        self.net, self.null = net, null

    def forward(self, sample, timestep, class_labels):
        self.tally.rows += len(sample)
        self.tally.null_rows += int((class_labels == self.null).sum())
        return self.net(sample, timestep, class_labels).sample


class Planted(nn.Module):
    """Says the noise exactly, but for an error that hangs on the brightness of one 2 x 2 patch and on one class.

    ``prediction = e_hat``, with ``e_hat`` moved by the patch at (4, 4) and, where the label is 3, by a constant.
    """

    def forward(self, x, timestep, class_labels):
        seen = x[:, :, 4:6, 4:6].mean((1, 2, 3)).view(-1, 1, 1, 1)
        push = (class_labels == 3).to(x.dtype).view(-1, 1, 1, 1)
        return torch.zeros_like(x) + 0.5 * seen + 0.25 * push
