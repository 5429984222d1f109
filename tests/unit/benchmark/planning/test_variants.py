"""Variants: what their names mean, what they change, and what they share with the method they are made of."""

from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError
from benchmark.planning.variants import entry_of, named, variant_name
from flexiact.backbone.backbone import Backbone
from tests.support.backbones import save_tiny_refadapter, tiny_backbone
from tests.support.harness import quick_flexiact, session


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny_backbone(refadapter=save_tiny_refadapter(tmp_path_factory.mktemp("refadapter"), tiny_backbone()))


def test_a_name_lists_its_settings_in_order() -> None:
    assert variant_name(["flexiact.schedule.alpha=2", "flexiact.fit_steps=75"]) == (
        "flexiact[fit_steps=75,schedule.alpha=2]"
    )
    settings = {"schedule": None, "animate": True, "fit_steps": 1}
    assert named("smm", settings) == "smm[animate=true,fit_steps=1,schedule=none]"
    assert named("smm", {}) == "smm"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["flexiact"], "expected METHOD.SETTING=VALUE"),
        (["flexiact.fit_steps="], "expected METHOD.SETTING=VALUE"),
        (["flexiact.fit_steps=[1]"], "expected METHOD.SETTING=VALUE"),
        (["flexact.fit_steps=1"], "did you mean 'flexiact'"),
        (["flexiact.fit_steps=1", "smm.block=1"], "one method, got flexiact, smm"),
        (["flexiact.fit_steps=1", "flexiact.fit_steps=2"], "given twice"),
    ],
)
def test_a_name_that_cannot_be_made_says_why(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace(".", r"\.")):
        variant_name(texts)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("flexiact[schedule.shape=hard]", {"schedule.shape": "hard"}),
        ("flexiact[schedule.alpha=3]", {"schedule.alpha": 3.0}),
        ("flexiact[schedule=none]", {"schedule": None}),
        ("flexiact[refadapter_weight=0.25]", {"refadapter_weight": 0.25}),
        ("flexiact[fit_steps=7,num_inference_steps=3]", {"fit_steps": 7, "num_inference_steps": 3}),
        ("motion_director[animate=true]", {"animate": True}),
        ("motion_inversion[fit_steps=x0.5,learning_rate=x2]", {"fit_steps": 75, "learning_rate": 0.04}),
        ("ditflow[optimise=rotary,block=1]", {"optimise": "rotary", "block": 1}),
    ],
)
def test_a_variant_changes_what_it_says(name: str, changed: dict, whole: Backbone) -> None:
    base, variant = entry_of(name.partition("[")[0]).build(whole), entry_of(name).build(whole)
    settings = [flat(asdict(made.config.fit) | asdict(made.config.transfer)) for made in (base, variant)]
    # An absent schedule takes its settings with it.
    gone = (
        {key for key in settings[0] if key.startswith("schedule.")} - {"schedule"} if "schedule" in changed else set()
    )
    different = {key for key in settings[0] | settings[1] if settings[0].get(key) != settings[1].get(key)}
    assert different == (set(changed) - {"schedule"}) | gone
    assert all(settings[1][key] == value for key, value in changed.items())


def flat(config: dict, before: str = "") -> dict:
    found = {}
    for key, value in config.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flexiact[alfa=2]", "did you mean 'schedule.alpha'|unknown setting of flexiact 'alfa'"),
        ("flexiact[fit_steps=1.5]", "fit_steps: expected a whole number, got 1.5"),
        ("flexiact[fit_steps=0]", "fit_steps: expected an integer of 1 or more, got 0"),
        ("flexiact[schedule.shape=round]", "schedule.shape: expected cosine or linear"),
        ("flexiact[schedule.low=900]", "schedule.low: expected at most high"),
        ("flexiact[schedule=cosine]", "schedule: expected .* or none, got cosine"),
        ("flexiact[schedule.alpha=nan]", "schedule.alpha: expected a number, got nan"),
        ("flexiact[schedule.alpha=-inf]", "schedule.alpha: expected a number, got -inf"),
        ("flexiact[learning_rate=1e999]", "learning_rate: expected a number, got 1e999"),
        (f"flexiact[fit_steps=x{'9' * 400}]", "fit_steps: expected a whole number, got x99"),
        ("motion_director[animate=yes]", "animate: expected true or false, got yes"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, said: str, whole: Backbone) -> None:
    with pytest.raises(ValueError, match=said):
        entry_of(name).build(whole)


def test_a_method_without_settings_says_so(whole: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "fixed", replace(METHODS["i2v"], build=lambda backbone: object()))
    with pytest.raises(ValueError, match="fixed: it has no settings"):
        entry_of("fixed[nothing=1]").build(whole)


def test_variants_that_differ_at_transfer_share_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_flexiact(monkeypatch)
    backbone = tiny_backbone()
    names = ("base-embedding", "base-embedding[guidance_scale=2]", "base-embedding[fit_steps=3]")
    session(tmp_path, backbone, methods=names)
    samples = pd.read_parquet(tmp_path / "samples.parquet")
    fits = samples.dropna(subset="fit_key").groupby("method")["fit_key"].first()
    assert fits[names[0]] == fits[names[1]] != fits[names[2]]
    assert set(samples[samples["method"].isin(names)]["status"]) == {"ok"}
