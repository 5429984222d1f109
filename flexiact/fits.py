"""Cache of fits on disk; the key is a digest of everything that a fit depends on, and of nothing else."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save

from flexiact.media.digests import BACKBONE_FIT_FIELDS
from flexiact.media.files import make_folder, replacing
from flexiact.media.seals import SealError, read_sealed_tensors, sealed_tensors
from flexiact.media.video import frames_digest
from flexiact.method import FlexiAct
from flexiact.resuming import FitCheckpoints, resumable
from flexiact.task import Action, Video


def fit_description(method: FlexiAct, reference: Video, caption: str, seed: int) -> dict[str, Any]:
    """Everything that a fit to a reference of the backbone's size and length depends on, as JSON."""
    backbone = {name: getattr(method.backbone, name) for name in BACKBONE_FIT_FIELDS}
    return {
        "method": method.method_id,
        "version": method.version,
        "config": method.fit_config(),
        "backbone": backbone | {"dtype": str(method.backbone.dtype)},
        "reference": frames_digest(reference),
        "caption": caption,
        "seed": seed,
    }


@dataclass(frozen=True)
class FitFolder:
    """A folder with one file per fit, named by the digest of all that the fit depends on."""

    path: Path

    def check(self) -> None:
        """Check, before anything expensive, that fits can be stored here.

        Raises:
            ValueError: If the folder cannot be made or written to.
        """
        make_folder("cache", self.path)

    def file(self, name: str) -> Path:
        """Path to a fit, which need not exist."""
        return self.path / f"{name}.safetensors"

    def resumable(self, name: str) -> AbstractContextManager[FitCheckpoints]:
        """Keep checkpoints of a long fit beside its file while it is made."""
        return resumable(self.path / f"{name}.partial")

    def load(self, name: str) -> tuple[Action, dict[str, str]] | None:
        """A fit and its header; None if it is missing or its file is damaged, so that it is made again.

        Raises:
            OSError: If the file is there but cannot be read.
        """
        try:
            return read_sealed_tensors(self.file(name))
        except (FileNotFoundError, SafetensorError, SealError):
            return None

    def save(self, name: str, action: Action, header: Mapping[str, str]) -> None:
        """Store a fit; its file appears whole or not at all.

        Raises:
            WriteError: If it cannot be written.
        """
        with replacing(self.file(name)) as partial:
            partial.write_bytes(sealed_tensors(save(dict(action), metadata=dict(header))))
