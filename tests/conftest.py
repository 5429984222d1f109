"""Fixtures that several test modules share."""

from pathlib import Path

import numpy as np
import pytest

from flexiact.backbone.backbone import Backbone
from flexiact.task import Video
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """A fresh tiny backbone with a RefAdapter."""
    return tiny_backbone(refadapter=save_tiny_refadapter(tmp_path / "refadapter", tiny_backbone()))


@pytest.fixture
def reference() -> Video:
    """A clip of the tiny backbone's size."""
    return Video(random_frames(1), 8.0)


@pytest.fixture
def target() -> np.ndarray:
    """An image of the tiny backbone's size."""
    return random_frames(2, num_frames=1)[0]
