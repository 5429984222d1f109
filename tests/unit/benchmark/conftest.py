"""Fixtures of several files of this folder."""

from collections.abc import Iterator

import pytest

from flexiact.backbone.backbone import Backbone
from tests.support.harness import quick_flexiact
from tests.support.tiny_methods import new_backbone


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbone]:
    """A tiny backbone with all weights, while FlexiAct's fits on it are quick."""
    with pytest.MonkeyPatch.context() as patch:
        quick_flexiact(patch)
        yield new_backbone(tmp_path_factory.mktemp("backbone"))
