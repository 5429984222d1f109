"""Training of the puppet backbone: one long trunk at a constant learning rate, and branches that finish it.

A branch starts from a kept checkpoint of the trunk and lowers the rate to zero over some more samples. Its weights are
ready for use while the trunk continues. So the length of the training need not be fixed beforehand.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flexiact.media.files import replacing
from flexiact.puppets.engine import processes
from flexiact.puppets.engine.checkpoint import Progress, read_header
from flexiact.puppets.engine.loop import CHECKPOINT, Pace, Plan, kept_name, look_every, put_kept, train
from flexiact.puppets.engine.losses import velocity_loss
from flexiact.puppets.recipes.backbone.model import (
    EARLY_HIGH_NOISE_SHARE,
    LATE_HIGH_NOISE_SHARE,
    TextToVelocity,
    draw_batch,
    new_tokenizer,
    save_backbone,
)
from flexiact.puppets.recipes.backbone.pointer import pointing_loss
from flexiact.puppets.recipes.backbone.start import (
    PRECISIONS,
    BackboneRun,
    compile_parts,
    faster_precision,
    new_model,
    noising_of,
    untrained,
    weights_digest,
)
from flexiact.puppets.recipes.clip_shards import cached_clips, recipe_mark
from flexiact.puppets.recipes.linear_code import save_linear_code
from flexiact.puppets.recipes.vae import assembled, world_code

LINEAR_CODE = "linear_code.safetensors"
"""File of the linear code in a finished folder, needed to train adapters of the backbone."""
LOADING_SHARE = 0.05
"""Share of the minutes of `train_within` that loading and compiling take."""


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
    trunk_minutes = (1 - LOADING_SHARE) / (1 + run.branch_share) * minutes
    train_on_clips(replace(run, minutes=trunk_minutes), run.trunk, folder, _train_process)
    step = read_header(folder / CHECKPOINT).step
    with replacing(folder / kept_name(step)) as partial:
        shutil.copyfile(folder / CHECKPOINT, partial)
    left = minutes - (time.monotonic() - begun) / 60
    return train_branch(replace(run, minutes=left), step * run.batch, out)


def train_on_clips(
    run: BackboneRun, plan: Plan, folder: Path, work: Callable[..., None], out: Path | None = None
) -> None:
    """Make the clips and train or resume in the run's processes.

    Each calls `work`, a function of a module, with run, plan, folder (of checkpoint and curve), clips, facts about the
    run, and `out`, the path to what is written at the end; None: nothing is.

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
        origin = f"weights {weights_digest(run.from_weights)}" if run.from_weights else "seed"
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
        early = plan.rate(step) / plan.learning_rate
        share = LATE_HIGH_NOISE_SHARE + early * (EARLY_HIGH_NOISE_SHARE - LATE_HIGH_NOISE_SHARE)
        terms = run.terms.scaled(early)
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
