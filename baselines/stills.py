"""Train on single frames as one-frame clips: their batches, and their positions in the transformer."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import CogVideoXTransformer3DModel

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import encode_image, encode_text, encode_video
from flexiact.batches import Batch, DrawConfig, drawn_batches
from flexiact.task import Video


def still_batches(
    stills: Backbone, reference: Video, caption: str, config: DrawConfig, generator: torch.Generator
) -> Iterator[Batch]:
    """Endless batches of random frames as one-frame clips, each its own condition; the call itself encodes them."""
    clean = torch.cat([encode_video(stills, frame[None], generator) for frame in reference.frames])
    conditions = torch.cat([encode_image(stills, frame, generator) for frame in reference.frames])
    return drawn_batches(clean, conditions, encode_text(stills, ["", caption]), config, generator)


@contextmanager
def first_frame_positions(transformer: CogVideoXTransformer3DModel, num_latent_frames: int) -> Iterator[None]:
    """Let clips of `num_latent_frames` keep the first learned positions; without learned positions nothing changes.

    For any length except its native one diffusers recomputes sinusoidal positions.
    """
    config, own = transformer.config, transformer.patch_embed
    if not config.use_learned_positional_embeddings:
        yield
        return
    grid = (config.sample_height // config.patch_size) * (config.sample_width // config.patch_size)
    kept = config.max_text_seq_length + num_latent_frames // (config.patch_size_t or 1) * grid
    short = copy.copy(own)  # a copy that shares every weight
    short.sample_frames = (num_latent_frames - 1) * config.temporal_compression_ratio + 1
    short._buffers = own._buffers | {"pos_embedding": own.pos_embedding[:, :kept]}
    try:
        transformer._modules["patch_embed"] = short
        yield
    finally:
        transformer._modules["patch_embed"] = own
