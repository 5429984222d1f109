"""The linear code that the VAE's latents are held close to."""

import torch

from flexiact.puppets.recipes.linear_code import fit_linear_code
from flexiact.puppets.recipes.vae import to_tensor, training_videos


def _clips(seed: int, count: int = 12) -> torch.Tensor:
    return to_tensor(training_videos(torch.Generator().manual_seed(seed), count))


def test_codes_have_unit_variance_and_the_latents_shape():
    clips = _clips(0)
    codes = fit_linear_code(clips, 16).encode(clips)
    assert codes.shape == (12, 16, 3, 16, 16)
    assert abs(float(codes.square().mean()) - 1) < 1e-3


def test_basis_is_orthonormal_and_ordered_by_variance():
    clips = _clips(0)
    code = fit_linear_code(clips, 16)
    assert torch.allclose(code.basis @ code.basis.T, torch.eye(16), atol=1e-5)
    variances = code.encode(clips).var((0, 2, 3, 4))
    assert bool((variances[:-1] >= variances[1:] - 1e-3).all())


def test_all_components_lose_nothing():
    clips = _clips(1, 2)
    code = fit_linear_code(clips, 192)
    blocks = code.encode(clips)[:, :, 1:].permute(0, 2, 3, 4, 1) / code.scale @ code.basis + code.mean
    batch, frames, height, width, _ = blocks.shape
    pixels = blocks.view(batch, frames, height, width, 3, 4, 4, 4).permute(0, 4, 1, 5, 2, 6, 3, 7)
    assert torch.allclose(pixels.reshape(batch, 3, 8, 64, 64), clips[:, :, 1:], atol=1e-3)


def test_what_stands_still_has_one_code_in_every_frame():
    clips = _clips(0)
    code = fit_linear_code(clips, 16).encode(clips[:, :, :1].expand(-1, -1, 9, -1, -1))
    assert torch.allclose(code[:, :, :1].expand_as(code), code, atol=1e-4)
