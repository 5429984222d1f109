"""Numbers as tables, figures and page write them."""

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.run_folder import StoredRun
from reports.tables.cells import Interval, Number, Share
from reports.tables.formats import cell_text, halves
from reports.wording import (
    count,
    duration,
    gib,
    is_variant,
    mib,
    number,
    parameters,
    percent,
    probability,
    seconds,
    signed,
    suite_name,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(0.4716), "0.472"),
        (number(-0.0575), "−0.058"),
        (number(33.14), "33.1"),
        (signed(0.4716), "+0.472"),
        (number(-0.0001), "0.000"),
        (signed(-0.0001), "+0.000"),
        (number(math.nan), "–"),
        (probability(0.0083), "0.008"),
        (probability(0.00049), "<0.001"),
        (probability(math.nan), "–"),
        (seconds(0.0), "0 s"),
        (seconds(7.465), "7.46 s"),
        (seconds(10.6), "11 s"),
        (seconds(150.0), "2.5 min"),
        (seconds(math.inf), "–"),
        (duration(0.0123), "12.3 ms"),
        (duration(2.0), "2.00 s"),
        (gib(1.3456), "1.35 GiB"),
        (gib(140.4), "140 GiB"),
        (mib(0.0), "0 MiB"),
        (percent(0.125), "12%"),
        (count(1, "case"), "1 case"),
        (count(2, "entry", "entries"), "2 entries"),
        (parameters(3_281_216), "3.28 M parameters"),
        (parameters(5.6e9), "5.6 B parameters"),
    ],
)
def test_a_number_reads_as(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("cell", "first", "second"),
    [
        (Number(0.5, -0.1, 0.75), "0.500", "[−0.100, 0.750]"),
        (Number(0.5, -0.1, 0.75, signed, videos=3), "+0.500", "[−0.100, +0.750] (3)"),
        (Number(0.5), "0.500", ""),
        (Number(math.nan), "–", ""),
        (Interval(-0.1, 0.75), "[−0.100, 0.750]", ""),
        (Interval(math.nan, math.nan), "", ""),
        (Share(0.5, 4), "50% of 4", ""),
        (Share(math.nan, 0), "–", ""),
        ((Number(0.25, write=mib), Number(2.0, write=mib)), "0.25 MiB + 2.00 MiB", ""),
        (12, "12", ""),
        ("0.5 [words]", "0.5 [words]", ""),
    ],
)
def test_a_cell_reads_as(cell, first: str, second: str) -> None:
    assert halves(cell) == (first, second)
    assert cell_text(cell) == f"{first} {second}".strip()


def test_a_heading_tells_editions_of_a_suite_apart() -> None:
    def run(**info) -> StoredRun:
        return StoredRun(Path(), {"suite": "puppets", **info}, pd.DataFrame(), pd.DataFrame(), ())

    assert suite_name(run(suite_version=2, suite_digest="0123456789abcdef")) == "puppets version 2 (01234567)"
    assert suite_name(run(suite_version=None, suite_digest=None)) == suite_name(run()) == "puppets"


@given(st.floats(-9.9, 9.9))
def test_three_decimals_lose_less_than_half_of_the_last(value: float) -> None:
    written = float(number(value).replace("−", "-"))
    assert abs(written - value) <= 0.0005 + 1e-12
    assert number(value) == signed(value).removeprefix("+")


def test_a_variant_s_name_goes_on_from_another_one() -> None:
    names = ["flexiact", "flexiact-no-schedule", "i2v+dtype", "flexiact2"]
    assert [name for name in names if is_variant(name, names)] == ["flexiact-no-schedule"]
    assert is_variant("i2v+dtype", ["i2v"])
