"""Encode texts and frames for a backbone, and decode latents, as the stock pipeline does.

Decoding on a CPU is by oneDNN and may round otherwise: a frame can differ from the pipeline's by single grey levels.

Pixel frames are uint8 [T, H, W, 3]. Latents are [B, F, C, h, w], with frames before channels, as in the transformer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.convolution import OneDnnConv3d
from flexiact.ranges import check_text
from flexiact.terminal.notes import note

_SHOWN_LETTERS = 30  # largest number of letters of a long text that a note shows


@torch.no_grad()
def encode_text(backbone: Backbone, texts: Sequence[str]) -> torch.Tensor:
    """Text-encoder states [len(texts), max_text_tokens, text width], padded or truncated to that length."""
    states = []
    for text in texts:  # one at a time, as the pipeline does: a batch may round differently
        tokens = backbone.tokenizer(
            [text],
            padding="max_length",
            max_length=backbone.max_text_tokens,
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        states.append(backbone.text_encoder(tokens.input_ids.to(backbone.device))[0].to(backbone.dtype))
    return torch.cat(states)


def note_long_text(backbone: Backbone, text: str) -> None:
    """Print a note if `encode_text` truncates a text.

    Raises:
        ValueError: If the text holds half a character.
    """
    check_text("text", text)
    tokens = len(backbone.tokenizer(text, verbose=False).input_ids)  # without the tokenizer's own warning about lengths
    if tokens > backbone.max_text_tokens:
        start = text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."
        read = f"the first {backbone.max_text_tokens} are read, what follows is not"
        note(f"{start!r}", f"has {tokens} tokens: {read}")


@torch.no_grad()
def encode_image(backbone: Backbone, image: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """The model's condition for an image uint8 [H, W, 3]: the image's latent, then zeros for all later frames.

    The generator draws the sample of the VAE's posterior.

    Returns:
        Condition [1, F, C, h, w], with the scale that the model was trained on.
    """
    latent = _posterior_sample(backbone, image[None], generator)
    scale = backbone.vae.config.scaling_factor
    # Some models were trained on conditions divided by the factor instead of multiplied; their configuration says so.
    latent = 1 / scale * latent if backbone.vae.config.invert_scale_latents else scale * latent
    return as_condition(latent, backbone.latent_shape[0])


def as_condition(image_latent: torch.Tensor, num_latent_frames: int) -> torch.Tensor:
    """Image latents [B, 1, C, h, w], padded with zero frames to [B, num_latent_frames, C, h, w]."""
    batch, _, *rest = image_latent.shape
    return torch.cat([image_latent, image_latent.new_zeros(batch, num_latent_frames - 1, *rest)], dim=1)


def clean_latent(backbone: Backbone, condition: torch.Tensor) -> torch.Tensor:
    """The image's latent [B, 1, C, h, w] inside a condition, scaled as the model diffuses latents."""
    # Even models with conditions divided by the factor diffuse latents multiplied by it.
    return condition[:, :1] * (backbone.vae.config.scaling_factor**2 if backbone.vae.config.invert_scale_latents else 1)


@torch.no_grad()
def encode_video(backbone: Backbone, frames: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Clean latents [1, F, C, h, w] of uint8 frames [T, H, W, 3], scaled as the model diffuses them."""
    return _padded(backbone, _posterior_sample(backbone, frames, generator) * backbone.vae.config.scaling_factor)


@torch.no_grad()
def encode_control(backbone: Backbone, frames: np.ndarray) -> torch.Tensor:
    """Scaled latents [1, F, C, h, w] of a control video, uint8 [T, H, W, 3], from the posterior's mode."""
    latents = _posterior(backbone, frames).mode().to(backbone.dtype).permute(0, 2, 1, 3, 4)
    return _padded(backbone, latents * backbone.vae.config.scaling_factor)


@torch.no_grad()
def decode_latents(backbone: Backbone, latents: torch.Tensor) -> np.ndarray:
    """Frames uint8 [B, T, H, W, 3] of latents [B, F, C, h, w]."""
    pixels = decode_pixels(backbone, latents).permute(0, 2, 3, 4, 1).cpu().float().numpy()
    return (pixels * 255).round().astype(np.uint8)


@torch.no_grad()
def decode_pixels(backbone: Backbone, latents: torch.Tensor) -> torch.Tensor:
    """Pixels [B, 3, T, H, W] in [0, 1] of latents [B, F, C, h, w], on the device; in tiles if `tiled_decode` is set."""
    latents = latents[:, backbone.num_padding_frames :].permute(0, 2, 1, 3, 4)
    # Tiles are for decoding alone: conditions are encoded whole, as in the model's training.
    with tiled(backbone), OneDnnConv3d():
        pixels: torch.Tensor = backbone.vae.decode(1 / backbone.vae.config.scaling_factor * latents).sample
    return (pixels * 0.5 + 0.5).clamp(0, 1)


@contextmanager
def tiled(backbone: Backbone) -> Iterator[None]:
    """Let the VAE work in tiles and one clip at a time if the backbone's `tiled_decode` is set."""
    vae, before = backbone.vae, (backbone.vae.use_tiling, backbone.vae.use_slicing)
    if backbone.tiled_decode:
        vae.use_tiling = vae.use_slicing = True
    try:
        yield
    finally:
        vae.use_tiling, vae.use_slicing = before


def _posterior_sample(backbone: Backbone, frames: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    latents = _posterior(backbone, frames).sample(generator)
    return latents.to(backbone.dtype).permute(0, 2, 1, 3, 4)


def _posterior(backbone: Backbone, frames: np.ndarray) -> Any:
    pixels = torch.from_numpy(2.0 * (frames.astype(np.float32) / 255.0) - 1.0)
    pixels = pixels.permute(3, 0, 1, 2)[None].contiguous().to(backbone.device, backbone.dtype)
    return backbone.vae.encode(pixels).latent_dist


def _padded(backbone: Backbone, latents: torch.Tensor) -> torch.Tensor:
    padding = backbone.num_padding_frames
    return torch.cat([latents[:, :1].expand(-1, padding, -1, -1, -1), latents], dim=1) if padding else latents
