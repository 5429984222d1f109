"""Recipe of the puppet VAE: a small AutoencoderKLCogVideoX, 4x in space and in time, 20 channels.

Its halves are trained separately, possibly at the same time: the encoder to output the linear code, the decoder to draw
clips from it.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file
from torch import Tensor

from flexiact.media.digests import folder_digest
from flexiact.media.files import replacing
from flexiact.puppets.engine.loop import Plan, train
from flexiact.puppets.recipes.linear_code import LinearCode, fit_linear_code, load_linear_code, save_linear_code
from flexiact.puppets.world.actions import random_action
from flexiact.puppets.world.clip import NUM_FRAMES, SIZE, render_clips
from flexiact.puppets.world.scene import random_scene
from flexiact.task import Video

LATENT_CHANNELS = 20
HALVES = ("encoder", "decoder")
_LINEAR_CODE_CLIPS = 512
_FIGURE_CLIPS = 64  # of the development split
# Standard deviation of the posterior, in units of a latent's; small, so that the code is nearly certain.
POSTERIOR_STD = 0.05
_POSTERIOR_WEIGHT = 1e-3  # weight of the squared error of its logarithm
# Strongest noise on the latents that the decoder learns from: samplers leave some, and the encoder makes errors.
DECODER_NOISE = 0.15
BATCH = 2
# A pixel that changes by `_FULL_CHANGE` (of the range -1..1) or more between frames weighs 1 + `MOTION_WEIGHT` times as
# much as a still one: moving limbs are a small share of a clip, but its purpose.
MOTION_WEIGHT = 3.0
_FULL_CHANGE = 0.2


def new_vae() -> AutoencoderKLCogVideoX:
    """The untrained model, initialised from torch's global generator."""
    channels = (16, 32, 64)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=channels,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=8,
        temporal_compression_ratio=4,
        sample_height=SIZE,
        sample_width=SIZE,
        scaling_factor=1.0,
    )


def to_tensor(videos: list[Video]) -> Tensor:
    """Frames of videos as input of the VAE: float32 [B, 3, T, H, W] in -1..1."""
    return as_pixels(torch.from_numpy(np.stack([v.frames for v in videos])))


def as_pixels(frames: Tensor) -> Tensor:
    """Convert frames uint8 [B, T, H, W, 3] to the VAE's input, see `to_tensor`, on their device."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def training_videos(generator: torch.Generator, count: int, split: str = "train") -> list[Video]:
    """Random clips of a split."""
    scenes = [random_scene(generator, split) for _ in range(count)]
    actions = [random_action(generator) for _ in range(count)]
    return [clip.video for clip in render_clips(scenes, actions, NUM_FRAMES, SIZE)]


def motion_weights(clips: Tensor) -> Tensor:
    """Weight [B, 1, T, H, W] of every pixel of clips [B, 3, T, H, W], with mean 1 over each clip."""
    change = clips.diff(dim=2).abs().amax(1, keepdim=True)
    nothing = torch.zeros_like(change[:, :, :1])
    nearby = torch.maximum(torch.cat([nothing, change], 2), torch.cat([change, nothing], 2))
    weights = 1 + MOTION_WEIGHT * (nearby / _FULL_CHANGE).clamp(max=1)
    return weights / weights.mean((1, 2, 3, 4), keepdim=True)


def motion_cosine(made: np.ndarray, real: np.ndarray) -> float:
    """Cosine between differences of adjacent frames of two videos [T, H, W, 3]; 0 if one stands still."""
    a, b = (np.diff(frames.astype(np.float64), axis=0).ravel() for frames in (made, real))
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)


Encoder = Callable[[Tensor], Tensor]
"""Pixels [B, 3, T, H, W] to latents [B, C, F, h, w]."""


def coded(model: AutoencoderKLCogVideoX, encode: Encoder, videos: list[Video]) -> list[np.ndarray]:
    """Frames uint8 [T, H, W, 3] of each video after an encoder and the model's decoder."""
    device = next(model.parameters()).device
    result = []
    for video in videos:
        with torch.no_grad():
            decoded = model.decode(encode(to_tensor([video]).to(device))).sample
        frames = ((decoded[0].cpu().float() + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 3, 0)
        result.append(frames.to(torch.uint8).numpy())
    return result


def psnr(made: np.ndarray, real: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of frames of 8 bit."""
    error = float(np.mean((made.astype(np.float64) - real.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))


def world_code(state: Path, seed: int) -> LinearCode:
    """The linear code of training clips: fitted once, then read from `state`."""
    path = state / "linear_code.safetensors"
    if not path.exists():
        clips = to_tensor(training_videos(torch.Generator().manual_seed(seed), _LINEAR_CODE_CLIPS))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_linear_code(fit_linear_code(clips, LATENT_CHANNELS), path)
    return load_linear_code(path)


def train_encoder(
    state: Path, steps: int, seed: int, device: torch.device, from_weights: Path | None = None
) -> dict[str, float]:
    """Train the encoder to output the linear code and save it to `state`/vae-encoder.safetensors.

    It begins with the VAE in the folder `from_weights`, or with random weights.

    Returns:
        Share of the code's variance that is missed on clips of the development split.
    """
    torch.manual_seed(seed)
    model, code = _first_vae(from_weights).to(device), world_code(state, seed)
    model.decoder.requires_grad_(False)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        clean = to_tensor(training_videos(generator, BATCH)).to(device)
        posterior = model.encode(clean).latent_dist
        sure = (posterior.logvar - 2 * math.log(POSTERIOR_STD)).square().mean()
        return (posterior.mean - code.encode(clean)).square().mean() + _POSTERIOR_WEIGHT * sure

    plan = Plan(steps=steps, seed=seed, learning_rate=2e-3)
    train(model, loss_of, plan, state / "vae-encoder", about=_origin(from_weights))
    _save_half(model, "encoder", state)
    clips = to_tensor(training_videos(torch.Generator().manual_seed(seed + 1), _FIGURE_CLIPS, "dev")).to(device)
    with torch.no_grad():
        right = code.encode(clips)
        missed = (model.encode(clips).latent_dist.mode() - right).square().mean() / right.var()
    return {"missed_share": float(missed)}


def train_decoder(
    state: Path, steps: int, seed: int, device: torch.device, from_weights: Path | None = None
) -> dict[str, float]:
    """Train the decoder to draw clips from their linear code and save it to `state`/vae-decoder.safetensors.

    It begins with the VAE in the folder `from_weights`, or with random weights.

    Returns:
        `vae_figures` of clips of the development split that are drawn from the exact code.
    """
    torch.manual_seed(seed)
    model, code = _first_vae(from_weights).to(device), world_code(state, seed)
    model.encoder.requires_grad_(False)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        clean = to_tensor(training_videos(generator, BATCH)).to(device)
        latents = code.encode(clean)
        strength = DECODER_NOISE * torch.rand(len(clean), 1, 1, 1, 1, generator=generator)
        noise = (strength * torch.randn(latents.shape, generator=generator)).to(device)
        wrong = model.decode(latents + noise).sample - clean
        return (motion_weights(clean) * wrong.square()).mean()

    plan = Plan(steps=steps, seed=seed, learning_rate=3e-3)
    train(model, loss_of, plan, state / "vae-decoder", about=_origin(from_weights))
    _save_half(model, "decoder", state)
    videos = training_videos(torch.Generator().manual_seed(seed + 1), _FIGURE_CLIPS, "dev")
    return vae_figures(model, code.encode, videos)


def _first_vae(from_weights: Path | None) -> AutoencoderKLCogVideoX:
    model = new_vae()
    if from_weights:
        stored = AutoencoderKLCogVideoX.from_pretrained(from_weights / "vae").float()
        try:
            model.load_state_dict(stored.state_dict())
        except RuntimeError as error:
            raise ValueError(f"--from-weights: {from_weights} holds another VAE; `carry_over` changes it") from error
    return model


def _origin(from_weights: Path | None) -> dict[str, str]:
    return {"origin": f"weights {folder_digest(from_weights / 'vae')[:8]}"} if from_weights else {}


def assembled(state: Path) -> AutoencoderKLCogVideoX:
    """Assemble the VAE from both trained halves in `state`.

    Raises:
        ValueError: If a half has not been trained yet.
    """
    whole = new_vae()
    for half in HALVES:
        path = state / f"vae-{half}.safetensors"
        if not path.exists():
            raise ValueError(f"{path} does not exist; train vae_{half} first")
        getattr(whole, half).load_state_dict(load_file(path))
    return whole.eval()


def _save_half(model: AutoencoderKLCogVideoX, half: str, state: Path) -> None:
    with replacing(state / f"vae-{half}.safetensors") as path:
        save_file({n: t.detach().cpu().contiguous() for n, t in getattr(model, half).state_dict().items()}, path)


def vae_figures(model: AutoencoderKLCogVideoX, encode: Encoder, videos: list[Video]) -> dict[str, float]:
    """Mean and 5th percentile of the PSNR in dB, and the mean motion cosine, of `coded` videos."""
    pairs = [(made, video.frames) for made, video in zip(coded(model, encode, videos), videos, strict=True)]
    values = [psnr(made, real) for made, real in pairs]
    moving = [pair for pair in pairs if np.ptp(pair[1].astype(np.int16), axis=0).any()]
    return {
        "psnr_db": float(np.mean(values)),
        "psnr_p5_db": float(np.percentile(values, 5)),
        "motion_cosine": float(np.mean([motion_cosine(made, real) for made, real in moving])),
    }
