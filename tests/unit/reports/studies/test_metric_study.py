"""Order and fall of metrics under corruptions, by hand."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.studies.metric_study import belief_of, publish, study_table


def values_of(courses: dict[tuple[str, str, str], list[float]]) -> pd.DataFrame:
    """Rows from courses over grades 0, .5 and 1 by metric, reference and corruption; grade 0 is stored once."""
    rows = []
    for (metric, reference, corruption), course in courses.items():
        for grade, value in zip((0.0, 0.5, 1.0), course, strict=True):
            rows.append((f"case-{reference}", reference, corruption if grade else "none", grade, metric, value))
    columns = ["case_id", "reference_id", "corruption", "grade", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates(["case_id", "corruption", "grade", "metric"])


COURSES = {
    ("sharpness", "a", "blur"): [1.0, 0.5, 0.0],
    ("sharpness", "b", "blur"): [0.8, 0.9, 0.2],
    ("sharpness", "a", "freeze"): [1.0, 1.0, 1.0],
    ("sharpness", "b", "freeze"): [0.8, 0.8, 0.7],
    ("error", "a", "blur"): [2.0, 3.0, 2.5],
    ("error", "a", "freeze"): [2.0, 4.0, 8.0],
}


def slow_tau(course: list[float]) -> float:
    """Kendall's tau-b of values that should fall, pair by pair."""
    pairs = [np.sign(first - second) for first, second in combinations(course, 2)]
    untied = sum(pair != 0 for pair in pairs)
    return sum(pairs) / np.sqrt(len(pairs) * untied) if untied else 0.0


def test_order_and_fall_equal_the_slow_ones():
    table = study_table(values_of(COURSES), {"sharpness": True, "error": False, "amount": None})
    found = table.set_index(["metric", "corruption"])
    assert set(table["metric"]) == {"sharpness", "error"}
    blur = [slow_tau(COURSES["sharpness", reference, "blur"]) for reference in "ab"]
    assert found.loc[("sharpness", "blur"), "order"] == pytest.approx(np.mean(blur))
    assert found.loc[("sharpness", "freeze"), "order"] == pytest.approx(slow_tau([0.8, 0.8, 0.7]) / 2)
    # Mean falls: blur (1 + .6) / 2, freeze (0 + .1) / 2; the largest is 1.
    assert found.loc["sharpness"]["fall"].to_dict() == pytest.approx({"blur": 1.0, "freeze": 0.05 / 0.8})
    assert found.loc["error"]["fall"].to_dict() == pytest.approx({"blur": 0.5 / 6, "freeze": 1.0})
    assert found.loc[("error", "freeze"), ["order", "at_truth", "at_worst"]].tolist() == pytest.approx([1.0, 2.0, 8.0])


def test_what_is_noticed_needs_order_and_fall():
    rows = pd.DataFrame({"corruption": list("abcd"), "order": [0.9, 0.9, 0.3, 1.0], "fall": [0.3, 0.05, 0.9, 1.0]})
    assert belief_of(rows) == (["d", "a"], ["b"])


def test_a_metric_that_never_moves_is_blind_to_everything():
    courses = {("constant", reference, name): [0.5] * 3 for reference in "ab" for name in ("blur", "freeze")}
    table = study_table(values_of(courses), {"constant": True})
    assert belief_of(table) == ([], ["blur", "freeze"])
    courses["constant", "a", "blur"] = [0.5, 0.6, 0.7]  # rewarded: no share of a fall can be given
    assert belief_of(study_table(values_of(courses), {"constant": True})) == ([], ["freeze"])


def test_the_page_holds_the_numbers_and_is_the_same_every_time(tmp_path: Path):
    study: dict[str, Any] = {
        "suite": "tiny",
        "grades": 2,
        "command": "python -m benchmark.study",
        "corruptions": {name: {"summary": f"it is {name}", "harms": "looks"} for name in ("blur", "freeze")},
        "metrics": {"sharpness": True, "error": False},
        "facts": {"suite": "tiny <1>"},
    }
    first, second = (publish(values_of(COURSES), study, tmp_path / name) for name in "ab")
    text = first.read_text()
    assert "| sharpness | blur |" in text.replace("| blur, ", "| blur |") and "tiny" in text
    for path in sorted(first.parent.iterdir()):
        assert path.read_bytes() == (second.parent / path.name).read_bytes()
    stored = pd.read_csv(first.parent / "metric-study.csv")
    pd.testing.assert_frame_equal(
        stored, study_table(values_of(COURSES), study["metrics"]), check_dtype=False, atol=1e-6
    )
