"""Estimate a backbone's GPU memory from configurations alone: nothing is fetched or loaded.

Networks are made on torch's meta device, where tensors have shapes and no memory. Their weights are counted. The passes
of a transfer and of a fit with FlexiAct run on them at the native size while `flexiact.memory.live_bytes` tracks the
live tensors. The estimate assumes fused attention kernels, activation checkpointing in a fit (as
`flexiact.training.frozen` does for large models), AdamW's two moments, and a RefAdapter of the paper's rank that is
attached in transfers.

Not counted are CUDA itself, the work space of kernels and gaps between allocations, which can amount to a few GiB, and
the text encoder's activations (some MiB). Methods that guide the sampler by gradients need more than a transfer here.
"""

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from flexiact.backbone.attention import extra_tokens_attached
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import decode_pixels
from flexiact.backbone.loading import NO_SAVINGS, BackboneError, Savings
from flexiact.backbone.specs import configurations, find_spec, native_settings
from flexiact.embedding import FrequencyAwareEmbedding
from flexiact.memory.live_bytes import FusedAttention, LiveBytes, counted_once
from flexiact.method import preset
from flexiact.refadapter import RefAdapter
from flexiact.sampling import Denoiser
from flexiact.terminal.cli import QUANTISE, one_line
from flexiact.train_refadapter.configs import RefAdapterConfig
from flexiact.training import frozen

META = torch.device("meta")
Job = Literal["transfer", "fit"]
STAGES: dict[Job, dict[str, str]] = {
    "transfer": {"text": "text_encoder", "image": "vae", "denoise": "transformer", "decode": "vae"},
    "fit": {"text": "text_encoder", "clip": "vae", "learn": "transformer"},
}
"""Each job's stages in order, and the network that computes in each."""


@dataclass(frozen=True)
class Estimate:
    """Numbers of bytes, computed, not measured.

    Attributes:
        backbone: Backbone on the meta device.
        text_encoder: Bytes of the text encoder's weights.
        vae: Bytes of the VAE's weights.
        transformer: Bytes of the transformer's and a RefAdapter's weights, by quantisation.
        activations: Peak of live bytes in each stage, without weights.
        largest_layer: Bytes of the transformer's largest layer; a quantised layer is dequantised while it computes.
    """

    backbone: Backbone
    text_encoder: int
    vae: int
    transformer: Mapping[str | None, int]
    activations: Mapping[str, int]
    largest_layer: int

    def peak(self, savings: Savings, jobs: Collection[Job] = tuple(STAGES)) -> int:
        """Peak number of bytes in some jobs."""
        return max(self._at(stage, part, savings) for job in jobs for stage, part in STAGES[job].items())

    def _at(self, stage: str, part: str, savings: Savings) -> int:
        weights = {
            "text_encoder": self.text_encoder,
            "vae": self.vae,
            "transformer": self.transformer[savings.quantise],
        }
        present = set(weights)
        if savings.offload:
            present = {part, "transformer"} if savings.quantise else {part}
        turned_back = self.largest_layer if savings.quantise and part == "transformer" else 0
        return sum(weights[name] for name in present) + self.activations[stage] + turned_back


def outline(backbone: str, savings: Savings = NO_SAVINGS) -> Backbone:
    """A backbone of `find_spec` on the meta device: every shape, no weights; of the savings the dtype matters.

    Raises:
        BackboneError: If the name is unknown, or a folder's configurations are missing or damaged.
    """
    name, spec = find_spec(backbone)
    dtype = savings.dtype_on("cuda", spec.cuda_dtype)
    try:
        networks = _networks(configurations(spec), dtype)
        settings = native_settings(spec, spec.source)
    except BackboneError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"backbone {name}: cannot be looked up ({one_line(error)})") from error
    return Backbone(
        name=name,
        revision=spec.revision or "unknown",
        **networks,
        tokenizer=T5Tokenizer(),  # never used, so a minimal vocabulary is enough
        scheduler=CogVideoXDPMScheduler(),
        **settings,
        device=META,
        dtype=dtype,
        tiled_decode=spec.tiled_decode,
    )


def estimate(backbone: Backbone) -> Estimate:
    """The estimate for a backbone on the meta device."""
    default = RefAdapterConfig()
    adapter = RefAdapter(backbone.transformer, default.rank, default.alpha)
    adapter_bytes = sum(_bytes(parameter) for parameter in adapter.parameters())
    layers = [layer for layer in backbone.transformer.modules() if type(layer) is nn.Linear]
    return Estimate(
        backbone=backbone,
        text_encoder=held(backbone.text_encoder),
        vae=held(backbone.vae),
        transformer={quantise: held(backbone.transformer, quantise) + adapter_bytes for quantise in (None, *QUANTISE)},
        activations={
            "text": 0,
            "image": _encoding(backbone, 1),
            "clip": _encoding(backbone, backbone.num_frames),
            "denoise": _denoising(backbone, adapter),
            "decode": _decoding(backbone),
            "learn": _learning(backbone),
        },
        largest_layer=max(_bytes(layer.weight) for layer in layers),
    )


def held(network: nn.Module, quantise: str | None = None) -> int:
    """Bytes of a network's parameters and buffers.

    With 8 bits every linear layer's weight takes a byte per number and a float32 per row; with 4 bits half a byte per
    number and a float32 per 64 numbers. All other tensors, biases included, keep their dtype.
    """
    total = sum(_bytes(tensor) for tensors in (network.parameters(), network.buffers()) for tensor in tensors)
    if quantise is None:
        return total
    for weight in (layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)):
        count = weight.numel()
        packed = count + 4 * len(weight) if quantise == "8bit" else ceil(count / 2) + 4 * ceil(count / 64)
        total += packed - _bytes(weight)
    return total


def _networks(configs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    with META:
        networks = {
            "transformer": CogVideoXTransformer3DModel.from_config(configs["transformer"]),
            "vae": AutoencoderKLCogVideoX.from_config(configs["vae"]),
            "text_encoder": T5EncoderModel(T5Config.from_dict(configs["text_encoder"])),
        }
    # Not diffusers' own `to`, which warns for every dtype.
    return {part: nn.Module.to(network, dtype).eval().requires_grad_(False) for part, network in networks.items()}


def _encoding(backbone: Backbone, num_frames: int) -> int:
    with LiveBytes(backbone.device) as live, counted_once(backbone.vae.encoder, live), torch.no_grad():
        pixels = _empty(backbone, 3, num_frames, backbone.height, backbone.width)
        backbone.vae.encode(pixels).latent_dist.mode()
    return live.peak


def _decoding(backbone: Backbone) -> int:
    with LiveBytes(backbone.device) as live, counted_once(backbone.vae.decoder, live):
        decode_pixels(backbone, _empty(backbone, *backbone.latent_shape))
    return live.peak


def _denoising(backbone: Backbone, adapter: RefAdapter) -> int:
    rows = 2 if backbone.guidance_scale > 1 else 1
    with (
        adapter.attached(1.0),
        extra_tokens_attached(backbone.transformer),
        LiveBytes(backbone.device) as live,
        FusedAttention(),
        torch.no_grad(),
    ):
        embedding = FrequencyAwareEmbedding.zeros(backbone, preset(backbone).fit.embedding_tokens)
        _predict(backbone, rows, embedding, bias=1.0)
    return live.peak


def _learning(backbone: Backbone) -> int:
    config = preset(backbone).fit
    with (
        frozen(backbone.transformer),
        extra_tokens_attached(backbone.transformer),
        LiveBytes(backbone.device) as live,
        FusedAttention(),
        torch.enable_grad(),
    ):
        embedding = FrequencyAwareEmbedding.zeros(backbone, config.embedding_tokens)
        if backbone.transformer.gradient_checkpointing:
            backbone.transformer.enable_gradient_checkpointing(_computed_twice)
        _predict(backbone, config.batch_size, embedding, bias=0.0).float().square().mean().backward()
    return live.peak + 2 * _bytes(embedding.tokens)


def _computed_twice(block: nn.Module, *args: Any) -> Any:
    """Checkpointing as in diffusers, plus the `FusedAttention` mode, which torch would not enter in backward passes."""
    return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), FusedAttention()))


def _predict(backbone: Backbone, rows: int, embedding: FrequencyAwareEmbedding, bias: float) -> Tensor:
    noisy, condition = (_empty(backbone, *backbone.latent_shape, rows=rows) for _ in range(2))
    text = _empty(backbone, backbone.max_text_tokens, backbone.transformer.config.text_embed_dim, rows=rows)
    timestep = torch.zeros(rows, dtype=torch.int64, device=backbone.device)
    return Denoiser(backbone)(noisy, condition, text, timestep, embedding.attention_kwargs(bias))


def _empty(backbone: Backbone, *shape: int, rows: int = 1) -> Tensor:
    return torch.empty(rows, *shape, device=backbone.device, dtype=backbone.dtype)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
