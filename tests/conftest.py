"""Fixtures that several test modules share."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # `tests.backbones`, whatever the import mode

from flexiact.backbone import Backbone  # noqa: E402
from flexiact.task import Video  # noqa: E402
from tests.backbones import HEIGHT, WIDTH, save_tiny_refadapter, tiny_backbone  # noqa: E402


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """A fresh tiny backbone with a RefAdapter."""
    plain = tiny_backbone()
    return tiny_backbone(refadapter=save_tiny_refadapter(tmp_path / "refadapter", plain))


def random_frames(seed: int, num_frames: int = 9, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Uint8 noise [T, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def reference() -> Video:
    """A clip of the tiny backbone's size."""
    return Video(random_frames(1), 8.0)


@pytest.fixture
def target() -> np.ndarray:
    """An image of the tiny backbone's size."""
    return random_frames(2, num_frames=1)[0]
