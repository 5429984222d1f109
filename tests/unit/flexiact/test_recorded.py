"""A setting that is added later changes no key while it has the value that changes nothing."""

from dataclasses import dataclass

from flexiact.batches import FitConfig
from flexiact.embedding import FrequencySchedule
from flexiact.recorded import later, recorded


@dataclass(frozen=True)
class Settings:
    schedule: FrequencySchedule
    rate: float = 0.5
    added: float = later(0.0)


def test_a_later_setting_is_recorded_once_it_differs():
    before = {"schedule": {"alpha": 2.0, "low": 700, "high": 800, "shape": "cosine"}, "rate": 0.5}
    assert recorded(Settings(FrequencySchedule(2.0))) == before
    assert recorded(Settings(FrequencySchedule(2.0), added=0.1)) == before | {"added": 0.1}


def test_fits_from_before_the_start_of_tokens_could_be_set_are_found():
    assert "initial_std" not in recorded(FitConfig())
    assert recorded(FitConfig(initial_std=1.0))["initial_std"] == 1.0
