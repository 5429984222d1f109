"""Make folders, write files atomically, and read texts and tensors."""

import codecs
import errno
import filecmp
import os
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


TEXT_LIMIT_MIB = 16
"""Size from which on a text file is refused: tables and prompts are far smaller."""


class MediaError(ValueError):
    """A video or image that cannot be read; the message is one line and names the file."""


class WriteError(ValueError):
    """A file that cannot be written; the message is one line and names it."""


def is_clutter(path: Path) -> bool:
    """True for files that systems add to users' folders: hidden ones, `._NAME` on Macs, thumbnails."""
    return path.name.startswith(".") or path.name.lower() in {"thumbs.db", "desktop.ini", "icon\r", "__macosx"}


def read_text(path: Path) -> str:
    """Read a text file: UTF-16 if it begins with that byte order mark, otherwise UTF-8; the mark is left out.

    Raises:
        OSError: If the file cannot be read, or is larger than `TEXT_LIMIT_MIB` (UnicodeDecodeError: if it has neither
            encoding).
    """
    content = limited_bytes(path, TEXT_LIMIT_MIB)
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")


def limited_bytes(path: Path, most_mib: int) -> bytes:
    """Content of a file of at most so many MiB.

    Raises:
        OSError: If the file cannot be read or is larger.
    """
    with path.open("rb") as file:
        content = file.read(most_mib * 2**20 + 1)
    if len(content) > most_mib * 2**20:
        raise OSError(errno.EFBIG, f"larger than {most_mib} MiB", str(path))
    return content


def is_file(path: Path) -> bool:
    """True if there is a file; False also for a path that no file can have, such as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def spelled(root: Path, written: str) -> str:
    """Find the spelling on disk of a relative path from a table: as written, or with other slashes or accents.

    Windows separates with backslashes; Macs store an accent as a separate character.
    """
    slashed = written.replace("\\", "/")
    spellings = [written, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return next((spelling for spelling in spellings if is_file(root / spelling)), slashed)


def make_folder(name: str, folder: Path) -> Path:
    """Make a folder and check that it can be written to, before any expensive work.

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
def replacing(path: Path, keeps_equal: bool = False) -> Iterator[Path]:
    """Yield a path to write to; move the file to `path` on success, remove it otherwise.

    With `keeps_equal` a file is left alone that already has this content.

    Raises:
        WriteError: If the file cannot be written.
    """
    # Machines that share a folder may write the same file, and have equal process ids.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if not (keeps_equal and path.is_file() and filecmp.cmp(partial, path, shallow=False)):
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
        # Copied, because tensors at odd addresses in the file would give products with other last bits.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
