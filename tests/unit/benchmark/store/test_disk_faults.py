"""A disk that is full or protected, and a clock that is set back: one line says so, and nothing is lost."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmark.stages.scoring import Scorer
from benchmark.status import status_page
from benchmark.store import gather, lock, log
from benchmark.store.folder import StoreError
from benchmark.store.log import append_event
from tests.support.harm.faulty_disk import SHARES
from tests.support.harness import CASES, session
from tests.support.quick_help import ROOT

ALONE = ("unshare", "--user", "--map-root-user", "--mount")
GOES_ON = r"; once that is mended, the same command goes on from here"


def allowed() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def on_a_disk(folder: Path, kind: str) -> list[str]:
    command = [*ALONE, sys.executable, "-m", "tests.support.harm.faulty_disk", folder, kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


own_disk = pytest.mark.skipif(not allowed(), reason="this user may not mount a disk of its own (unshare)")


@own_disk
@pytest.mark.slow
def test_a_full_disk_is_said_and_with_room_the_run_ends_as_if_there_had_always_been(tmp_path: Path) -> None:
    *full, done, equal = on_a_disk(tmp_path, "full")
    assert (done, equal) == ("0", "equal to a run that had room")
    assert len(full) == len(SHARES)
    for said in full:
        assert re.fullmatch(rf"2 \| error: \S+: cannot be written \(No space left on device\){GOES_ON}", said)


@own_disk
@pytest.mark.slow
def test_a_disk_that_becomes_read_only_is_said_and_the_run_goes_on_later(tmp_path: Path) -> None:
    during, after, again, other, status = on_a_disk(tmp_path, "read-only")
    assert re.fullmatch(rf"2 \| error: \S+/records/\S+: cannot be written \(Read-only file system\){GOES_ON}", during)
    assert after == "0"
    disk = re.escape(str(tmp_path / "disk"))
    assert re.fullmatch(rf"2 \| error: {disk}/run: cannot be written \({disk}/run is read-only\)", again)
    assert re.fullmatch(rf"2 \| error: {disk}/other: cannot be written \({disk} is read-only\)", other)
    assert status == "28 videos: 28 done, 0 failed, 0 left"


def test_a_disk_that_fails_while_a_video_is_measured_fails_no_score(tiny, tmp_path: Path, monkeypatch) -> None:
    def full(self: Scorer, cell: object, row: object) -> None:
        raise StoreError("features: cannot be written")

    asked = {"cases": CASES[:1], "methods": ("i2v",)}
    with monkeypatch.context() as patch, pytest.raises(StoreError, match=f"^features: cannot be written{GOES_ON}$"):
        patch.setattr(Scorer, "_features", full)
        session(tmp_path, tiny, **asked)
    assert not any((tmp_path / "scores").iterdir())
    assert session(tmp_path, tiny, **asked).failed == ()


def test_half_a_line_in_the_log_is_an_error(tmp_path: Path, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr(log.os, "write", lambda file, line: write(file, line[:10]))
    with pytest.raises(OSError, match="No space left on device"):
        append_event(tmp_path / "log.txt", "made", "a video")


class SetBack(datetime):
    """A clock that goes back by an hour whenever it is read."""

    read = 0

    @classmethod
    def now(cls, tz=None):
        cls.read += 1
        return datetime(2030, 1, 1, tzinfo=UTC) - timedelta(hours=cls.read)


def test_a_clock_that_is_set_back_changes_no_video_no_cost_and_no_lock(tiny, tmp_path: Path, monkeypatch) -> None:
    for module in (lock, log):
        monkeypatch.setattr(module, "datetime", SetBack)
    asked = {"cases": CASES[:1], "methods": ("base-embedding", "i2v")}
    assert session(tmp_path, tiny, **asked).failed == ()
    times = [line.split()[0] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert times == sorted(times, reverse=True) and len(set(times)) == len(times)
    later = 4_000_000_000 * 10**9  # videos written before the clock was set back
    for video in tmp_path.glob("videos/*/*.mkv"):
        os.utime(video, ns=(later, later))
    read = []
    kept = gather.read_stored
    monkeypatch.setattr(gather, "read_stored", lambda path, row: read.append(path) or kept(path, row))
    for decoded in (len(list(tmp_path.glob("videos/*/*.mkv"))), 0):  # once, not at every start
        outcome = session(tmp_path, tiny, **asked)
        assert (outcome.made, outcome.scored, len(read)) == (0, 0, decoded)
        read.clear()
    page = status_page(tmp_path)
    assert "nothing is left" in page and "nobody is at work here" in page
    assert not re.search(r"-\d+(\.\d+)? (s|min|h)\b", page)
