import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmark.planning.selection import UsageError
from benchmark.store.folder import SCHEMA_VERSION, RunFolder, StoreError
from flexiact.media.digests import json_digest


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_checking_touches_nothing(folder: RunFolder) -> None:
    folder.check()
    assert not folder.path.exists()


def test_a_folder_of_something_else_is_refused(folder: RunFolder) -> None:
    folder.path.mkdir()
    (folder.path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds 'thesis.tex' but no run.json"):
        folder.check()


def test_a_file_in_the_way_is_refused(folder: RunFolder) -> None:
    folder.path.write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        folder.check()
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(folder.path / "below").check()


OTHERS = [json.dumps({"schema_version": SCHEMA_VERSION + by}) for by in (1, -1)]


@pytest.mark.parametrize("content", [*OTHERS, json.dumps({}), "[]", "{trunc"])
def test_another_schema_or_a_damaged_run_is_refused(folder: RunFolder, content: str) -> None:
    folder.path.mkdir()
    (folder.path / "run.json").write_text(content)
    with pytest.raises(UsageError, match="run.json"):
        folder.check()


@pytest.mark.skipif(os.geteuid() != 0 and not os.path.exists("/proc"), reason="needs /proc")
def test_an_unwritable_place_is_refused() -> None:
    folder = RunFolder(Path("/proc/benchmark-run"))
    with pytest.raises(UsageError, match="cannot be written"):
        folder.check()
        with folder.opened():
            pass


def test_a_second_run_at_the_same_place_is_refused(folder: RunFolder) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmark.store.folder import RunFolder\n"
        "from benchmark.planning.selection import UsageError\n"
        "try:\n with RunFolder(Path(sys.argv[1])).opened(): pass\nexcept UsageError as e: print(e)"
    )
    with folder.opened():
        other = subprocess.run([sys.executable, "-c", code, folder.path], capture_output=True, text=True, check=True)
    assert "another run is at work" in other.stdout
    with folder.opened():
        pass


def test_what_a_killed_run_left_is_cleared(folder: RunFolder) -> None:
    with folder.opened():
        left = folder.room_for(folder.file("videos", "abc.mkv")).with_name(".abc.mkv.77.partial")
        left.write_bytes(b"half")
    with folder.opened():
        assert not left.exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder: RunFolder) -> None:
    with folder.opened():
        folder.write_json("records", "k", {"a": 1})
        with pytest.raises(RuntimeError), folder.replacing(folder.file("records", "k.json")) as partial:
            partial.write_text("half")
            raise RuntimeError
        assert folder.read_json("records", "k") == {"a": 1}
        assert [p.name for p in folder.path.glob("records/*/*")] == ["k.json"]  # hidden ones included


def test_a_full_disk_is_told_in_one_line(folder: RunFolder) -> None:
    with (
        folder.opened(),
        pytest.raises(StoreError, match="k.json: cannot be written"),
        folder.replacing(folder.file("records", "k.json")),
    ):
        raise OSError(28, "No space left on device")


def test_equal_content_is_not_written_again(folder: RunFolder) -> None:
    with folder.opened():
        folder.write_json("records", "k", {"a": 1})
        path = folder.file("records", "k.json")
        os.utime(path, ns=(1, 1))
        folder.write_json("records", "k", {"a": 1})
        assert path.stat().st_mtime_ns == 1
        folder.write_json("records", "k", {"a": 2})
        assert path.stat().st_mtime_ns != 1


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_record_counts_as_missing(folder: RunFolder, content: str) -> None:
    with folder.opened():
        folder.room_for(folder.file("records", "k.json")).write_text(content)
        assert folder.read_json("records", "k") is None


def test_no_folder_holds_many_files(folder: RunFolder) -> None:
    keys = [json_digest(number)[:32] for number in range(300)]
    with folder.opened():
        for key in keys:
            folder.write_json("records", key, {"key": key})
    assert [path.stem for path in folder.files("records", ".json")] == sorted(keys)
    assert all(folder.read_json("records", key) == {"key": key} for key in keys)
    parts = [list(part.iterdir()) for part in (folder.path / "records").iterdir()]
    assert len(parts) > 100 and max(map(len, parts)) < 10


def test_tables_have_their_columns_even_without_rows(folder: RunFolder) -> None:
    from benchmark.store.gather import write_tables

    with folder.opened():
        write_tables(folder, {"methods": {}, "cases": {}, "metrics": {}, "seeds": [0], "backbone": {}}, [])
    samples, scores = (pq.read_table(folder.path / f"{name}.parquet") for name in ("samples", "scores"))
    assert (
        samples.column_names
        == (
            "key fit_key method method_version backbone backbone_revision case_id seed status error video video_digest "
            "video_bytes fit_s transfer_s peak_memory_gib action_mib origin resize_rule changed source source_frames "
            "source_fps source_height source_width fit_seed"
        ).split()
    )
    assert scores.column_names == "key method case_id seed metric metric_version status value backend error".split()
    assert [str(samples.schema.field(n).type) for n in ("seed", "fit_s", "error")] == ["int64", "double", "string"]
