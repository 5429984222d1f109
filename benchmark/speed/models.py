"""Models of the true size with random weights: the cost of a step does not depend on what was learned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from benchmark.speed.comparison import GIB
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.cogvideox import COGVIDEOX_5B_I2V, Published
from flexiact.refadapter import RefAdapter

LARGE_GPU_GIB = 40.0
"""Least GPU memory for measuring on the 5B model's architecture."""
TEXT_ENCODER_GIB = 60.0
"""Least GPU memory that also has room for the whole T5-XXL (9.5 GB in bfloat16)."""

_STD = 0.02


@dataclass(frozen=True)
class Architecture(Published):
    """Sizes of one CogVideoX image-to-video model, and of a RefAdapter for it (rank, alpha), by default the paper's."""

    name: str = "cogvideox-5b-i2v-random"
    rank: int = 64
    alpha: float = 32.0


def five_b(text_encoder_layers: int = 24) -> Architecture:
    """Architecture of CogVideoX-5B-I2V and RefAdapter at the paper's size, with all or fewer layers of T5-XXL."""
    text_encoder = COGVIDEOX_5B_I2V.text_encoder | {"num_layers": text_encoder_layers}
    return Architecture(**(vars(COGVIDEOX_5B_I2V) | {"text_encoder": text_encoder}))


def random_backbone(
    architecture: Architecture, tokenizer: Any, device: torch.device, dtype: torch.dtype, folder: Path
) -> Backbone:
    """Make a backbone whose weights are drawn on the device itself, directly in `dtype`; its RefAdapter is in `folder`.

    The tokenizer may be of any kind whose token ids lie inside the text encoder's vocabulary.
    """
    generator = torch.Generator(device).manual_seed(0)
    with torch.device("meta"):
        networks = {
            "vae": AutoencoderKLCogVideoX(**architecture.vae),
            "transformer": CogVideoXTransformer3DModel(**architecture.transformer),
            "text_encoder": T5EncoderModel(T5Config(**architecture.text_encoder)),
        }
    networks = {part: network.to(dtype).to_empty(device=device) for part, network in networks.items()}
    for network in networks.values():
        network.eval().requires_grad_(False)
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, _STD, generator=generator)
    RefAdapter(networks["transformer"], architecture.rank, architecture.alpha).save(folder)
    return Backbone(
        name=architecture.name,
        revision="random",
        **networks,
        tokenizer=tokenizer,
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
            snr_shift_scale=1.0,
        ),
        **architecture.settings,
        refadapter=folder,
        device=device,
        dtype=dtype,
        tiled_decode=True,
    )


def large_gpu(device: torch.device) -> bool:
    """Return True if the device is a GPU with room for the 5B model's architecture."""
    return gpu_memory_gib(device) >= LARGE_GPU_GIB


def gpu_memory_gib(device: torch.device) -> float:
    """Memory of a GPU; 0 for other devices."""
    return torch.cuda.get_device_properties(device).total_memory / GIB if device.type == "cuda" else 0.0
