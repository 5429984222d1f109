"""Degradations that make rendered frames look generated; the judges are trained and measured on them.

All functions take and return float frames [B, 3, H, W] in 0..1.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(frames: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur."""
    radius = max(1, round(3 * sigma_px))
    x = torch.arange(-radius, radius + 1, dtype=frames.dtype, device=frames.device)
    kernel = torch.exp(-(x**2) / (2 * sigma_px**2))
    kernel = kernel / kernel.sum()
    flat = F.pad(frames.flatten(0, 1)[:, None], [radius] * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.view_as(frames)


def coarse(frames: Tensor, factor: int) -> Tensor:
    """Remove detail as a strongly compressing autoencoder does: scale down by `factor`, and smoothly up again."""
    small = F.avg_pool2d(frames, factor)
    return F.interpolate(small, size=frames.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def add_noise(frames: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add white noise of the given standard deviation (1 is the full range)."""
    noise = torch.randn(frames.shape, generator=generator).to(frames)
    return (frames + sigma * noise).clamp(0, 1)


def lower_contrast(frames: Tensor, share: float) -> Tensor:
    """Keep the given share of each frame's contrast around its mean colour."""
    mean = frames.mean((2, 3), keepdim=True)
    return mean + share * (frames - mean)


def ghost(frames: Tensor, others: Tensor, share: float) -> Tensor:
    """Mix in a share of other frames, as when a limb is half in two places."""
    return torch.lerp(frames, others, share)


def _dct_matrix(size: int = 8) -> Tensor:
    k, n = torch.arange(size)[:, None], torch.arange(size)[None]
    rows = torch.cos(torch.pi * (2 * n + 1) * k / (2 * size)) * (2 / size) ** 0.5
    rows[0] /= 2**0.5
    return rows


def jpeg_like(frames: Tensor, step: float) -> Tensor:
    """Round the 8x8 cosine coefficients to a step that grows with frequency; H and W divisible by 8."""
    dct = _dct_matrix().to(frames)
    size = frames.shape[-1]
    blocks = frames.unfold(2, 8, 8).unfold(3, 8, 8)
    frequency = torch.arange(8, device=frames.device)
    steps = step * (1 + frequency[:, None] + frequency[None])
    rounded = ((dct @ blocks @ dct.T) / steps).round() * steps
    restored = dct.T @ rounded @ dct
    return restored.transpose(3, 4).reshape(*frames.shape[:3], size).clamp(0, 1)


def shuffle_blocks(frames: Tensor, generator: torch.Generator, block: int = 16) -> Tensor:
    """Put the blocks of every frame in another order, so that no figure is left."""
    count = frames.shape[-1] // block
    blocks = frames.unfold(2, block, block).unfold(3, block, block).flatten(2, 3)
    order = torch.randperm(count * count, generator=generator).to(frames.device)
    mixed = blocks[:, :, order].unflatten(2, (count, count))
    return mixed.transpose(3, 4).reshape(frames.shape)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def random_degradation(frames: Tensor, others: Tensor, generator: torch.Generator, ghosts: bool = True) -> Tensor:
    """Apply a random chain of degradations, each to a random part of the batch; about a quarter stays clean.

    Frames are [B, 3, H, W] in 0..1; `others` are neighbours of the same clips, which `ghosts` mixes in.
    """
    steps: tuple[tuple[float, Callable[[Tensor, Tensor], Tensor]], ...] = (
        (0.20 if ghosts else 0.0, lambda x, o: ghost(x, o, _uniform(generator, 0.1, 0.45))),
        (0.25, lambda x, _: blur(x, _uniform(generator, 0.4, 2.2))),
        (0.15, lambda x, _: coarse(x, 2 if torch.rand((), generator=generator) < 0.7 else 4)),
        (0.20, lambda x, _: lower_contrast(x, _uniform(generator, 0.35, 1.15)).clamp(0, 1)),
        (0.30, lambda x, _: (x + 0.10 * torch.randn(len(x), 3, 1, 1, generator=generator).to(x)).clamp(0, 1)),
        (0.15, lambda x, _: jpeg_like(x, _uniform(generator, 0.02, 0.10))),
        (0.25, lambda x, _: add_noise(x, _uniform(generator, 0.01, 0.10), generator)),
    )
    frames = frames.clone()
    for share, step in steps:
        rows = (torch.rand(len(frames), generator=generator) < share).nonzero()[:, 0].to(frames.device)
        if len(rows):
            frames[rows] = step(frames[rows], others[rows])
    return frames
