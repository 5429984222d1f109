"""A demo without files: transfer an action from one puppet to a puppet of another kind."""

from pathlib import Path

import numpy as np
import torch

from flexiact.fits import FitFolder
from flexiact.media.image import write_png
from flexiact.method import FlexiAct
from flexiact.one_video.make import Made, perform, write_video
from flexiact.puppets.world.actions import DEV_ACTIONS
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import render_clip, target_clip
from flexiact.puppets.world.scene import random_scene
from flexiact.task import Request, Video

ACTION = DEV_ACTIONS["rise"]
RIGS = "biped", "quadruped"


def show(method: FlexiAct, fits: FitFolder, folder: Path, seed: int) -> Made:
    """Render two puppets, transfer the action of the first to the second, and write videos and image.

    The folder gets reference.mp4, target.png, result.mp4, and side_by_side.mp4 with all three.

    Raises:
        ValueError: If a file cannot be written.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = (random_scene(generator, "train", rig) for rig in RIGS)
    reference, target = render_clip(first, ACTION).video, target_clip(second).video.frames[0]
    request = Request(target, caption(second, ACTION, "subject"), seed)
    made = perform(method, fits, reference, caption(first, ACTION, "subject"), request)
    still = target[None].repeat(len(reference.frames), axis=0)
    panels = np.concatenate([reference.frames, still, made.video.frames], axis=2)
    write_video(folder / "reference.mp4", reference)
    write_png(folder / "target.png", target)
    write_video(folder / "result.mp4", made.video)
    write_video(folder / "side_by_side.mp4", Video(panels, reference.fps))
    return made
