"""Beginning of a training of the puppet backbone: settings, first weights, noising and precision."""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel

from flexiact.puppets.engine.checkpoint import put_weights, weights_of
from flexiact.puppets.engine.loop import Plan, step_generator
from flexiact.puppets.engine.losses import LossTerms, Noising, velocity_loss
from flexiact.puppets.recipes.backbone.model import (
    TextToVelocity,
    draw_batch,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_transformer,
    rotary_positions,
)
from flexiact.puppets.recipes.backbone.pointer import read_pointing
from flexiact.puppets.recipes.backbone.words import read_words
from flexiact.puppets.recipes.clip_shards import SHARD_CLIPS

MARKS = (62_500, 125_000, 250_000, 500_000, 1_000_000, 1_500_000)
"""Numbers of samples after which the trunk's checkpoint is kept for a branch; its last one is kept too."""
AVERAGES = (0.05, 0.10)
LEARNING_RATE = 2e-3
Taught = Literal["words", "pointing"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class BackboneRun:
    """Settings of a training run.

    Attributes:
        state: Folder of clips and checkpoints; a branch also reads the halves of the VAE there.
        seed: Seed of clips, first weights and steps.
        steps: Number of steps of the trunk.
        device: "cpu" or "cuda". A GPU holds the clips and draws from them itself, other ones than a CPU draws.
        batch: Number of clips per step, over all processes.
        shards: Number of shards of 256 clips.
        processes: Number of one-thread processes that make clips and, on a CPU, train; 1 works in this process.
        minutes: Minutes until the run is stored and stopped, clips included; None for no limit.
        from_weights: Folder of finished weights to start from; None starts from random weights.
        average: Relative width, one of `AVERAGES`, of the average that a branch writes.
        terms: Weights of the loss terms; in branches they fall to 0 with the rate.
        compiled: True to fuse the model with torch.compile: a third faster on a CPU, but it needs a C++ compiler.
        branch_share: Length of a branch as a share of the trunk's samples.
        taught: Recipe whose result in the state folder replaces what it has of the first weights: "words", the text
            encoder, or "pointing", that and the first half of the transformer; None for neither.
        snapshots: Folder that gets the averaged weights every minute; None for none.
    """

    state: Path
    seed: int
    steps: int
    device: str = "cpu"
    batch: int = 16
    shards: int = 64
    processes: int = 1
    minutes: float | None = None
    from_weights: Path | None = None
    average: float = AVERAGES[0]
    terms: LossTerms = LossTerms()
    compiled: bool = False
    branch_share: float = 0.25
    taught: Taught | None = None
    snapshots: Path | None = None

    @property
    def trainers(self) -> int:
        """Number of processes that share a batch."""
        return self.processes if self.device == "cpu" else 1

    @property
    def trunk(self) -> Plan:
        """The trunk's plan."""
        marks = {mark // self.batch for mark in MARKS} | {self.steps}
        averages = tuple(sorted(AVERAGES, key=lambda width: width != self.average))
        kept = tuple(sorted(marks))
        return Plan(self.steps, self.seed, LEARNING_RATE, decay=0.0, averages=averages, kept=kept, draws=self.device)

    def branch(self, samples: int) -> Plan:
        """The plan of the branch that leaves the trunk after `samples` samples."""
        steps = samples // self.batch
        more = max(1, round(self.branch_share * steps))
        return replace(self.trunk, steps=steps + more, decay=more / (steps + more), kept=())


def compile_parts(model: TextToVelocity, device: str) -> None:
    """Fuse the model, for one size of batch."""
    # On a GPU, compile block by block: the blocks are alike and compile once, in seconds instead of a minute for the
    # whole model. The rest is small.
    parts = (model.transformer, model.text_encoder) if device == "cpu" else model.transformer.transformer_blocks
    for part in parts:
        part.compile(dynamic=False)


def untrained(channels: int, size: int) -> TextToVelocity:
    """Model for latents of `channels` channels and size x size, with random weights from torch's global generator."""
    return TextToVelocity(new_text_encoder(len(new_tokenizer())), new_transformer(channels, size))


def new_model(run: BackboneRun, clips: dict[str, Tensor]) -> TextToVelocity:
    """Model before the first step: random weights from the run's seed, or those of `from_weights`.

    What was taught takes the place of either.

    Raises:
        ValueError: If nothing was taught, or `from_weights` is unfinished or of another model or vocabulary.
    """
    torch.manual_seed(run.seed)
    model = untrained(*clips["latents"].shape[2:4])
    if run.from_weights:
        _weights_files(run.from_weights)
        stored = (
            (model.transformer, CogVideoXTransformer3DModel.from_pretrained(run.from_weights / "transformer")),
            (model.text_encoder, T5EncoderModel.from_pretrained(run.from_weights / "text_encoder")),
        )
        for own, other in stored:
            try:
                own.load_state_dict(other.float().state_dict())
            except RuntimeError as error:
                raise ValueError(f"--from-weights: {run.from_weights} holds another model or vocabulary") from error
    if run.taught == "words":
        put_weights(model.text_encoder, read_words(run.state))
    if run.taught == "pointing":
        put_weights(model, weights_of(model) | read_pointing(run.state))
    return model.to(run.device)


def noising_of(run: BackboneRun, model: TextToVelocity, clips: dict[str, Tensor], precision: torch.dtype) -> Noising:
    """Settings of the noising for these clips."""
    alphas = new_scheduler().alphas_cumprod.float().to(run.device)
    variance = clips["latents"][:SHARD_CLIPS].to(run.device).float().var((0, 1, 3, 4))
    rotary = rotary_positions(model.transformer, clips["latents"][:1].to(run.device))
    return Noising(alphas, rotary, precision, variance)


def _weights_files(folder: Path) -> list[Path]:
    files = [folder / "transformer/diffusion_pytorch_model.safetensors", folder / "text_encoder/model.safetensors"]
    for path in files:
        if not path.exists():
            raise ValueError(f"--from-weights: {path} does not exist; name a folder that a branch has written")
    return files


def weights_digest(folder: Path) -> str:
    """Digest of transformer and text encoder, 8 hex digits."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in _weights_files(folder))).hexdigest()[:8]


def faster_precision(run: BackboneRun, clips: dict[str, Tensor]) -> str:
    """Name of the faster one of `PRECISIONS` on this device, measured on a process's share of a batch and printed.

    CPUs without bfloat16 instructions emulate it, and some CPUs with them gain nothing for small products. GPUs with
    them gain much and are not measured.
    """
    if run.device != "cpu":
        return "bfloat16"
    threads, model = torch.get_num_threads(), new_model(run, clips)
    if run.processes > 1:
        torch.set_num_threads(1)
    seconds = dict.fromkeys(PRECISIONS, float("inf"))
    for step in range(4):  # in turns, so that other work on the machine slows both; the first is a warm-up
        for name, precision in PRECISIONS.items():
            generator, begun = step_generator(run.seed, step), time.monotonic()
            batch = draw_batch(clips, "first", max(1, run.batch // run.processes), generator)
            # `.item()` waits for a GPU.
            loss = velocity_loss(model, batch, noising_of(run, model, clips, precision), generator, 0.5)
            loss.backward()
            torch.stack([p.grad.sum() for p in model.parameters() if p.grad is not None]).sum().item()
            if step:
                seconds[name] = min(seconds[name], time.monotonic() - begun)
    torch.set_num_threads(threads)
    best = min(seconds, key=lambda name: seconds[name])
    print("precision: " + ", ".join(f"{n} {1000 * s:.0f} ms" for n, s in seconds.items()) + f" a step; {best} it is")
    return best
