"""Train what the puppet world ships: `python -m flexiact.puppets.train RECIPE`.

Every recipe goes on from its state folder, so a stopped run continues with the same command and ends as if it had never
been stopped. Order: vae, backbone, then refadapter and control; clip, pose and pose_driver at any time. `judge`
measures the backbone on held-out worlds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
STEPS = {
    "vae": 2600,
    "backbone": 18_000,
    "refadapter": 1500,
    "control": 2000,
    "clip": 600,
    "pose": 6000,
    "pose_driver": 1000,
    "judge": 64,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flexiact.puppets.train", description=__doc__)
    parser.add_argument("recipe", choices=list(STEPS))
    parser.add_argument("--steps", type=int, help="optimiser steps (judge: worlds); default: " + str(STEPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path(".state"), help="checkpoints, curves and cached clips")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the finished weights")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument(
        "--shards", type=int, default=64, help="cached training clips, in units of 256 (control: of 128)"
    )
    options = parser.parse_args(arguments)
    try:
        figures = _run(options, options.steps or STEPS[options.recipe])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(figures if figures is not None else f"written to {options.out}")
    return 0


def _run(options: argparse.Namespace, steps: int) -> object:
    import torch

    from flexiact.backbone import load_backbone, resolve_device

    torch.set_num_threads(options.threads)
    device, state, out = resolve_device(options.device), options.state, options.out
    if options.recipe == "vae":
        from flexiact.puppets.train_vae import train_vae

        return train_vae(state, steps, options.seed, device)
    if options.recipe == "backbone":
        from flexiact.puppets.train_backbone import train_backbone

        train_backbone(state, out / "backbone", steps, options.seed, device, shards=options.shards)
        return out / "backbone"
    if options.recipe == "refadapter":
        from flexiact.puppets.train_refadapter import train

        train(state, out / "refadapter", steps, options.seed, device, shards=options.shards)
        return out / "refadapter"
    if options.recipe == "control":
        from flexiact.puppets.train_control import train_control

        return train_control(state, out / "control", steps, options.seed, device, shards=options.shards)
    if options.recipe == "judge":
        from flexiact.pose import MMPoseEstimator
        from flexiact.puppets.evaluate import LARGE_ACTIONS, OTHER_ACTIONS, as_markdown, judge

        backbone, pose = load_backbone("puppets", str(device)), MMPoseEstimator(WEIGHTS / "pose")
        tables = {
            title: as_markdown(judge(backbone, pose, actions, steps, options.seed))
            for title, actions in (("Large movements", LARGE_ACTIONS), ("Others", OTHER_ACTIONS))
        }
        return "\n".join(f"{title}:\n\n{table}" for title, table in tables.items())
    if options.recipe == "pose":
        from flexiact.puppets.judge_pose import train_pose

        return train_pose(state / "pose", out / "pose", steps, options.seed, device)
    if options.recipe == "pose_driver":
        from flexiact.puppets.driver_pose import train_driver

        return train_driver(state / "pose_driver", out / "pose_driver", steps, options.seed, device)
    from flexiact.puppets.judge_clip import train_clip

    return train_clip(state / "clip", out / "clip", steps, options.seed, device)


if __name__ == "__main__":
    sys.exit(main())
