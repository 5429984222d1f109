"""SHA-256 digests of files, folders and JSON values, on which keys of results rest."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from flexiact.media.files import is_clutter

BACKBONE_FIT_FIELDS = ("revision", "num_frames", "height", "width", "fps", "max_text_tokens", "dtype")
"""Fields of a backbone that a fit depends on: part of the key of every fit, wherever it is kept."""


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value: sorted keys, no spaces, ASCII, tuples as lists.

    Raises:
        ValueError: If `value` holds something that JSON cannot represent (NaN, a path, a tensor).
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"not JSON: {error}") from error


def json_digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:  # read in parts, because a file of a large model may exceed the memory
        return hashlib.file_digest(stream, "sha256").hexdigest()


MODEL_SUFFIXES = (".safetensors", ".json", ".model", ".txt")
"""Suffixes of weights, settings, and what tokenizers read: `spiece.model`, `vocab.txt`, `merges.txt`."""


def folder_digest(folder: Path, suffixes: Collection[str] = MODEL_SUFFIXES) -> str:
    """SHA-256 (64 hex digits) over the names and bytes of all files with these suffixes below a folder.

    Files that systems add to folders (`is_clutter`) do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes):
        name = path.relative_to(folder)
        if not any(is_clutter(Path(part)) for part in name.parts):
            digest.update(f"{name.as_posix()} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def weights_digest(folder: Path) -> str | None:
    """SHA-256 over names and bytes of all safetensors files below a folder; None if there are none."""
    return folder_digest(folder, [".safetensors"]) if any(folder.rglob("*.safetensors")) else None
