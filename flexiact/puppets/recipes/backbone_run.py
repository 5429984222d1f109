"""Training of the puppet backbone: one long trunk at a constant learning rate, and branches that finish it.

A branch starts from a kept checkpoint of the trunk and lowers the rate to zero over a quarter more samples. Its weights
are ready for use while the trunk continues. So the length of the training need not be fixed beforehand.
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor
from transformers import T5EncoderModel

from flexiact.media.files import replacing
from flexiact.puppets.engine import processes
from flexiact.puppets.engine.checkpoint import Progress, put_weights, read_header, weights_of
from flexiact.puppets.engine.loop import CHECKPOINT, Pace, Plan, kept_name, look_every, put_kept, step_generator, train
from flexiact.puppets.engine.losses import LossTerms, Noising, velocity_loss
from flexiact.puppets.recipes.backbone import (
    EARLY_HIGH_NOISE_SHARE,
    LATE_HIGH_NOISE_SHARE,
    TextToVelocity,
    draw_batch,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    new_transformer,
    rotary_positions,
    save_backbone,
)
from flexiact.puppets.recipes.linear_code import save_linear_code
from flexiact.puppets.recipes.pointing import pointing_loss, read_pointing
from flexiact.puppets.recipes.shards import SHARD_CLIPS, cached_clips, recipe_mark
from flexiact.puppets.recipes.vae import assembled, world_code
from flexiact.puppets.recipes.words import read_words

MARKS = (62_500, 125_000, 250_000, 500_000, 1_000_000, 1_500_000)
"""Numbers of samples after which the trunk's checkpoint is kept for a branch; its last one is kept too."""
LINEAR_CODE = "linear_code.safetensors"
"""File of the linear code in a finished folder, needed to train adapters of the backbone."""
AVERAGES = (0.05, 0.10)
LEARNING_RATE = 2e-3
BRANCH_SHARE = 0.25
"""Length of a branch as a share of the trunk's samples."""
TRUNK_SHARE = 0.76
"""The trunk's share of the minutes of `train_within`: its branch takes `BRANCH_SHARE` of its time, loading the rest."""
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
        more = max(1, round(BRANCH_SHARE * steps))
        return replace(self.trunk, steps=steps + more, decay=more / (steps + more), kept=())


def train_trunk(run: BackboneRun) -> str:
    """Train or resume the trunk on linear codes of clips; return a line on its progress."""
    folder = run.state / "backbone"
    train_on_clips(run, run.trunk, folder, _train_process)
    done = read_header(folder / CHECKPOINT).step * run.batch
    kept = sorted(int(path.stem.removeprefix("step-")) * run.batch for path in folder.glob(kept_name("*")))
    return f"the trunk has seen {done} samples; --branch-at can finish it from: {kept}"


def train_branch(run: BackboneRun, samples: int, out: Path) -> str:
    """Finish the trunk's checkpoint after `samples` samples and write the whole pipeline folder to `out`.

    Raises:
        ValueError: If no such checkpoint is kept, or the VAE is missing.
    """
    assembled(run.state)  # refuses a branch that could not be written
    trunk, folder = run.state / "backbone", run.state / f"backbone-branch-{samples}"
    plan, kept = run.branch(samples), trunk / kept_name(samples // run.batch)
    if not (folder / CHECKPOINT).exists():
        if not kept.exists():
            raise ValueError(f"--branch-at: {kept} does not exist; train the trunk (batch {run.batch}) up to it first")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / CHECKPOINT) as partial:
            shutil.copyfile(kept, partial)
    train_on_clips(run, plan, folder, _train_process, out)
    done = read_header(folder / CHECKPOINT).step
    if done < plan.steps:
        return f"the branch stands at step {done} of {plan.steps}; --branch-at {samples} goes on"
    return f"written to {out}"


def train_within(run: BackboneRun, out: Path) -> str:
    """Train the trunk and finish it within `run.minutes`; write the weights so far to `out` every minute.

    Raises:
        ValueError: If no minutes are given, or the VAE is missing.
    """
    begun, minutes, folder = time.monotonic(), run.minutes, run.state / "backbone"
    if minutes is None:
        raise ValueError("--finish: say within how many --minutes")
    assembled(run.state)  # refuses a run that could not be written
    run = replace(run, snapshots=out)
    train_on_clips(replace(run, minutes=TRUNK_SHARE * minutes), run.trunk, folder, _train_process)
    step = read_header(folder / CHECKPOINT).step
    with replacing(folder / kept_name(step)) as partial:
        shutil.copyfile(folder / CHECKPOINT, partial)
    left = minutes - (time.monotonic() - begun) / 60
    return train_branch(replace(run, minutes=left), step * run.batch, out)


def train_on_clips(
    run: BackboneRun, plan: Plan, folder: Path, work: Callable[..., None], out: Path | None = None
) -> None:
    """Make the clips and train or resume in the run's processes.

    Args:
        run: Settings.
        plan: Steps and rate.
        folder: Folder of checkpoint and curve.
        work: Function of a module that each process calls with run, plan, folder, clips, facts about the run, and out.
        out: Path to what is written at the end; None writes nothing.

    Raises:
        ValueError: If the folder was begun with another recipe.
    """
    begun, code = time.monotonic(), world_code(run.state, run.seed)
    words = f"taught {run.taught}" if run.taught else "new words"
    recipe = (
        f"batch {run.batch}, movement {run.terms.movement}, contrast {run.terms.contrast}, "
        f"pointing {run.terms.pointing}, channels {run.terms.channels}, {words}, "
        f"clips {recipe_mark(code, run.seed)}"
    )
    about = read_header(folder / CHECKPOINT).about if (folder / CHECKPOINT).exists() else {}
    if about and about["recipe"] != recipe:
        raise ValueError(f"--state: {folder} was begun with {about['recipe']}, not {recipe}; name another folder")
    device = torch.device(run.device)
    clips = cached_clips(code, new_tokenizer(), run.state / "clips", run.seed, run.shards, run.processes, device)
    if not about:
        origin = f"weights {_digest(run.from_weights)}" if run.from_weights else "seed"
        about = {"origin": origin, "recipe": recipe, "precision": faster_precision(run, clips)}
    for name, value in (("shards", run.shards), ("high_noise", EARLY_HIGH_NOISE_SHARE)):
        about[name] = _so_far(about.get(name), value, folder / CHECKPOINT)
    if run.minutes is not None:
        run = replace(run, minutes=run.minutes - (time.monotonic() - begun) / 60)
    processes.run(run.trainers, work, run, plan, folder, clips, about, out)


def _so_far(before: str | None, value: float, checkpoint: Path) -> str:
    """Record of a setting's value from each step on: a long run may get another one when it resumes."""
    if before is None:
        return f"{value} from step 0"
    last = before.split(", ")[-1].split()[0]
    return before if last == str(value) else f"{before}, {value} from step {read_header(checkpoint).step}"


def _train_process(
    run: BackboneRun, plan: Plan, folder: Path, clips: dict[str, Tensor], about: dict[str, str], out: Path | None
) -> None:
    model = new_model(run, clips)
    if run.compiled:
        compile_parts(model, run.device)
    noising = noising_of(run, model, clips, PRECISIONS[about["precision"]])

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        share = EARLY_HIGH_NOISE_SHARE if step < plan.decay_from else LATE_HIGH_NOISE_SHARE
        terms = run.terms.scaled(plan.rate(step) / plan.learning_rate)
        batch = draw_batch(clips, "first", run.batch, generator)
        loss = velocity_loss(model, batch, noising, generator, share, terms)
        if terms.pointing:
            assert batch.points is not None  # `cached_clips` gives them
            loss = loss + terms.pointing * pointing_loss(model.pointer, batch.points)
        return loss

    def publish(progress: Progress) -> None:
        if run.snapshots:
            averaged = untrained(*clips["latents"].shape[2:4])
            put_kept(averaged, progress.averages[run.average])
            _write(run, averaged, run.snapshots)

    every = Pace().checkpoint_minutes if run.snapshots is None else 1.0
    pace = Pace(every, run.minutes, look_every(torch.device(run.device)), publish)
    finished = train(model, loss_of, plan, folder, pace, about)
    if finished and out is not None and processes.rank() == 0:
        _write(run, model, out)


def _write(run: BackboneRun, model: TextToVelocity, out: Path) -> None:
    save_backbone(out, assembled(run.state), model, new_tokenizer())
    save_linear_code(world_code(run.state, run.seed), out / LINEAR_CODE)


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


def _digest(folder: Path) -> str:
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
