"""What run.json says: the names in it, and of a method what its configuration alone does not."""

import pytest

from benchmark.planning.methods import METHODS
from benchmark.stages.describe import adapter_mib, describe_method, describe_metric, describe_run
from benchmark.store.folder import SCHEMA_VERSION
from reports import run_folder
from tests.support.harness import CASES, quick_flexiact, small_perception

MIB = 1024.0**2
NAMES = {
    "run": "schema_version suite suite_version suite_digest seeds fit_seeds backbone truth methods metrics cases",
    "backbone": (
        "name revision dtype num_frames height width fps max_text_tokens num_inference_steps guidance_scale "
        "num_parameters"
    ),
    "method": (
        "kind version method_id uses_reference summary extra_supervision adapter_mib fit_config transfer_config"
    ),
    "bound": "kind version summary extra_supervision sampled fit_config transfer_config",
    "metric": "version unit higher_is_better bounds needs summary headline backend",
    "case": (
        "action wrong_action reference_id target_id caption prompt licence source left_out_share reference_rig "
        "target_rig axes terciles digests"
    ),
}


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


def test_the_names_in_run_json_are_those_of_its_schema_version(backbone) -> None:
    """Another name here means another schema: raise `SCHEMA_VERSION`, in `reports.run_folder` as well."""
    methods = {"flexiact": METHODS["flexiact"].build(backbone)}
    metrics = {"pck": describe_metric("pck", small_perception().backends, "pck")}
    suite = {"suite": "small", "suite_version": 1, "suite_digest": None}
    run = describe_run(suite, CASES, (0,), backbone, methods, metrics)
    parts = {
        "run": run,
        "backbone": run["backbone"],
        "method": run["methods"]["flexiact"],
        "bound": run["methods"]["still"],
        "metric": run["metrics"]["pck"],
        "case": run["cases"][CASES[0].case_id],
    }
    assert {part: set(entry) for part, entry in parts.items()} == {part: set(NAMES[part].split()) for part in NAMES}
    assert SCHEMA_VERSION == run_folder.SCHEMA_VERSION == 4  # what is written is what reports read
