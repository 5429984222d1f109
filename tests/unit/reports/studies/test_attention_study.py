"""Differences, verdicts and the page of a study of attention, by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.studies.attention_study import (
    EMBEDDINGS,
    FEW,
    HOLDS,
    OPEN,
    QUESTIONS,
    REVERSED,
    answers,
    conclusion,
    publish,
    verdict,
)

TIMESTEPS = (999, 499, 199)  # one in each third
STUDY: dict[str, Any] = {
    "backbone": "tiny",
    "suite": "toys",
    "command": "python -m benchmark.study attention",
    "timesteps": 1000,
    "equal_share": 0.1,
    "definitions": {"inside": "where things move"},
    "facts": {"seed": "0"},
}


def tables(references: int, sign: float = 1.0, noise: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shares and settled energy whose differences, times `sign`, are those of the paper, and differ by reference."""
    draw = np.random.default_rng(0)
    shares, settled = [], []
    for number in range(references):
        case = (f"case-{number}", f"reference-{number}")
        for embedding in EMBEDDINGS:
            for step, timestep in enumerate(TIMESTEPS):
                row = (*case, embedding, step, timestep)
                early = (0.2, 0.1, 0.0)[step]
                for block in range(2):
                    extra = sign * (1 + 0.1 * number + noise * draw.normal())
                    # Block 1 counts as much as block 0: means are over both.
                    for region, share in (("inside", 0.3 + extra * early + 0.1 * block), ("outside", 0.3)):
                        shares.append((*row, block, region, share))
                    shares.append((*row, block, "still", 0.25 if number == 0 else np.nan))
                for content in ("time", "space"):
                    lead = sign * (0.2 + 0.01 * number + noise * draw.normal())
                    settled += [(*row, content, "low", 0.5 + lead), (*row, content, "high", 0.5)]
    first = ["case_id", "reference_id", "embedding", "step", "timestep"]
    return (
        pd.DataFrame(shares, columns=[*first, "block", "region", "share"]),
        pd.DataFrame(settled, columns=[*first, "content", "band", "settled"]),
    )


def verdicts(references: int, **options: float) -> list[str]:
    found = answers(*tables(references, **options), "fitted", 1000)
    return [verdict(item) for item, question in zip(found, QUESTIONS, strict=True) if question.part]


def test_differences_are_those_by_hand():
    found = answers(*tables(6), "fitted", 1000)
    slopes = 1 + 0.1 * np.arange(6)
    # Inside early: .3 + .2 slope and, in block 1, .1 more: mean .35 + .2 slope; late: .35; outside: .3.
    expected = [0.05 + 0.2 * slopes, 0.2 * slopes, 0.2 + 0.01 * np.arange(6), 0.2 * slopes, [0.1 + 0.2], None]
    expected[5] = expected[2]
    assert [item.mean for item in found] == pytest.approx([np.mean(values) for values in expected])
    assert [item.references for item in found] == [6, 6, 6, 6, 1, 6]
    # Student's interval of six values: 2.571 standard errors.
    reach = 2.5706 * np.std(0.2 * slopes, ddof=1) / np.sqrt(6)
    assert (found[1].low, found[1].high) == pytest.approx((0.25 - reach, 0.25 + reach), abs=1e-4)


def test_verdicts_follow_the_intervals():
    assert verdicts(6) == [HOLDS] * 3
    assert verdicts(6, sign=-1.0)[1:] == [REVERSED] * 2
    assert OPEN in verdicts(6, noise=9.0)
    assert verdicts(5) == [FEW] * 3


def test_the_conclusion_needs_every_part():
    assert "holds on it, in all of its 3 parts" in conclusion([HOLDS] * 3, "it")
    assert "is not shown on it: 2 of its 3 parts hold, 0 are reversed, 1 open" in conclusion([HOLDS, OPEN, HOLDS], "it")
    assert "does not hold on it: 1 of its 3 parts hold" in conclusion([HOLDS, OPEN, REVERSED], "it")
    assert "cannot be said" in conclusion([HOLDS, FEW, HOLDS], "it")


def test_the_page_says_what_the_numbers_say_and_is_the_same_every_time(tmp_path: Path):
    held, turned = (publish(*tables(6, sign=sign), STUDY, tmp_path / name) for sign, name in ((1, "a"), (-1, "b")))
    again = publish(*tables(6), STUDY, tmp_path / "c")
    assert "**The observation holds on tiny, in all of its 3 parts.**" in held.read_text()
    assert "does not hold on tiny" in turned.read_text()
    assert "The other verdicts are exploratory" in held.read_text()  # half of the verdicts are on no part of it
    assert "6 cases of 6 references, suite toys" in held.read_text()
    assert "+0.300 (1)" in held.read_text()  # still parts, in one case
    for path in sorted(held.parent.iterdir()):
        assert path.read_bytes() == (again.parent / path.name).read_bytes()
    stored = pd.read_csv(held.parent / "attention-shares.csv")
    pd.testing.assert_frame_equal(stored, tables(6)[0], check_dtype=False, atol=1e-5)
