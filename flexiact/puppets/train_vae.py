"""Recipe of the puppet VAE: a small AutoencoderKLCogVideoX, 4x in space and in time, 20 channels."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from flexiact.puppets.actions import random_action
from flexiact.puppets.linear_code import fit_linear_code
from flexiact.puppets.loop import Plan, train
from flexiact.puppets.scene import random_scene
from flexiact.puppets.world import NUM_FRAMES, SIZE, render_clips
from flexiact.task import Video

LATENT_CHANNELS = 20
KL_WEIGHT = 5e-4
# Of the squared distance to the linear code, in which a latent has unit variance.
LINEAR_WEIGHT = 0.05
_LINEAR_CODE_CLIPS = 256
BATCH = 2
# A pixel that changes by `_FULL_CHANGE` (of the range -1..1) or more between frames weighs 1 + `MOTION_WEIGHT` times as
# much as one that stays: limbs in movement are a small share of a clip and what it is made for.
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
    """Frames as the VAE takes them: float32 [B, 3, T, H, W] in -1..1."""
    frames = torch.from_numpy(np.stack([v.frames for v in videos]))
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
    """Cosine between differences of adjacent frames of two videos [T, H, W, 3]; 0 where one stands still."""
    a, b = (np.diff(frames.astype(np.float64), axis=0).ravel() for frames in (made, real))
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)


def coded(model: AutoencoderKLCogVideoX, videos: list[Video]) -> list[np.ndarray]:
    """Frames uint8 [T, H, W, 3] of each video after coding and decoding (posterior mode)."""
    device = next(model.parameters()).device
    result = []
    for video in videos:
        with torch.no_grad():
            decoded = model.decode(model.encode(to_tensor([video]).to(device)).latent_dist.mode()).sample
        frames = ((decoded[0].cpu().float() + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 3, 0)
        result.append(frames.to(torch.uint8).numpy())
    return result


def psnr(made: np.ndarray, real: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of frames of 8 bit."""
    error = np.mean((made.astype(np.float64) - real.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _reconstruction(
    model: AutoencoderKLCogVideoX, clean: Tensor, generator: torch.Generator
) -> tuple[DiagonalGaussianDistribution, Tensor]:
    """The posterior of clips [B, 3, T, H, W], and the weighted squared error of a sample of it after decoding."""
    # Convolutions in half precision are the slower ones on processors.
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=clean.device.type != "cpu"):
        posterior = model.encode(clean).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(clean.device)
        decoded = model.decode(posterior.mean + posterior.std * noise).sample
    return posterior, (motion_weights(clean) * (decoded.float() - clean).square()).mean()


def train_vae(state: Path, steps: int, seed: int, device: torch.device) -> dict[str, float]:
    """Trains the VAE and saves it to `state`/vae-final with the scaling factor that gives its latents unit variance.

    Returns:
        `vae_figures` on 64 clips of the development split.
    """
    torch.manual_seed(seed)
    model = new_vae().to(device)
    sample = training_videos(torch.Generator().manual_seed(seed), _LINEAR_CODE_CLIPS)
    code = fit_linear_code(to_tensor(sample), LATENT_CHANNELS)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        clean = to_tensor(training_videos(generator, BATCH)).to(device)
        posterior, wrong = _reconstruction(model, clean, generator)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        irregular = (posterior.mean.float() - code.encode(clean)).square().mean()
        return wrong + KL_WEIGHT * kl + LINEAR_WEIGHT * irregular

    train(model, loss_of, Plan(steps=steps, seed=seed, learning_rate=3e-3), state / "vae")
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        latents = model.encode(to_tensor(training_videos(generator, 64)).to(device)).latent_dist.mode()
    model.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    model.save_pretrained(state / "vae-final")
    return vae_figures(model, training_videos(generator, 64, "dev"))


def train_decoder(state: Path, steps: int, seed: int, device: torch.device) -> dict[str, float]:
    """Trains the decoder of `state`/vae-final on, in place, while the encoder and so all latents stay as they are.

    Returns:
        `vae_figures` on 64 clips of the development split.
    """
    model = AutoencoderKLCogVideoX.from_pretrained(state / "vae-final").to(device)
    model.encoder.requires_grad_(False)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        return _reconstruction(model, to_tensor(training_videos(generator, BATCH)).to(device), generator)[1]

    train(model, loss_of, Plan(steps=steps, seed=seed + 1, learning_rate=2e-3), state / "vae-decoder")
    model.save_pretrained(state / "vae-final")
    return vae_figures(model, training_videos(torch.Generator().manual_seed(seed + 2), 64, "dev"))


def vae_figures(model: AutoencoderKLCogVideoX, videos: list[Video]) -> dict[str, float]:
    """Mean and 5th percentile of the PSNR in dB, and the mean motion cosine, of coded videos."""
    pairs = [(made, video.frames) for made, video in zip(coded(model, videos), videos, strict=True)]
    values = [psnr(made, real) for made, real in pairs]
    moving = [pair for pair in pairs if np.ptp(pair[1].astype(np.int16), axis=0).any()]
    return {
        "psnr_db": float(np.mean(values)),
        "psnr_p5_db": float(np.percentile(values, 5)),
        "motion_cosine": float(np.mean([motion_cosine(made, real) for made, real in moving])),
    }
