"""Who may work in a run directory, and what becomes of locks whose holders died."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.planning.job_shards import Shard
from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.lock import holders, locked
from tests.support.quick_help import ROOT

HOLD = """
import sys, time
from pathlib import Path
from benchmark.store.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def write_holder(path: Path, **changes) -> None:
    holder = {"pid": 1, "host": socket.gethostname(), "since": "2020-01-01 00:00:00 UTC", "started": "-1"}
    path.write_text(json.dumps(holder | changes))


@pytest.mark.parametrize("shard", [None, Shard(1, 2)])
def test_a_second_run_is_told_who_is_at_work(other, tmp_path: Path, shard: Shard | None) -> None:
    message = f"another run is at work here: process {other.pid} on {socket.gethostname()} since 20"
    with pytest.raises(UsageError, match=message) as told, locked(tmp_path, shard):
        pass
    assert "\n" not in str(told.value)


def test_the_lock_of_a_killed_process_is_taken_over_and_told(other, tmp_path: Path, capsys) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    (holder,) = holders(tmp_path).values()
    assert (holder.pid, holder.lives) == (other.pid, False)
    with locked(tmp_path):
        assert holders(tmp_path)[".lock"].pid == os.getpid()
    assert holders(tmp_path) == {}
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"was left by process {other.pid}" in told and "it is taken over" in told


def test_a_later_process_of_the_same_id_is_not_the_holder(tmp_path: Path, capsys) -> None:
    write_holder(tmp_path / ".lock", pid=os.getpid(), started="1")
    with locked(tmp_path):
        pass
    assert "it is taken over" in capsys.readouterr().err


def test_a_holder_on_another_machine_is_believed(tmp_path: Path) -> None:
    write_holder(tmp_path / ".lock", host="elsewhere")
    for shard in (None, Shard(1, 2)):
        with pytest.raises(UsageError, match=r"process 1 on elsewhere .*; if it has ended, remove .*\.lock"):
            with locked(tmp_path, shard):
                pass
    (tmp_path / ".lock").unlink()
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_not_taken_for_another_run(tmp_path: Path, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UsageError, match=r"cannot be written \(No locks available\)"), RunFolder(tmp_path).opened():
        pass


def test_shards_share_a_directory_with_each_other_alone(tmp_path: Path) -> None:
    with locked(tmp_path, Shard(1, 2)), locked(tmp_path, Shard(2, 2)):
        for shard in (None, Shard(1, 2)):
            with pytest.raises(UsageError, match="another run is at work here"), locked(tmp_path, shard):
                pass
        assert set(holders(tmp_path)) == {".shard-1-of-2", ".shard-2-of-2"}
    with locked(tmp_path):
        pass


def test_a_shard_leaves_alone_what_others_are_writing(tmp_path: Path) -> None:
    with RunFolder(tmp_path).opened(Shard(1, 2)):
        half = tmp_path / "videos" / ".abc.mkv.77-a.partial"
        half.write_bytes(b"half")
        with RunFolder(tmp_path).opened(Shard(2, 2)):
            assert half.exists()
    with RunFolder(tmp_path).opened():
        assert not half.exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}'])
def test_a_lock_that_names_nobody_is_free(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with locked(tmp_path):
        pass
