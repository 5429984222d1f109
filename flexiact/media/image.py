"""Read and write images (Pillow), and fit them to a size."""

import os
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from flexiact.media.colour import stated_otherwise, to_srgb
from flexiact.media.files import MediaError, no_content, replacing
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

MUCH_CUT_AWAY = 0.4
"""Share of a picture from which on a note says that the centre crop loses it."""

_DNG_VERSION, _SUBFILE_TYPE = 50706, 254  # TIFF tags; the second one's first bit marks a preview
_RANGE_KNOWN = {"PNG", "PPM"}  # formats whose pixels of mode "I" end at 65535
_ANIMATED = {"AVIF", "GIF", "PNG", "TIFF", "WEBP"}  # others hold layers, sizes or gain maps beside the picture
MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Largest picture or frame, in pixels: 178,956,970, Pillow's own limit."""

DAMAGED = (
    *(OSError, SyntaxError, ValueError, Image.DecompressionBombError),
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, struct.error, zlib.error),
)
"""What Pillow's readers raise on damaged files, most of it by accident."""

_HEADER_BYTES = 65536
_UNKNOWN = "it is damaged or of an unknown format; fetch it again, or save it as JPEG or PNG"
_EXECUTED = {"EPS"}  # a program, which Pillow would give to Ghostscript
Formats = Mapping[str, Sequence[tuple[int, bytes]]]

FOREIGN_PICTURES: Formats = {
    "HEIC": ((4, b"ftyphei"), (4, b"ftyphev"), (4, b"ftypmif1"), (4, b"ftypmsf1")),
    "JPEG XL": ((0, b"\xff\x0a"), (0, b"\x00\x00\x00\x0cJXL ")),
    "a raw photo": ((8, b"CR\x02\x00"), (4, b"ftypcrx"), (0, b"FUJIFILMCCD-RAW")),
    "a PDF": ((0, b"%PDF"),),
    "an SVG drawing": ((0, b"<svg"), (0, b"<?xml")),
}
"""Formats that cannot be read here, each with the bytes that mark it and their places in the file."""

_UNREADABLE: Formats = {
    "a damaged or truncated AVIF": ((4, b"ftypavif"), (4, b"ftypavis")),
    "a video, of which one frame is needed": (
        *((4, b"ftyp"), (4, b"moov"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "), (0, b"FLV"), (0, b"\x00\x00\x01\xba")),
        (0, b"0&\xb2u"),
    ),
}


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


def note_cut(where: object, frame: np.ndarray, height: int, width: int) -> None:
    """Print a note if `fit_image` loses much of a frame."""
    source_height, source_width = frame.shape[:2]
    scale = min(source_height / height, source_width / width)
    lost = 1 - scale**2 * height * width / (source_height * source_width)
    if lost > MUCH_CUT_AWAY:
        note(
            where,
            f"is {source_width} x {source_height}: {lost:.0%} of it is cut away around its middle for "
            f"{width} x {height}; crop or pad it to keep what matters",
        )


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read any image that Pillow knows as uint8 [H, W, 3] sRGB; a note names changes.

    The image is turned upright by its EXIF, transparency becomes white, 16 bits are reduced to 8, and the colours of
    another profile are converted (littleCMS).

    Raises:
        MediaError: If the file is missing, not an image, or truncated.
    """
    picture, changed = decode_image(Path(path))
    if changed:
        note(path, changed)
    return picture


def decode_image(path: Path) -> tuple[np.ndarray, str]:
    """Read an image as `read_image` does, but return the text of the note ("" for none) instead of printing it.

    Raises:
        MediaError: As for `read_image`.
    """
    check_file(path, "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # phones take pictures of this size
            image = Image.open(path, formats=readable_formats())
        with image:
            _check_kind(image)
            several = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
            image.load()
            turned = image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
            colours = stated_otherwise(image, _start(path))
            picture, converted = to_rgb(ImageOps.exif_transpose(image))
    except DAMAGED as error:
        reason = _UNKNOWN if isinstance(error, UnidentifiedImageError) else one_line(error)
        reason = foreign_format(path, {**FOREIGN_PICTURES, **_UNREADABLE}) or reason
        raise MediaError(f"{path}: not a readable image ({reason})") from error
    changes = [
        f"holds {several} pictures, of which the first is read" if several > 1 else "",
        "is turned upright by its EXIF" if turned else "",
        converted or colours,
    ]
    return picture, "; ".join(change for change in changes if change)


def _start(path: Path) -> bytes:
    """First bytes of a file, which hold what a picture states about itself."""
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _check_kind(image: Image.Image) -> None:
    """Refuse a raw photo, of which Pillow would read the preview, and pixels without a range."""
    tags = getattr(image, "tag_v2", {})
    if _DNG_VERSION in tags:
        raise ValueError("it is a raw photo, DNG; save it as JPEG or PNG")
    if image.format == "TIFF" and tags.get(_SUBFILE_TYPE, 0) & 1:
        raise ValueError("it begins with a preview, as raw photos do; save it as JPEG or PNG")
    if image.mode == "I" and image.format not in _RANGE_KNOWN:
        raise ValueError("32-bit pixels, whose range is not known; save it with 8 or 16 bits")


@cache
def readable_formats() -> tuple[str, ...]:
    """Names of the formats that Pillow decodes by itself."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _EXECUTED))


def foreign_format(path: Path, formats: Formats) -> str:
    """Name of a file's format among `formats`, and advice for it; "" if its first bytes fit none."""
    with path.open("rb") as file:
        start = file.read(32)
    for name, marks in formats.items():
        if any(start[place:].startswith(mark) for place, mark in marks):
            return f"it is {name}; save it as JPEG or PNG"
    return ""


def write_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as PNG.

    Raises:
        WriteError: If the file cannot be written; nothing is left behind.
    """
    with replacing(Path(path)) as partial:
        Image.fromarray(image).save(partial, format="PNG")


def check_file(path: Path, what: str) -> None:
    """Refuse a path without a file to decode; `what` is expected there, with its article.

    Raises:
        MediaError: If the file is missing, a folder, empty, or not the content that was to be fetched.
    """
    if path.is_dir():
        raise MediaError(f"{path}: is a folder, expected {what}")
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    if problem := no_content(path):
        raise MediaError(f"{path}: {problem}")


def to_rgb(image: Image.Image) -> tuple[np.ndarray, str]:
    """Convert an image of any mode to uint8 [H, W, 3] sRGB; also return a text on changes to its colours ("": none).

    Raises:
        ValueError: For pixels whose range is not known.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    image, converted = to_srgb(image, profile)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB")), converted
