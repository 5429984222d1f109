"""Data that recipes render once and keep on disk: shards of latents and captions, and pools of frames.

A shard is a pure function of its number and of its folder's name (`recipe_mark`). So shards may be made in any order
and by several processes at once. Each is written to a temporary name and then renamed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from flexiact.media.files import replacing
from flexiact.puppets.engine import processes
from flexiact.puppets.engine.loop import step_generator
from flexiact.puppets.recipes.courses import random_course, random_pose
from flexiact.puppets.recipes.linear_code import LinearCode
from flexiact.puppets.recipes.vae import as_pixels
from flexiact.puppets.world.captions import wordings
from flexiact.puppets.world.clip import NUM_FRAMES, SIZE, bone_visibility, projections
from flexiact.puppets.world.render import RENDERER_VERSION, draw
from flexiact.puppets.world.rigs import KEYPOINTS, RIGS
from flexiact.puppets.world.scene import Scene, random_scene

CPU = torch.device("cpu")
SHARD_CLIPS = 256
CLIPS_VERSION = 5
"""Raised when the content of shards changes, or the same seed gives other scenes, actions or captions."""
_BATCH = 16
# Shards draw from generators of their own: no step of any recipe shares a seed with them.
_SHARD_SEED_OFFSET = 7_000_000


@torch.no_grad()
def encode(vae: AutoencoderKLCogVideoX, pixels: Tensor) -> Tensor:
    """Scaled latents float16 [B, F, C, h, w] of pixels [B, 3, T, H, W] in -1..1 (posterior mode)."""
    latents = vae.encode(pixels.to(next(vae.parameters()).device)).latent_dist.mode()
    return (latents.float() * vae.config.scaling_factor).permute(0, 2, 1, 3, 4).half().cpu()


@torch.no_grad()
def encode_linear(code: LinearCode, pixels: Tensor) -> Tensor:
    """Latents that `encode` returns once the VAE has learnt the code: float16 [B, F, C, h, w]."""
    return code.encode(pixels).permute(0, 2, 1, 3, 4).half()


class _Drawn(NamedTuple):
    """Content of some clips: scenes, channel values [B, T, 21], those of another moment [B, 1, 21], and all captions.

    It is drawn on the CPU; only pictures and latents are made on a device.
    """

    scenes: list[Scene]
    courses: Tensor
    moments: Tensor
    captions: list[str]


def _draw_clips(generator: torch.Generator) -> _Drawn:
    scenes = [random_scene(generator, "train") for _ in range(_BATCH)]
    actions, courses = zip(*(random_course(generator, scene.rig) for scene in scenes), strict=True)
    # Another moment of the untrimmed recording: in the middle of the clip, in the next action, or before it.
    moments = []
    for scene, course in zip(scenes, courses, strict=True):
        moment = course[int(torch.randint(NUM_FRAMES, (), generator=generator))]
        poses = (moment, random_pose(generator, scene.rig), torch.zeros_like(moment))
        moments.append(poses[int(torch.randint(len(poses), (), generator=generator))][None])
    captions = [text for s, a in zip(scenes, actions, strict=True) for text in wordings(s, a)]
    return _Drawn(scenes, torch.stack(courses), torch.stack(moments), captions)


def _together(parts: Sequence[_Drawn]) -> _Drawn:
    scenes, courses, moments, captions = zip(*parts, strict=True)
    return _Drawn(list(chain(*scenes)), torch.cat(courses), torch.cat(moments), list(chain(*captions)))


def _rendered(
    code: LinearCode, tokenizer: PreTrainedTokenizerFast, drawn: _Drawn, device: torch.device
) -> dict[str, Tensor]:
    count = len(drawn.scenes)
    views = [projections(drawn.scenes, values) for values in (drawn.courses, drawn.moments)]
    visible = bone_visibility(drawn.scenes)
    frames = [draw(view.to(device), drawn.scenes, visible, SIZE)[0] for view in views]
    clips, others = (as_pixels(images.view(count, -1, *images.shape[1:])) for images in frames)
    exists = torch.tensor([[i in RIGS[s.rig].keypoints for i in range(len(KEYPOINTS))] for s in drawn.scenes])
    points = views[0].keypoints().view(count, NUM_FRAMES, len(KEYPOINTS), 2)
    ids = tokenizer(drawn.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return {
        "latents": encode_linear(code, clips).cpu(),
        "first": encode_linear(code, clips[:, :, :1]).cpu(),
        "other": encode_linear(code, others).cpu(),
        "captions": ids.view(count, -1, ids.shape[-1]).to(torch.int16),
        "points": points.masked_fill(~exists[:, None, :, None], torch.nan).half(),
    }


def recipe_mark(code: LinearCode, seed: int) -> str:
    """Name of all that clips depend on, except their number."""
    digest = hashlib.sha256(b"".join(x.numpy().tobytes() for x in (code.basis, code.mean, code.scale)))
    return f"v{CLIPS_VERSION}-renderer{RENDERER_VERSION}-code{digest.hexdigest()[:8]}-seed{seed}"


def cached_clips(
    code: LinearCode,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    seed: int,
    shards: int,
    workers: int = 1,
    device: torch.device = CPU,
) -> dict[str, Tensor]:
    """Clips of `shards` shards, made if missing, in a folder named after all that the clips depend on.

    One-thread processes make missing shards, one worker in this process. Draws are the same on every device; pictures
    and latents are the same up to rounding.

    Returns:
        latents [N, F, C, h, w], first and other [N, 1, C, h, w] (float16), captions int16 [N, W, L] in all `wordings`,
        and points float16 [N, T, 13, 2], the keypoints in pixels, nan where the body lacks the part.
    """
    make = partial(_shard, code, tokenizer, seed, device)
    return cached_shards(folder / recipe_mark(code, seed), shards, make, workers, device)


def _shard(
    code: LinearCode, tokenizer: PreTrainedTokenizerFast, seed: int, device: torch.device, index: int
) -> dict[str, Tensor]:
    generator = step_generator(seed, _SHARD_SEED_OFFSET + index)
    drawn = [_draw_clips(generator) for _ in range(SHARD_CLIPS // _BATCH)]
    # A GPU takes a shard at once. A CPU takes a few clips, since its products may round differently for more.
    return joined(
        _rendered(code, tokenizer, d, device) for d in (drawn if device.type == "cpu" else [_together(drawn)])
    )


def cached_shards(
    folder: Path,
    shards: int,
    make: Callable[[int], dict[str, Tensor]],
    workers: int = 1,
    device: torch.device = CPU,
) -> dict[str, Tensor]:
    """Concatenate the first `shards` shards of a folder on a device; make those that are missing.

    `make` returns a shard's tensors for its number; with several workers (see `cached_clips`) it must be picklable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {index: folder / f"{index:04d}.safetensors" for index in range(shards)}
    missing = {index: path for index, path in paths.items() if not path.exists()}
    if missing:
        processes.run(min(workers, len(missing)), _write_shards, make, missing)
    return joined(load_file(path, device=str(device)) for path in paths.values())


def _write_shards(make: Callable[[int], dict[str, Tensor]], missing: dict[int, Path]) -> None:
    mine = sorted(missing)[processes.rank() :: processes.count()]
    for index in tqdm(mine, desc="clips", mininterval=5, disable=processes.rank() > 0):
        with replacing(missing[index]) as partial_file:
            save_file(make(index), partial_file)


def joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate tensors of equal names along their first axis."""
    parts = list(parts)
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def rendered_once(
    folder: Path,
    about: dict[str, Any],
    arrays: Mapping[str, tuple[tuple[int, ...], str]],
    render: Callable[[Sequence[np.ndarray]], None],
) -> list[np.ndarray]:
    """Read-only arrays on disk, filled by `render` unless an earlier start did so with the same settings `about`.

    `arrays` maps file names to shape and dtype; the arrays are passed and returned in its order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, stamp, paths = folder / "pool.json", json.dumps(about), [folder / f"{name}.npy" for name in arrays]
    if not (done.exists() and done.read_text() == stamp):
        done.unlink(missing_ok=True)
        files = [
            np.lib.format.open_memmap(path, "w+", dtype, shape)
            for path, (shape, dtype) in zip(paths, arrays.values(), strict=True)
        ]
        render(files)
        for file in files:
            file.flush()
        done.write_text(stamp)
    return [np.load(path, mmap_mode="r") for path in paths]
