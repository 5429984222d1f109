"""Linear code of puppet clips: the target of the VAE's encoder, so that a small model can learn the latents.

Every 4x4x4 block of pixels is reduced to its largest principal components. So a moving figure moves through the latents
in the same way everywhere, and a blurred latent decodes to a blurred picture instead of speckle. The code is known
before training, so the transformer and both halves of the VAE can be trained at the same time.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from flexiact.media.files import read_tensors, replacing

BLOCK = 4  # pixels and frames a side: the compression of the VAE


@dataclass(frozen=True, eq=False)
class LinearCode:
    """Orthonormal `basis` [C, 3 * 4^3], the mean block [3 * 4^3], and the `scale` [] that gives codes unit variance."""

    basis: Tensor
    mean: Tensor
    scale: Tensor

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes [B, C, F, H/4, W/4] of pixels [B, 3, 1 + 4 (F - 1), H, W]."""
        codes = (_blocks(pixels) - self.mean.to(pixels)) @ self.basis.T.to(pixels) * self.scale.to(pixels)
        return codes.permute(0, 4, 1, 2, 3)


def _blocks(pixels: Tensor) -> Tensor:
    """Blocks [B, F, H/4, W/4, 3 * 4^3]; the first frame, which stands alone, counts as four equal ones."""
    pixels = functional.pad(pixels, (0, 0, 0, 0, BLOCK - 1, 0), mode="replicate")
    batch, channels, frames, height, width = pixels.shape
    shape = (batch, channels, frames // BLOCK, BLOCK, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return pixels.reshape(shape).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def fit_linear_code(pixels: Tensor, channels: int) -> LinearCode:
    """Principal components of the blocks of clips [B, 3, T, H, W]."""
    blocks = _blocks(pixels).flatten(0, 3).double()
    mean = blocks.mean(0)
    covariance = (blocks - mean).T @ (blocks - mean) / len(blocks)
    values, vectors = torch.linalg.eigh(covariance)
    basis = vectors.T.flip(0)[:channels]
    # An eigenvector's sign is arbitrary; it is fixed here, so that every machine learns the same latents.
    basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
    scale = values.flip(0)[:channels].mean().rsqrt()
    return LinearCode(basis.float(), mean.float(), scale.float())


def save_linear_code(code: LinearCode, path: Path) -> None:
    """Write a code as safetensors; the file gets its name only when it is complete."""
    with replacing(path) as partial:
        save_file({"basis": code.basis, "mean": code.mean, "scale": code.scale}, partial)


def load_linear_code(path: Path) -> LinearCode:
    """Read a code that `save_linear_code` wrote."""
    return LinearCode(**read_tensors(path)[0])
