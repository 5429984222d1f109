"""How the tests are spread over processes, what none may leave behind, and fixtures that several modules share."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, settings

from benchmark.planning.methods import METHODS
from benchmark.workers.local import physical_cores
from flexiact.backbone.backbone import Backbone
from flexiact.method import PRESETS
from flexiact.task import Video
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone

# A core that is shared makes an example slow, not wrong.
settings.register_profile("shared cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared cores")

_PROCESS_BYTES = 2 * 2**30
"""Room for one process and those that its tests start; most take about 1 GiB."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: a process a core, as far as memory goes."""
    return max(1, min(physical_cores(), psutil.virtual_memory().available // _PROCESS_BYTES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin, then those with many: what several processes end with should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    size = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -size[item.path]))


@pytest.fixture(autouse=True)
def tables_are_left_as_they_were() -> Iterator[None]:
    """What one test adds for itself must not reach the next ones, whichever those are."""
    before = dict(PRESETS), dict(METHODS)
    yield
    assert (PRESETS, METHODS) == before, "a test left a preset or a method behind"


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
