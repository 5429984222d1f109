"""Recipe of the puppets' RefAdapter: untrimmed clips of the training world, drawn for the users' own trainer.

A state folder keeps checkpoints, so a stopped training resumes. Ablations train with another condition or rank, or with
the identity-consistency loss.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from flexiact import PUPPET_WEIGHTS
from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import clean_latent
from flexiact.batches import Batch
from flexiact.media.digests import json_digest
from flexiact.puppets.engine import processes
from flexiact.puppets.recipes.backbone.model import draw_batch
from flexiact.puppets.recipes.backbone.trunk import LINEAR_CODE
from flexiact.puppets.recipes.clip_shards import cached_clips, recipe_mark
from flexiact.puppets.recipes.linear_code import load_linear_code
from flexiact.puppets.recipes.shipped import shipped_backbone
from flexiact.train_refadapter.configs import RefAdapterConfig
from flexiact.train_refadapter.trainer import LongRun, train_long

CONFIG = RefAdapterConfig(rank=16, alpha=16, learning_rate=5e-4, batch_size=8)
Condition = Literal["other", "first"]


@dataclass(frozen=True)
class RefAdapterRun:
    """Settings of a training; the defaults are the paper's way.

    Attributes:
        state: Folder of clips and checkpoints.
        steps: Number of steps.
        seed: Seed of clips, initial weights and draws.
        shards: Number of shards of 256 clips.
        processes: Number of one-thread processes that make missing shards and, on a CPU, train. They share a batch, but
            draw their own clips, so that another number gives other weights and has a state of its own.
        condition: Image that the model sees: "other", another moment of the untrimmed recording, or "first", the clip's
            own first frame.
        replaced: True to replace the first clean latent by that of the image.
        rank: Rank of every layer; its alpha is the same.
        identity_weight: Weight of the identity-consistency loss.
        compiled: True to fuse the model.
    """

    state: Path
    steps: int
    seed: int
    shards: int
    processes: int = 1
    condition: Condition = "other"
    replaced: bool = True
    rank: int = CONFIG.rank
    identity_weight: float = 0.0
    compiled: bool = False

    @property
    def name(self) -> str:
        """Name of the variant, for its state folder and its card."""
        identity = f"-identity{self.identity_weight:g}" if self.identity_weight else ""
        return f"{self.condition}-{'replaced' if self.replaced else 'kept'}-rank{self.rank}{identity}"

    @property
    def options(self) -> str:
        """Options of the command that made it; those of the paper's way are left out."""
        said = f"--steps {self.steps} --shards {self.shards} --seed {self.seed}"
        said += f" --condition {self.condition}" if self.condition != "other" else ""
        said += "" if self.replaced else " --keep-first"
        said += f" --rank {self.rank}" if self.rank != CONFIG.rank else ""
        said += f" --identity-weight {self.identity_weight:g}" if self.identity_weight else ""
        return said + (f" --processes {self.processes}" if self.processes > 1 else "") + " --compile" * self.compiled


@dataclass(frozen=True, eq=False)
class UntrimmedClips:
    """Cached clips of the training world, as the trainer draws them.

    Attributes:
        clips: Clips of `cached_clips`, on the CPU.
        run: Settings, of which condition and replacement matter here.
        mark: Name of all that the clips depend on.
    """

    clips: dict[str, Tensor]
    run: RefAdapterRun
    mark: str
    _texts: dict[bytes, Tensor] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Digest of everything that the batches depend on."""
        return json_digest([self.mark, self.run.name, len(self.clips["latents"])])

    def draw(self, backbone: Backbone, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw random clips with their conditions.

        If the image is dropped, the clip's first latent stays: it must not reveal the image either.
        """
        clean, condition, ids, _ = draw_batch(self.clips, self.run.condition, batch_size, generator)
        clean, condition = clean.to(backbone.device), condition.to(backbone.device)
        if self.run.replaced:
            given = condition[:, :1].flatten(1).abs().sum(1).view(-1, 1, 1, 1, 1) > 0
            first = torch.where(given, clean_latent(backbone, condition), clean[:, :1])
            clean = torch.cat([first, clean[:, 1:]], 1)
        return Batch(clean, condition, torch.cat([self._encoded(backbone, row) for row in ids]))

    def _encoded(self, backbone: Backbone, ids: Tensor) -> Tensor:
        key = ids.numpy().tobytes()
        if key not in self._texts:
            with torch.no_grad():
                self._texts[key] = backbone.text_encoder(ids[None].to(backbone.device)).last_hidden_state
        return self._texts[key]


def train(run: RefAdapterRun, out: Path, device: torch.device) -> Path:
    """Train the adapter on the shipped backbone and write it to `out` in peft's format, with a card.

    Raises:
        ValueError: If a setting is out of range, the shipped backbone has no linear code, or the state is of another
            run.
    """
    together = run.processes if device.type == "cpu" else 1
    config = replace(CONFIG, steps=run.steps, rank=run.rank, alpha=run.rank, identity_weight=run.identity_weight)
    config = replace(config, batch_size=config.batch_size // together)
    backbone = shipped_backbone(str(device))
    stored = PUPPET_WEIGHTS / "backbone" / LINEAR_CODE
    if not stored.exists():
        raise ValueError(f"{stored} does not exist: the shipped backbone is older; write one with backbone --branch-at")
    code, cpu = load_linear_code(stored), torch.device("cpu")
    clips = cached_clips(code, backbone.tokenizer, run.state / "clips", run.seed, run.shards, run.processes, cpu)
    drawn = UntrimmedClips(clips, run, recipe_mark(code, run.seed))
    processes.run(together, _train_process, run, config, drawn, out, str(device))
    return out


def _train_process(run: RefAdapterRun, config: RefAdapterConfig, drawn: UntrimmedClips, out: Path, device: str) -> None:
    backbone = shipped_backbone(device)
    if run.compiled:
        backbone.transformer.compile(dynamic=False)
    together = processes.count()
    state = run.state / "refadapter" / f"{backbone.revision[:12]}-{run.name}{f'-by{together}' * (together > 1)}"
    long_run = LongRun(config, run.seed, state, checkpoint_every=200)
    adapter, losses = train_long(backbone, drawn, long_run, Accelerator(cpu=backbone.device.type == "cpu"))
    if processes.rank() == 0:
        adapter.save(out)
        (out / "README.md").write_text(_card(run, backbone, len(drawn.clips["latents"]), losses))


def _card(run: RefAdapterRun, backbone: Backbone, clips: int, losses: list[float]) -> str:
    return CARD.format(
        rank=run.rank,
        condition={"other": "another moment of the recording", "first": "the clip's own first frame"}[run.condition],
        replaced="is replaced by that image's" if run.replaced else "stays",
        identity=f", and an identity loss of weight {run.identity_weight:g} is added" if run.identity_weight else "",
        revision=backbone.revision[:12],
        steps=run.steps,
        batch=CONFIG.batch_size,
        samples=run.steps * CONFIG.batch_size,
        clips=clips,
        options=run.options,
        loss=sum(losses[-100:]) / len(losses[-100:]),
    )


CARD = """# RefAdapter of the puppet backbone

A peft LoRA (rank {rank}, alpha {rank}) on to_q, to_k, to_v and to_out.0 of every block, in peft's file format, for
revision {revision} of the backbone beside it. It was trained on untrimmed clips of the training world. The condition is
{condition}; the first clean latent {replaced}{identity}.

    python -m flexiact.puppets.train refadapter {options}

{steps} steps of {batch} clips at a constant rate, {samples} samples of {clips} clips. The mean loss of the last 100
steps is {loss:.4f}. Another revision of the backbone needs another adapter.
"""
