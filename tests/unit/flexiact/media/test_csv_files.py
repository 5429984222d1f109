"""Numbers of tables, as programs and spreadsheets write them."""

import pytest

from flexiact.media.csv_files import whole


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("49", 49),
        ("49.0", 49),
        ("49,0", 49),
        ("007", 7),
        *((t, None) for t in ("1.000", "1,048", "4.5", "", "-1", "\u00b2")),
    ],
)
def test_a_number_with_thousands_is_not_taken_for_a_small_one(text: str, number: int | None) -> None:
    assert whole(text) == number
