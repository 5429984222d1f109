"""Read and write images (Pillow), and fit them to a size."""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from flexiact.cli import one_line
from flexiact.media.files import MediaError, replacing


def fit_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (bicubic, antialiased) to cover height x width, and crop the centre: uint8 [height, width, 3].

    Raises:
        ValueError: If `height` or `width` is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"size: expected sides of 1 or more, got {height}x{width}")
    source_height, source_width = image.shape[:2]
    if (source_height, source_width) == (height, width):
        return image
    scale = min(source_height / height, source_width / width)
    top, left = (source_height - scale * height) / 2, (source_width - scale * width) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read any image Pillow knows as uint8 [H, W, 3] sRGB: upright, transparency on white, 16 bits reduced to 8.

    Raises:
        MediaError: If the file is missing, not an image, or truncated.
    """
    path = Path(path)
    check_file(path, "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # phones take pictures of this size
            image = Image.open(path)
        with image:
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: not a readable image ({one_line(error)})") from error


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as PNG.

    Raises:
        WriteError: If the file cannot be written; nothing is left behind.
    """
    with replacing(Path(path)) as partial:
        Image.fromarray(image).save(partial, format="PNG")


def check_file(path: Path, what: str) -> None:
    """Refuse a path without a file to decode.

    Args:
        path: Path to the file.
        what: Kind of file that is expected, with its article.

    Raises:
        MediaError: If the file is missing, a folder, or empty.
    """
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, expected {what}")
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: is empty")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
