"""A lesson before the backbone's: the first half of the transformer learns where every keypoint is in every frame.

It points and draws nothing. Later blocks are left out, so a step takes half the time. The loss has none of the noise
that the velocity's has, so positions are learned from far fewer clips than together with the velocity. The text encoder
learns as well. The trunk begins with the result by `--taught pointing`.
"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from flexiact.media.files import replacing
from flexiact.puppets.engine import processes
from flexiact.puppets.engine.checkpoint import read_header, weights_of
from flexiact.puppets.engine.loop import CHECKPOINT, Pace, Plan, look_every, train
from flexiact.puppets.engine.losses import predict
from flexiact.puppets.recipes.backbone.model import EARLY_HIGH_NOISE_SHARE, draw_batch
from flexiact.puppets.recipes.backbone.pointer import POINTING, blocks_seen, pointing_loss
from flexiact.puppets.recipes.backbone.start import PRECISIONS, BackboneRun, compile_parts, new_model, noising_of
from flexiact.puppets.recipes.backbone.trunk import train_on_clips

DECAY = 0.3
"""Share of the steps over which the rate falls to zero."""


def train_pointing(run: BackboneRun) -> str:
    """Train or resume the lesson; at its end write `POINTING` to the state folder. Return a line on its progress."""
    folder = run.state / "pointing"
    plan = replace(run.trunk, decay=DECAY, averages=(run.average,), kept=())
    train_on_clips(run, plan, folder, _train_process, run.state / POINTING)
    done = read_header(folder / CHECKPOINT).step
    if done < plan.steps:
        return f"the lesson stands at step {done} of {plan.steps}; the same command goes on"
    return f"written to {run.state / POINTING}; `backbone --taught pointing` begins with it"


def _train_process(
    run: BackboneRun, plan: Plan, folder: Path, clips: dict[str, Tensor], about: dict[str, str], out: Path
) -> None:
    model = new_model(run, clips)
    transformer = model.transformer
    transformer.transformer_blocks = transformer.transformer_blocks[: blocks_seen(transformer)]
    if run.compiled:
        compile_parts(model, run.device)
    noising = noising_of(run, model, clips, PRECISIONS[about["precision"]])

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        batch = draw_batch(clips, "first", run.batch, generator)
        assert batch.points is not None  # `cached_clips` gives them
        # The pointer watches; the velocity that half a transformer predicts means nothing.
        predict(model, batch, noising, generator, EARLY_HIGH_NOISE_SHARE)
        return pointing_loss(model.pointer, batch.points)

    pace = Pace(stop_minutes=run.minutes, look_every=look_every(torch.device(run.device)))
    if train(model, loss_of, plan, folder, pace, about) and processes.rank() == 0:
        with replacing(out) as partial:
            save_file({name: value.detach().cpu().contiguous() for name, value in weights_of(model).items()}, partial)
