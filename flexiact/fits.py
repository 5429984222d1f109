"""Fits on disk: found again by everything that they depend on, and by nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from flexiact.media.files import make_folder, read_tensors, replacing
from flexiact.media.video import frames_digest
from flexiact.method import FlexiAct
from flexiact.task import Action, Video

BACKBONE_FIELDS = ("revision", "num_frames", "height", "width", "max_text_tokens")
"""Of the backbone: what a fit depends on, the type of its numbers aside."""


def fit_description(method: FlexiAct, reference: Video, caption: str, seed: int) -> dict[str, Any]:
    """Everything a fit depends on, as JSON takes it.

    Args:
        method: Method on its backbone.
        reference: Reference at the backbone's size and length, as `fit` gets it.
        caption: Caption of the reference.
        seed: Seed of the fit.
    """
    backbone = {name: getattr(method.backbone, name) for name in BACKBONE_FIELDS}
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
    """One file a fit, found by a name that is a digest of all that the fit depends on.

    Attributes:
        path: Path to the folder.
    """

    path: Path

    def check(self) -> None:
        """Find out, before anything expensive, whether fits can be kept here.

        Raises:
            ValueError: If the folder cannot be made or written to.
        """
        make_folder("cache", self.path)

    def file(self, name: str) -> Path:
        """Where a fit is, or would be."""
        return self.path / f"{name}.safetensors"

    def load(self, name: str) -> tuple[Action, dict[str, str]] | None:
        """A fit and its header, None when there is none or its file is damaged (then it is made again)."""
        try:
            return read_tensors(self.file(name))
        except (OSError, SafetensorError):
            return None

    def save(self, name: str, action: Action, header: Mapping[str, str]) -> None:
        """Keep a fit; its file appears whole or not at all.

        Raises:
            WriteError: If it cannot be written.
        """
        with replacing(self.file(name)) as partial:
            save_file(dict(action), partial, metadata=dict(header))
