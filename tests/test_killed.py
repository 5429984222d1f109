"""Killed at random moments and started again, a run is that of a run that was never killed.

`KILL_MOMENTS=50 python -m pytest tests/test_killed.py` kills more often than the default.
"""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.support.quick_help import ROOT

MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]
MOMENTS = int(os.environ.get("KILL_MOMENTS", "4"))


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * MOMENTS)
def test_killed_at_random_moments_nothing_is_lost_or_different(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tests.support.harm.killed_run", out, "--moments", str(MOMENTS), "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert (said[0], said[-1]) == ("ended with 0", "ended with 0"), done.stderr
    assert "killed" in said
    runs = [folder for folder in tmp_path.glob("run*") if (folder / "run.json").is_file()]
    logs = [(folder / "log.txt").read_text() for folder in runs]
    assert sum(log.count("  begins ") for log in logs) > len(runs), "no child came as far as its first video"
    assert not any("damaged" in log for log in logs)
    whole = out.with_name("run-whole")
    for folder in runs:
        for name in ("samples", "scores"):
            one, other = (pd.read_parquet(path / f"{name}.parquet") for path in (folder, whole))
            drop = MEASURED if name == "samples" else []
            pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))
        assert files(folder) == files(whole)  # hidden ones, too: no half-written file stays


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
