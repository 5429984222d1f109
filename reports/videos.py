"""Find and read the videos and pictures of a stored run."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from flexiact.media.image import DAMAGED
from reports.run_folder import StoredRun

INPUTS = {"reference": "reference.mkv", "target": "target.png"}
"""File in `inputs/CASE_ID/` of each of a case's inputs."""


def chosen_cases(run: StoredRun, at_most: int) -> list[str]:
    """Evenly spaced cases in run.json's order, chosen without regard to scores."""
    cases = list(run.info["cases"])
    if len(cases) <= at_most:
        return cases
    return [cases[index] for index in np.linspace(0, len(cases) - 1, at_most).round().astype(int)]


def first_seed(run: StoredRun) -> dict[tuple[str, str], dict[str, object]]:
    """The sample rows at the run's first seeds by (method, case_id), without videos that were not made yet."""
    rows = run.at_first_seeds(run.samples)
    rows = rows[rows["status"] != "missing"]
    return {(row["method"], row["case_id"]): row for row in rows.to_dict("records")}


def inside(run: StoredRun, relative: object) -> Path | None:
    """Path to a stored file; None if there is none or the stored path leads out of the run directory."""
    if not isinstance(relative, str) or not relative:
        return None
    path = (run.folder / relative).resolve()
    return path if path.is_relative_to(run.folder.resolve()) and path.is_file() else None


def pictures(
    run: StoredRun, samples: dict[tuple[str, str], dict[str, object]], case: str, name: str, places: np.ndarray
) -> np.ndarray | str:
    """Frames of an input ("reference", "target"), method or bound on a case.

    Samples are the rows of `first_seed`; places in the video are 0 (first frame) to 1 (last), [n].

    Returns:
        Frames, uint8 [n, H, W, 3], of the target image one; or the reason why there are none.
    """
    if name in INPUTS:
        path = inside(run, f"inputs/{case}/{INPUTS[name]}")
    else:
        sample = samples.get((name, case))
        if sample is None:
            return "not run"
        if sample["status"] != "ok":
            return str(sample["status"])
        path = inside(run, sample["video"])
    if path is None:
        return "no file"
    if path.suffix == ".png":
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))[None]
        except DAMAGED:
            return "damaged"
    frames = read_frames(path)
    return "damaged" if frames is None else frames[(places * (len(frames) - 1)).round().astype(int)]


def read_frames(path: Path) -> np.ndarray | None:
    """All frames, uint8 [T, H, W, 3]; None if the file cannot be decoded."""
    try:
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError, OSError):
        return None
    return np.stack(frames) if frames else None


def reduced(frames: np.ndarray, height_px: int) -> np.ndarray:
    """Frames [n, H, W, 3], smaller if they are higher than `height_px`."""
    height, width = frames.shape[1:3]
    if height <= height_px:
        return frames
    size = (max(1, round(width * height_px / height)), height_px)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(image) for image in images])
