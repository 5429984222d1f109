"""Make folders, write files atomically, and read texts and tensors."""

import codecs
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class MediaError(ValueError):
    """A video or image that cannot be read; the message is one line and names the file."""


class WriteError(ValueError):
    """A file that cannot be written; the message is one line and names it."""


def is_clutter(path: Path) -> bool:
    """Whether a file is one that systems leave beside those of users: hidden ones, `._NAME` of Macs, thumbnails."""
    return path.name.startswith(".") or path.name.lower() in {"thumbs.db", "desktop.ini", "icon\r", "__macosx"}


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 where it begins with the byte order mark of that; the mark is left out.

    Raises:
        OSError: If it cannot be read (UnicodeDecodeError: when it is neither).
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def spelled(root: Path, written: str) -> str:
    """A path inside a folder as a table means it: as written, or with the slashes and accents that are on disk.

    Windows separates by backslashes; Macs write an accent as a letter of its own.
    """
    slashed = written.replace("\\", "/")
    spellings = [written, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return next((spelling for spelling in spellings if (root / spelling).is_file()), slashed)


def make_folder(name: str, folder: Path) -> Path:
    """Make a folder, and check before any expensive work that it can be written to.

    Raises:
        ValueError: If the folder cannot be made or written to; the message begins with `name`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name}: no folder can be made at {folder} ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: {folder} cannot be written to")
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; move the file to `path` on success, remove it otherwise.

    Raises:
        WriteError: If the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Tensors and header of a safetensors file.

    Raises:
        OSError: If the file cannot be read (SafetensorError: if it is damaged).
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        # Copies, because tensors lie at odd addresses in the file, where products differ in their last bits.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
