"""Single frames as clips of their own: what they are trained on, and where the transformer takes them to be."""

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
    """Batches of random frames without end, each a clip of its own whose condition it is; encoded once, here and now.

    Args:
        stills: the backbone for clips of one frame.
        reference: Video that frames are drawn from.
        caption: Caption of the reference.
        config: batch size and dropouts.
        generator: Source of all randomness, on the CPU.
    """
    clean = torch.cat([encode_video(stills, frame[None], generator) for frame in reference.frames])
    conditions = torch.cat([encode_image(stills, frame, generator) for frame in reference.frames])
    return drawn_batches(clean, conditions, encode_text(stills, ["", caption]), config, generator)


@contextmanager
def first_frame_positions(transformer: CogVideoXTransformer3DModel, num_latent_frames: int) -> Iterator[None]:
    """Let clips of so few latent frames have the first learned positions; without learned ones nothing changes.

    Left to itself the model would give another length than its own sinusoidal positions instead of what it learned.
    """
    config, own = transformer.config, transformer.patch_embed
    if not config.use_learned_positional_embeddings:
        yield
        return
    grid = (config.sample_height // config.patch_size) * (config.sample_width // config.patch_size)
    kept = config.max_text_seq_length + num_latent_frames // (config.patch_size_t or 1) * grid
    short = copy.copy(own)  # shares every weight
    short.sample_frames = (num_latent_frames - 1) * config.temporal_compression_ratio + 1
    short._buffers = own._buffers | {"pos_embedding": own.pos_embedding[:, :kept]}
    try:
        transformer._modules["patch_embed"] = short
        yield
    finally:
        transformer._modules["patch_embed"] = own
