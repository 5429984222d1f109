"""Recipe of the puppets' RefAdapter: it passes cached untrimmed clips to `flexiact.train_refadapter.trainer`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import Backbone, load_backbone
from flexiact.backbone.codec import clean_latent
from flexiact.puppets.recipes.backbone import draw_batch
from flexiact.puppets.recipes.backbone_run import LINEAR_CODE
from flexiact.puppets.recipes.linear_code import load_linear_code
from flexiact.puppets.recipes.shards import cached_clips
from flexiact.train_refadapter.configs import RefAdapterConfig
from flexiact.train_refadapter.trainer import train_refadapter
from flexiact.training import Batch

CONFIG = RefAdapterConfig(rank=16, alpha=16, steps=1500, learning_rate=5e-4, batch_size=8)


def _batches(backbone: Backbone, clips: dict[str, Tensor], generator: torch.Generator) -> Iterator[Batch]:
    """Endless batches whose condition is another moment of the untrimmed recording."""
    texts: dict[bytes, Tensor] = {}

    def encoded(ids: Tensor) -> Tensor:
        key = ids.cpu().numpy().tobytes()
        if key not in texts:
            with torch.no_grad():
                texts[key] = backbone.text_encoder(ids[None].to(backbone.device)).last_hidden_state
        return texts[key]

    while True:
        clean, condition, ids, _ = draw_batch(clips, "other", CONFIG.batch_size, generator)
        # If the image is dropped, the clip must not reveal its latent either.
        given = condition[:, :1].flatten(1).abs().sum(1).view(-1, 1, 1, 1, 1) > 0
        first = torch.where(given, clean_latent(backbone, condition), clean[:, :1])
        yield Batch(torch.cat([first, clean[:, 1:]], 1), condition, torch.cat([encoded(row) for row in ids]))


def train(
    state: Path, out: Path, steps: int, seed: int, device: torch.device, *, shards: int, workers: int = 1
) -> None:
    """Train the adapter on the shipped backbone and write it to `out` in peft's format; `workers` make the clips."""
    backbone = load_backbone("puppets", str(device))
    stored = PUPPET_WEIGHTS / "backbone" / LINEAR_CODE
    if not stored.exists():
        raise ValueError(f"{stored} does not exist: the shipped backbone is older; write one with backbone --branch-at")
    code = load_linear_code(stored)
    clips = cached_clips(code, backbone.tokenizer, state / "clips", seed, shards, workers, device)
    generator = torch.Generator(device).manual_seed(seed)
    batches = _batches(backbone, clips, generator)
    adapter, _ = train_refadapter(backbone, batches, replace(CONFIG, steps=steps), seed=seed)
    adapter.save(out)
