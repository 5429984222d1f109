"""Train the shipped weights of the puppet world: `python -m flexiact.puppets.train RECIPE`.

Every recipe resumes from its state folder: after a stop, the same command continues the run, and the result is the same
as without a stop. Order: first vae_encoder and vae_decoder, and beside them words, pointing and the backbone's trunk,
one after another; then a branch of the backbone, refadapter and control. clip, pose and pose_driver may be trained at
any time. `explained` measures on development actions how much of each kind of movement the backbone has learned.
`judge` measures how well it draws test actions in held-out worlds. `carry_over` changes the weights of an earlier world
(`--from-weights`) to the code and vocabulary of this one, as a start for vae_encoder, vae_decoder and backbone.

The backbone's training is a trunk of any length that a branch finishes. `backbone` trains the trunk; with `--branch-at`
it finishes a kept checkpoint of the trunk and writes the weights. `--finish` does both within `--minutes`. On a CPU,
`--processes` (of one thread each) may be as many as there are cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flexiact import PUPPET_WEIGHTS
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from torch import device as Device

    from flexiact.puppets.recipes.backbone.start import BackboneRun

STEPS = {
    "carry_over": 0,
    "words": 3000,
    "pointing": 6250,
    "vae_encoder": 4000,
    "vae_decoder": 4000,
    "backbone": 156_250,
    "refadapter": 6250,
    "control": 3136,
    "clip": 600,
    "pose": 6000,
    "pose_driver": 1000,
    "explained": 96,
    "judge": 64,
}


def parser() -> argparse.ArgumentParser:
    """The command line; reading it loads no network library."""
    p = OneLineParser(prog="python -m flexiact.puppets.train", description=__doc__)
    p.add_argument("recipe", choices=list(STEPS))
    p.add_argument(
        "--steps", type=int, help="optimiser steps (judge: worlds; explained: clips a kind); default: " + str(STEPS)
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--state", type=Path, default=Path(".state"), help="checkpoints, curves and cached clips")
    p.add_argument("--out", type=Path, default=PUPPET_WEIGHTS, help="folder of the finished weights")
    p.add_argument(
        "--from-weights", type=Path, metavar="FOLDER", help="backbone, VAE: begin with the finished weights in a folder"
    )
    p.add_argument("--device", default="auto")
    p.add_argument("--threads", type=int, default=2, help="of the processor")
    p.add_argument("--shards", type=int, default=64, help="cached training clips, in units of 256 (control: of 128)")
    p.add_argument("--development", action="store_true", help="judge: on development actions and looks")
    p.add_argument("--trunk", action="store_true", help="explained: of the backbone's trunk in --state")
    adapter = p.add_argument_group("refadapter; the defaults are the paper's way, others are for ablations")
    adapter.add_argument("--condition", choices=("other", "first"), default="other", help="moment of the image")
    adapter.add_argument("--keep-first", action="store_true", help="do not replace the first clean latent by the image")
    adapter.add_argument("--rank", type=int, metavar="N", help="of every layer")
    adapter.add_argument("--identity-weight", type=float, default=0.0, help="of the identity-consistency loss")
    _add_backbone_options(p.add_argument_group("backbone, pointing"))
    return p


def _add_backbone_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch", type=int, default=16, help="clips a step")
    group.add_argument(
        "--processes",
        type=int,
        default=1,
        help="also refadapter, control: of one thread each, which share a batch; on a GPU they make the clips",
    )
    group.add_argument("--minutes", type=float, help="store and stop after so many")
    finished = group.add_mutually_exclusive_group()
    finished.add_argument("--branch-at", type=int, metavar="SAMPLES", help="finish the trunk as it was after so many")
    finished.add_argument("--finish", action="store_true", help="train the trunk and finish it, all within --minutes")
    group.add_argument("--branch-share", type=float, default=0.25, help="length of a branch, as a share of the trunk's")
    group.add_argument("--average", type=float, default=0.05, help="relative width of the average that is written")
    group.add_argument("--movement", type=float, default=0.0, help="0 to 1: weight clips by 1 / their movement")
    group.add_argument("--channels", type=float, default=0.0, help="0 to 1: weight channels by 1 / their variance")
    group.add_argument("--pointing", type=float, default=0.0, help="weight of a term for where the keypoints are")
    group.add_argument(
        "--compile",
        action="store_true",
        help="also refadapter, control: fuse the model (needs a C++ compiler): a third faster",
    )
    group.add_argument("--taught", choices=("words", "pointing"), help="begin with what this recipe has trained")
    group.add_argument("--contrast", type=float, default=0.0, help="weight of the distance kept to another clip")


def _check_processes(processes: int, device: Device, batch: int, said: str) -> None:
    """Refuse, before any clip is made, processes that cannot share a batch; `said` names the batch."""
    if processes < 1 or (device.type == "cpu" and batch % processes):
        raise ValueError(f"--processes: it must divide {said}")


def _backbone_run(options: argparse.Namespace, steps: int, device: Device) -> BackboneRun:
    from flexiact.puppets.engine.losses import LossTerms
    from flexiact.puppets.recipes.backbone.start import AVERAGES, BackboneRun

    if options.average not in AVERAGES:
        raise ValueError(f"--average: {options.average} is none of {AVERAGES}")
    if not options.branch_share > 0:
        raise ValueError("--branch-share: it must be above 0")
    _check_processes(options.processes, device, options.batch, "--batch")
    return BackboneRun(
        options.state,
        options.seed,
        steps,
        str(device),
        options.batch,
        options.shards,
        options.processes,
        options.minutes,
        options.from_weights,
        options.average,
        LossTerms(options.movement, options.contrast, options.pointing, options.channels),
        options.compile,
        options.branch_share,
        options.taught,
    )


def _train_pointing(options: argparse.Namespace, steps: int, device: Device) -> str:
    from flexiact.puppets.recipes.backbone.pointing import train_pointing

    return train_pointing(_backbone_run(options, steps, device))


def _train_backbone(options: argparse.Namespace, steps: int, device: Device) -> str:
    from flexiact.puppets.recipes.backbone.trunk import train_branch, train_trunk, train_within

    run = _backbone_run(options, steps, device)
    if options.finish:
        return train_within(run, options.out / "backbone")
    if options.branch_at is None:
        return train_trunk(run)
    return train_branch(run, options.branch_at, options.out / "backbone")


def _run(options: argparse.Namespace) -> None:
    import torch

    from flexiact.backbone.loading import resolve_device

    torch.set_num_threads(options.threads)
    steps = options.steps or STEPS[options.recipe]
    figures = _RECIPES[options.recipe](options, steps, resolve_device(options.device))
    print(figures if figures is not None else f"written to {options.out}")


def _carry_over(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.backbone.carry_over import carry_over

    if options.from_weights is None:
        raise ValueError("--from-weights: name the folder of the backbone to carry over")
    return carry_over(options.from_weights, options.state, options.seed)


def _vae(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.vae import train_decoder, train_encoder

    train_half = train_encoder if options.recipe == "vae_encoder" else train_decoder
    return train_half(options.state, steps, options.seed, device, options.from_weights)


def _words(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.backbone.words import train_words

    return train_words(options.state, steps, options.seed, device)


def _refadapter(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.refadapter import CONFIG, RefAdapterRun, train

    _check_processes(options.processes, device, CONFIG.batch_size, f"the batch of {CONFIG.batch_size}")
    run = RefAdapterRun(
        options.state,
        steps,
        options.seed,
        options.shards,
        options.processes,
        options.condition,
        not options.keep_first,
        options.rank or CONFIG.rank,
        options.identity_weight,
        options.compile,
    )
    return train(run, options.out / "refadapter", device)


def _control(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.control import BATCH, ControlRun, train_control

    _check_processes(options.processes, device, BATCH, f"the batch of {BATCH}")
    run = ControlRun(
        options.state,
        options.out / "control",
        steps,
        options.seed,
        str(device),
        options.shards,
        options.processes,
        options.compile,
    )
    return train_control(run)


def _judge_of_videos(options: argparse.Namespace, steps: int, device: Device) -> object:
    from flexiact.puppets.recipes.judges.clip_judge import train_clip
    from flexiact.puppets.recipes.judges.pose_driver import train_driver
    from flexiact.puppets.recipes.judges.pose_judge import train_pose

    train = {"clip": train_clip, "pose": train_pose, "pose_driver": train_driver}[options.recipe]
    return train(options.state / options.recipe, options.out / options.recipe, steps, options.seed, device)


def _explained(options: argparse.Namespace, clips: int, device: Device) -> object:
    from flexiact.puppets.cards import explained
    from flexiact.puppets.recipes.backbone.words import readable_share

    seed = options.seed
    trained = (
        explained.load_trunk(options.state, seed) if options.trunk else explained.load_trained(options.out / "backbone")
    )
    held_out = explained.held_out_clips(trained, clips, seed)
    parts = [explained.as_markdown(explained.explained_table(trained.model, held_out, seed))]
    if options.trunk:
        parts.append(explained.pointed_markdown(trained.model, held_out, seed))
    share = readable_share(trained.model.text_encoder, seed)
    return "\n".join([*parts, f"A linear layer reads {share:.0%} of the action's variance from the words."])


def _judge(options: argparse.Namespace, worlds: int, device: Device) -> object:
    from flexiact.backbone.backbone import load_backbone
    from flexiact.pose.estimators import MMPoseEstimator
    from flexiact.puppets.cards.backbone import DEVELOPMENT_ACTIONS, LARGE_ACTIONS, OTHER_ACTIONS, as_markdown, judge

    backbone, pose = load_backbone("puppets", str(device)), MMPoseEstimator(PUPPET_WEIGHTS / "pose")
    titles = {"Large movements": LARGE_ACTIONS, "Others": OTHER_ACTIONS}
    split = "dev" if options.development else "test"
    if options.development:
        titles = {"Development actions": DEVELOPMENT_ACTIONS}
    tables = {
        title: as_markdown(judge(backbone, pose, actions, worlds, options.seed, split))
        for title, actions in titles.items()
    }
    return "\n".join(f"{title}:\n\n{table}" for title, table in tables.items())


_RECIPES: dict[str, Callable[[argparse.Namespace, int, Device], object]] = {
    "carry_over": _carry_over,
    "words": _words,
    "pointing": _train_pointing,
    "vae_encoder": _vae,
    "vae_decoder": _vae,
    "backbone": _train_backbone,
    "refadapter": _refadapter,
    "control": _control,
    "clip": _judge_of_videos,
    "pose": _judge_of_videos,
    "pose_driver": _judge_of_videos,
    "explained": _explained,
    "judge": _judge,
}


main = command(parser, _run)

if __name__ == "__main__":
    sys.exit(main())
