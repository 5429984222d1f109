"""A setting that is added later changes no key while it has the value that changes nothing."""

from flexiact.batches import FitConfig
from flexiact.recorded import NEUTRAL, recorded
from flexiact.train_refadapter.configs import RefAdapterConfig


def test_results_from_before_a_setting_are_found():
    for config, name in ((FitConfig, "initial_std"), (RefAdapterConfig, "identity_weight")):
        assert name not in recorded(config(**{name: 0.0}))  # whatever the default becomes
        assert recorded(config(**{name: 0.1}))[name] == 0.1
        assert recorded(config(**{name: 0.0})).items() < vars(config(**{name: 0.0})).items()


def test_neutral_values_never_change():
    assert NEUTRAL == {"initial_std": 0.0, "identity_weight": 0.0}
