"""The published table of the large actions, and what it has to show."""

import csv
from pathlib import Path

import pytest

from flexiact.puppets.cards import large_actions
from flexiact.puppets.cards.large_actions import distance_table, limb_share, pixel_energy
from flexiact.puppets.world.actions import TEST_ACTIONS, Motion

PUBLISHED = Path(large_actions.__file__).with_suffix(".csv")
ROWS = list(csv.DictReader(PUBLISHED.read_text().splitlines()))
NAMES = [row["action"] for row in ROWS]


def test_the_table_is_of_all_large_actions() -> None:
    assert NAMES == list(large_actions.large_actions())
    assert [row["action"] for row in ROWS if row["pool"] == "test"] == [n for n in NAMES if n in TEST_ACTIONS]
    assert [sum(row["pool"] == pool for row in ROWS) for pool in ("test", "development")] == [24, 12]


def test_the_table_shows_the_distances() -> None:
    found = distance_table()
    for row in ROWS:
        assert [float(row[name]) for name in NAMES] == pytest.approx(list(found[row["action"]].values()), abs=0.0051)


def test_all_large_actions_are_half_a_movement_apart() -> None:
    found = distance_table()
    assert min(d for a, row in found.items() for b, d in row.items() if a != b) >= 0.5


def test_limbs_carry_half_of_most_test_actions() -> None:
    assert sum(float(row["limb_share"]) >= 0.5 for row in ROWS if row["pool"] == "test") >= 16


@pytest.mark.parametrize("name", ["jump", "pounce", "clap", "bounce"])
def test_the_table_shows_the_limbs_share(name: str) -> None:
    (row,) = [row for row in ROWS if row["action"] == name]
    assert float(row["limb_share"]) == pytest.approx(limb_share(large_actions.large_actions()[name]), abs=0.02)


def test_what_does_not_move_has_no_energy_and_more_movement_has_more() -> None:
    still, little, much = (pixel_energy((Motion("hop", "rise", amount),)) for amount in (0.0, 0.1, 1.0))
    assert still == 0 < little < much
