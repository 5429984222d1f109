"""The smallest real backbone: diffusers' and transformers' own classes with random weights, nothing fetched."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.control import PROJECTION, save_control, widened
from flexiact.backbone.convolution import OneDnnConv3d
from flexiact.backbone.specs import SETTINGS
from flexiact.refadapter import RefAdapter

TEXT_TOKENS = 6
HEIGHT, WIDTH = 16, 24  # not square, so that swapped axes show
WORDS = "<pad> <unk> </s> a an red blue dog bird figure waves jumps the on grass".split()
SCHEDULER_CONFIG = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "snr_shift_scale": 1.0,
}


NO_CONTENT = {
    b"": "is empty, cut short",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n": "only points to its content",
    b"<!DOCTYPE html><html>": "is a web page",
}
"""What copies and downloads that fail leave in place of a file, and what is said then."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=TEXT_TOKENS
    )


def tiny_scheduler(kind: str = "ddim", **overrides) -> CogVideoXDDIMScheduler | CogVideoXDPMScheduler:
    classes = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}
    return classes[kind](**(SCHEDULER_CONFIG | overrides))


def tiny_vae() -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        sample_height=HEIGHT,
        sample_width=WIDTH,
    )


def tiny_transformer(**overrides) -> CogVideoXTransformer3DModel:
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 8,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 16,
        "num_layers": 2,
        "sample_height": HEIGHT // 4,
        "sample_width": WIDTH // 4,
        "sample_frames": 9,
        "max_text_seq_length": TEXT_TOKENS,
        "use_rotary_positional_embeddings": True,
    }
    return CogVideoXTransformer3DModel(**(config | overrides))


def tiny_backbone(
    seed: int = 0,
    *,
    scheduler: str = "ddim",
    scheduler_config: dict | None = None,
    transformer_config: dict | None = None,
    refadapter: Path | None = None,
    control: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """9 frames of 16x24 px, 18 video tokens; every weight drawn from `seed`, the global generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {
            "vae": tiny_vae(),
            "transformer": tiny_transformer(**(transformer_config or {})),
            "text_encoder": T5EncoderModel(
                T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
            ),
        }
        for network in networks.values():
            network.eval().requires_grad_(False)
        # As initialised, gates and the last layer are so small that nothing learned could show in the frames.
        for parameter in networks["transformer"].parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        for network in networks.values():
            network.to(dtype)
    return Backbone(
        name="tiny",
        revision=f"seed-{seed}",
        **networks,
        tokenizer=tiny_tokenizer(),
        scheduler=tiny_scheduler(scheduler, **(scheduler_config or {})),
        num_frames=9,
        height=HEIGHT,
        width=WIDTH,
        fps=8.0,
        max_text_tokens=TEXT_TOKENS,
        num_inference_steps=4,
        guidance_scale=3.0,
        refadapter=refadapter,
        control=control,
        dtype=dtype,
    )


def save_tiny_folder(folder: Path, backbone: Backbone) -> Path:
    """A backbone as a folder in diffusers' layout, with its native settings."""
    CogVideoXImageToVideoPipeline(
        backbone.tokenizer, backbone.text_encoder, backbone.vae, backbone.transformer, backbone.scheduler
    ).save_pretrained(folder)
    (folder / "puppets.json").write_text(json.dumps({name: getattr(backbone, name) for name in SETTINGS}))
    return folder


def save_tiny_refadapter(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """A RefAdapter that does something: both halves random."""
    adapter = RefAdapter(backbone.transformer, rank=2, alpha=2)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data.normal_(generator=generator).mul_(0.3)
    adapter.save(folder)
    return folder


def save_tiny_control(folder: Path, backbone: Backbone, seed: int = 0) -> Path:
    """Control weights that do something: random ones for the control's channels, and one other weight changed."""
    wide = widened(backbone.transformer)
    generator = torch.Generator().manual_seed(seed)
    columns = dict(wide.named_parameters())[PROJECTION].data[:, backbone.transformer.config.in_channels :]
    columns.normal_(generator=generator)
    wide.transformer_blocks[0].attn1.to_q.weight.data.mul_(1.5)
    save_control(folder, wide, backbone)
    return folder


def decoding_as_we_do(pipe: CogVideoXImageToVideoPipeline) -> CogVideoXImageToVideoPipeline:
    """Let a stock pipeline decode with oneDNN's convolutions, as ours does; then frames are equal bit by bit."""
    decode = pipe.decode_latents

    def by_onednn(latents: torch.Tensor) -> torch.Tensor:
        with OneDnnConv3d():
            return decode(latents)

    pipe.decode_latents = by_onednn
    return pipe


def random_frames(seed: int, num_frames: int = 9, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Uint8 noise [T, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
