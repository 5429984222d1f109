"""Untrimmed videos for RefAdapter's training: encoded once by all processes, then drawn from files on disk.

A clip's file holds the latents of a few random windows, those of a few random frames, and the text states of its
caption. A step draws one window and one frame, so that any stored frame may be the condition of any stored window.

Departure from the paper (arXiv 2505.03730): there the condition is a new random frame of the video at every step. Here
a clip has `CacheConfig.windows` windows and `CacheConfig.frames` frames for the whole training, and the VAE's posterior
is sampled once for each. They cannot be cut out of the latents of the whole video, since the VAE is causal and merges
four frames into one. With the paper's 40,000 steps of 8 clips on 42,000 clips, a clip is drawn 7.6 times.

A window's frames are 1 / (the backbone's fps) apart, as nearly as the video's own rate allows.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.codec import (
    as_condition,
    clean_latent,
    encode_image,
    encode_text,
    encode_video,
    note_long_text,
)
from flexiact.batches import Batch
from flexiact.media.digests import BACKBONE_FIT_FIELDS, file_digest
from flexiact.media.files import make_folder, replacing
from flexiact.media.video import read_frames, read_timing
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import collected, tell
from flexiact.terminal.progress import counted
from flexiact.train_refadapter.clips import Clip, some_of
from flexiact.train_refadapter.configs import CacheConfig

CACHE_VERSION = 4
"""Raised when the same clip gives other files."""

MARKS_FILE = "videos.json"
"""File in the cache with size, modification time and digest of every video."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class CacheError(ValueError):
    """A file of the cache cannot be read; only the process that needs it knows. The message is one line."""


@dataclass(frozen=True, eq=False)
class CachedClips:
    """Encoded clips on disk.

    Attributes:
        files: Files, one per clip.
        empty: Text states of the empty caption [L, width].
        image_dropout: Probability of a condition of zeros; the paper's.
        caption_dropout: Probability of the empty caption; the paper's.
    """

    files: tuple[Path, ...]
    empty: Tensor
    image_dropout: float = 0.05
    caption_dropout: float = 0.1

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that the clips' numbers depend on, in their order."""
        return hashlib.sha256("\n".join(file.stem for file in self.files).encode()).hexdigest()

    def draw(self, backbone: Backbone, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw random clips, each with one of its windows, and one of its frames as the condition.

        A window's first clean latent is replaced by that of the frame, so that the model learns to start from an image
        with another pose and place than the window's own. If the image is dropped, the window stays whole.

        Raises:
            CacheError: If a file is missing or damaged.
        """
        chosen = torch.randint(len(self.files), (batch_size,), generator=generator).tolist()
        rows = [self._row(self.files[index], generator) for index in chosen]
        clean, images, texts, with_image = zip(*rows, strict=True)
        whole = torch.cat(clean).to(backbone.device)
        condition = as_condition(torch.cat(images).to(backbone.device), whole.shape[1])
        given = torch.tensor(with_image, device=backbone.device).view(-1, 1, 1, 1, 1)
        # If the image is dropped, the window must not reveal it either.
        lead = 1 + backbone.num_padding_frames  # padding frames repeat the first one
        first = torch.where(given, clean_latent(backbone, condition).expand(-1, lead, -1, -1, -1), whole[:, :lead])
        condition = torch.where(given, condition, torch.zeros_like(condition))
        return Batch(torch.cat([first, whole[:, lead:]], 1), condition, torch.stack(texts).to(backbone.device))

    def _row(self, path: Path, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, bool]:
        """A window [1, F, C, h, w], an image [1, 1, C, h, w], text states [L, width], and True if the image is seen."""
        try:
            with safe_open(path, "pt") as file:
                windows, images = file.get_slice("windows"), file.get_slice("images")
                window = int(torch.randint(windows.get_shape()[0], (), generator=generator))
                image = int(torch.randint(images.get_shape()[0], (), generator=generator))
                without_image, without_caption = torch.rand(2, generator=generator).tolist()
                text = self.empty if without_caption < self.caption_dropout else file.get_tensor("text")
                return (
                    windows[window : window + 1],
                    images[image : image + 1],
                    text,
                    without_image >= self.image_dropout,
                )
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"cache: {path} cannot be read ({one_line(error)}); remove it, and it is made again"
            ) from error


def cache_clips(
    folder: Path, backbone: Backbone, clips: Sequence[Clip], config: CacheConfig, accelerator: Accelerator
) -> CachedClips:
    """Encode the clips that are missing from the cache; every process does its share.

    Args:
        folder: Folder of the cache, made if missing; all processes must see it.
        backbone: Backbone with the VAE, the text encoder and the size of the latents.
        clips: Clips, at least one.
        config: Numbers of windows and frames kept per clip, and their seed.
        accelerator: Accelerator of this process; all processes must call this together, and wait until all files exist.

    Raises:
        ValueError: If videos cannot be read or are too short, or the disk has too little room; raised in all processes.
    """
    marks = _marks(folder, [clip.path for clip in clips], accelerator)
    about = {name: getattr(backbone, name) for name in BACKBONE_FIT_FIELDS} | {"dtype": str(backbone.dtype)}

    def file(description: dict[str, object]) -> Path:
        text = json.dumps(description | about | {"version": CACHE_VERSION}, sort_keys=True)
        return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"

    files = [file({"content": marks[str(c.path)][2], "caption": c.caption} | asdict(config)) for c in clips]
    empty = file({"text": ""})
    sources: dict[Path, Clip | None] = {empty: None} | dict(zip(files, clips, strict=True))

    def make(path: Path) -> list[tuple[str, str]]:
        if path.exists():  # checked only now: files that others have written meanwhile must not change the shares
            return []
        clip = sources[path]
        with collected() as notes:
            if clip:
                tensors = encode_clip(backbone, clip, config, _generator(path))
            else:
                tensors = {"text": encode_text(backbone, [""])[0]}
        with replacing(path) as unfinished:
            save_file({name: tensor.cpu() for name, tensor in tensors.items()}, unfinished)
        return notes

    def prepare(paths: Sequence[Path]) -> None:
        make_folder("cache", folder)
        _check_room(folder, backbone, config, paths)
        with replacing(folder / MARKS_FILE) as unfinished:
            unfinished.write_text(json.dumps(marks))

    _in_shares(accelerator, [list(sources)], prepare, "prepare")
    notes = _in_shares(accelerator, list(sources), make, "encode")
    if accelerator.is_main_process:
        tell(one for found in notes for one in found)
    try:
        with safe_open(empty, "pt") as opened:
            return CachedClips(tuple(files), opened.get_tensor("text").clone())
    except (OSError, SafetensorError) as error:  # a folder that this process does not share
        raise CacheError(f"cache: {empty} cannot be read ({one_line(error)})") from error


def encode_clip(backbone: Backbone, clip: Clip, config: CacheConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Encode the windows, frames and caption that are kept of a clip.

    Returns:
        windows [K, F, C, h, w] (latents as the model diffuses them), images [N, 1, C, h, w] (latents as conditions),
        text [L, width] (text states), and frame indices (int64): starts [K] of the windows, moments [N] of the images.

    Raises:
        ValueError: If the video cannot be read or is shorter than the backbone's clips.
    """
    note_long_text(backbone, clip.caption)
    shown, rate = read_timing(clip.path).steadily(backbone.fps)
    count, every = len(shown), max(1, round(rate / backbone.fps))
    span = (backbone.num_frames - 1) * every + 1
    if count < span:
        raise ValueError(f"{clip.path}: expected {span} frames or more at {rate:g} frames/s, got {count}")
    starts = torch.randperm(count - span + 1, generator=generator)[: config.windows]
    moments = torch.randperm(count, generator=generator)[: config.frames]
    spans = [shown[start : start + span : every] for start in starts.tolist()]
    stills = [shown[moment] for moment in moments.tolist()]
    wanted = {index for indices in spans for index in indices} | set(stills)
    pixels = read_frames(clip.path, wanted, backbone.height, backbone.width)
    windows = [encode_video(backbone, np.stack([pixels[index] for index in indices]), generator) for indices in spans]
    images = [encode_image(backbone, pixels[index], generator)[:, :1] for index in stills]
    text = encode_text(backbone, [clip.caption])[0]
    return {
        "windows": torch.cat(windows),
        "images": torch.cat(images),
        "text": text,
        "starts": starts.clone(),
        "moments": moments.clone(),
    }


def _in_shares(
    accelerator: Accelerator, items: Sequence[Item], work: Callable[[Item], Result], label: str
) -> list[Result]:
    """Process all items, each process its share; return all results, in the items' order, in all processes.

    An error stops no process. So no process waits for one that is gone, and all problems are reported at once.

    Raises:
        ValueError: If there were errors in any process; raised in all processes.
    """
    number, processes = accelerator.process_index, accelerator.num_processes
    done: list[Result] = []
    problems: list[str] = []
    mine = items[number::processes]
    for item in counted(mine, len(mine), label) if accelerator.is_main_process else mine:
        try:
            done.append(work(item))
        except (ValueError, OSError, SafetensorError) as error:
            problems.append(one_line(error))
    shares = gather_object([(done, problems)])
    problems = [problem for _, found in shares for problem in found]
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        raise ValueError(f"data: {len(problems)} problems: {some_of(problems)}")
    return [shares[index % processes][0][index // processes] for index in range(len(items))]


def _marks(folder: Path, paths: Sequence[Path], accelerator: Accelerator) -> dict[str, list[Any]]:
    """Size, modification time (ns) and SHA-256 (hex) of each file; unchanged files are not read again."""
    try:
        known = dict(json.loads((folder / MARKS_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        known = {}

    def mark(path: Path) -> list[Any]:
        stat = path.stat()
        size_and_time = [stat.st_size, stat.st_mtime_ns]
        before = known.get(str(path))
        if isinstance(before, list) and len(before) == 3 and before[:2] == size_and_time:
            return before
        return [*size_and_time, file_digest(path)]

    names = sorted(set(paths))
    marks = _in_shares(accelerator, names, mark, "read")
    return {str(path): found for path, found in zip(names, marks, strict=True)}


def _check_room(folder: Path, backbone: Backbone, config: CacheConfig, files: Sequence[Path]) -> None:
    latent_frames, *shape = backbone.latent_shape
    numbers = (config.windows * latent_frames + config.frames) * math.prod(shape)
    numbers += backbone.max_text_tokens * backbone.text_encoder.config.d_model
    missing = sum(not path.exists() for path in files)
    needed = missing * numbers * backbone.dtype.itemsize / 2**30
    free = shutil.disk_usage(folder).free / 2**30
    if needed > free:
        raise ValueError(
            f"cache: {missing} files need {needed:.1f} GiB, {folder} has {free:.1f} GiB; fewer --windows need less"
        )


def _generator(path: Path) -> torch.Generator:
    """Generator seeded with a file's name, and so with the clip's content and the seed."""
    return torch.Generator().manual_seed(int(path.stem[:8], 16))
