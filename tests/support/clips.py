"""A tiny data set of untrimmed videos, written by the suite's own writer."""

from pathlib import Path

from flexiact.media.video import write_lossless
from flexiact.task import Video
from tests.support.backbones import random_frames

CAPTIONS = ("a dog jumps", "a bird waves", "the red figure")


def write_clip(path: Path, seed: int, num_frames: int = 14, fps: float = 8.0) -> Path:
    """Noise of 32x48 px, twice the tiny backbone's size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lossless(path, Video(random_frames(seed, num_frames, 32, 48), fps))
    return path


def write_folder(folder: Path) -> Path:
    """Three videos with their captions beside them."""
    for seed, caption in enumerate(CAPTIONS):
        write_clip(folder / f"{seed}.mkv", seed).with_suffix(".txt").write_text(f"{caption}\n")
    return folder
