"""Folders to write to, and tensors read back from files."""

import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        OSError: when it cannot be read (SafetensorError: when it is damaged).
    """
    with safe_open(path, "pt") as file:
        # Copies: in the file tensors lie at odd addresses, where products differ in their last bits.
        return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
