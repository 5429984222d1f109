"""Folders to write to, files that appear whole or not at all, and tensors read back from them."""

import os
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


def make_folder(name: str, folder: Path) -> Path:
    """Make a folder, and find out before anything expensive whether it can be written to.

    Raises:
        ValueError: naming `name`, when it cannot be made or written to.
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
    """Give a path to write to; move it onto `path` when all went well, remove it otherwise.

    Raises:
        WriteError: when the system refuses.
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
        OSError: when it cannot be read (SafetensorError: when it is damaged).
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        # Copies: in the file tensors lie at odd addresses, where products differ in their last bits.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
