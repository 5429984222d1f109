"""What run.json says of a method that its configuration alone does not."""

import pytest

from benchmark.describe import adapter_mib, describe_method
from benchmark.methods import METHODS
from tests.support.harness import quick_flexiact

MIB = 1024.0**2


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_flexiact(monkeypatch)


def test_a_method_that_loads_refadapter_says_how_large_it_is(backbone) -> None:
    weights = (backbone.refadapter / "adapter_model.safetensors").stat().st_size
    sizes = {
        name: describe_method(name, METHODS[name].build(backbone), backbone)["adapter_mib"]
        for name in ("flexiact", "flexiact-no-refadapter", "i2v")
    }
    assert sizes == {"flexiact": weights / MIB, "flexiact-no-refadapter": 0.0, "i2v": 0.0}


def test_only_folders_of_the_backbone_count(backbone) -> None:
    config = {"refadapter": None, "name": "a digest", "num_frames": 3, "estimator": "mmpose-1"}
    assert adapter_mib(backbone, config) == 0
    assert adapter_mib(backbone, config | {"refadapter": "a digest"}) > 0
