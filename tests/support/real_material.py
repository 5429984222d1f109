"""Small folders of files such as people have: the authors' benchmark, and one reference with some images."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from flexiact.media.video import write_preview
from flexiact.task import Video


def moving(num_frames: int = 9, seed: int = 0, height: int = 48, width: int = 72) -> np.ndarray:
    """A soft texture that wanders to the right: uint8 [T, H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return np.stack([np.roll(texture, 3 * step, axis=1) for step in range(num_frames)])


def write_clip(path: Path, num_frames: int = 9, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_preview(path, Video(moving(num_frames, seed), 8.0), scale=1)


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(moving(1, seed)[0]).save(path)


def write_pictures(folder: Path, num_frames: int = 9, seed: int = 0, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(moving(num_frames, seed)):
        Image.fromarray(frame).save(folder / f"{number:05d}{suffix}")


def write_table(path: Path, rows: list[list[object]], separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)


CROP_HEADING = ["path", "start_frame", "end_frame", "fps", "mask_id", "caption"]
ACTIONS = {("human", "chest"): ["girl_1.webp", "knight.png"], ("animal", "dogjump"): ["bird1.jpg"]}


def official(
    root: Path, top: str = "target_images", crop: str = "_crop", heading: bool = True, separator: str = ","
) -> Path:
    """A small copy of the authors' folder: two actions, three target images, two of the twelve crops."""
    for number, ((scenario, action), images) in enumerate(ACTIONS.items()):
        clips = [f"reference_videos/{scenario}/{action}{crop}/{index}.mp4" for index in (10, 0)]
        for clip in clips:
            write_clip(root / clip, seed=number)
        captions = root / "captions" / scenario / action
        rows = [[f"benchmark/{clip}", 0, 9, 8, 2, f"A subject does {action}, slowly."] for clip in clips]
        write_table(captions / "crop.csv", [CROP_HEADING] * heading + rows)
        targets = [f"{top}/{scenario}/{image}" for image in images]
        for place, target in enumerate(targets):
            write_image(root / target, seed=10 * number + place)
        names = ["path", "caption"] if separator == "," else ["Path", "Caption"]
        prompts = [[f"benchmark/{target}", f'A target does {action}, "well".'] for target in targets]
        write_table(captions / "val_image.csv", [names, *prompts], separator)
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Data\n")
    return root


def plain(root: Path, images: tuple[str, ...] = ("cat.png", "dog.jpg")) -> Path:
    write_clip(root / "reference.mp4", num_frames=12)
    (root / "reference.txt").write_text("a red figure\nwaves")
    for number, image in enumerate(images):
        write_image(root / "images" / image, number)
        (root / "images" / image).with_suffix(".txt").write_text(f"a {Path(image).stem} waves")
    return root


def davis(root: Path, resolution: str = "480p") -> Path:
    """A small copy of DAVIS with a table of two transfers: onto another sequence's first picture, and onto an image."""
    for number, sequence in enumerate(("bear", "camel")):
        write_pictures(root / "JPEGImages" / resolution / sequence, num_frames=12, seed=number)
    write_image(root / "images" / "fox.png", 7)
    rows = [["camel", "a camel walks", "bear", "a bear walks"], ["camel", "a camel walks", "images/fox.png", "a fox"]]
    write_table(root / "transfers.csv", [["reference", "caption", "target", "prompt"], *rows])
    return root
