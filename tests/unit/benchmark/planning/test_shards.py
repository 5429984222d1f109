"""Shards of a run: nothing is done twice or left out, and the whole is that of one session."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmark.planning.job_shards import Shard, parse_shard
from benchmark.planning.plan import plan
from benchmark.planning.selection import UsageError
from benchmark.stages.bench import units
from tests.support.harness import CASES, quick_flexiact, session
from tests.unit.benchmark.planning.test_plan import RUN

MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]


def keys(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "records").glob("*/*.json")}


def test_every_cell_is_in_one_shard_and_cells_of_a_fit_stay_together() -> None:
    cells = plan(RUN)
    shares = units(cells, dict.fromkeys(RUN["cases"], "reference"))
    parts = [[cell for unit in Shard(i, 3).part(shares) for cell in unit] for i in (1, 2, 3)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(cell.key for cell in cells)
    fits = [{cell.fit_key for cell in part} - {None} for part in parts]
    assert not fits[0] & fits[1] and not fits[1] & fits[2] and not fits[0] & fits[2]
    assert Shard(1, 1).part(shares) == shares


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1.0/2", "1 / 2", "٣/٤"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard: expected I/N"):
        parse_shard(text)
    assert parse_shard("3/8") == Shard(3, 8) and parse_shard(None) is None


def test_shards_in_one_folder_or_in_several_equal_the_whole(backbone, tmp_path: Path, monkeypatch) -> None:
    quick_flexiact(monkeypatch)
    asked = {"cases": CASES, "methods": ("base-embedding", "i2v"), "seeds": (0, 1)}
    session(tmp_path / "whole", backbone, **asked)
    apart = []
    for index in (1, 2):
        session(tmp_path / "shared", backbone, shard=Shard(index, 2), **asked)
        session(tmp_path / f"apart{index}", backbone, shard=Shard(index, 2), **asked)
        apart.append(keys(tmp_path / f"apart{index}"))
        assert not (tmp_path / "shared" / "samples.parquet").exists()
        shutil.copytree(tmp_path / f"apart{index}", tmp_path / "gathered", dirs_exist_ok=True)
    assert apart[0] and apart[1] and not apart[0] & apart[1]
    for name in ("shared", "gathered"):
        assert keys(tmp_path / name) == apart[0] | apart[1] == keys(tmp_path / "whole")
        outcome = session(tmp_path / name, backbone, **asked)
        assert (outcome.made, outcome.scored) == (0, 0)
        for table in ("samples", "scores"):
            one, other = (pd.read_parquet(tmp_path / run / f"{table}.parquet") for run in ("whole", name))
            drop = MEASURED if table == "samples" else []
            pd.testing.assert_frame_equal(one.drop(columns=drop), other.drop(columns=drop))
