"""Stored files that were truncated or changed are found, told in one line and made again; nothing else changes."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from benchmark.stages.session import Outcome
from benchmark.store.folder import RunFolder, StoreError
from flexiact.media import seals
from tests.support.harness import CASES, session

MEASURED = ["fit_s", "transfer_s", "peak_memory_gib"]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    again(out, tiny)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy with the times of its files."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def again(out: Path, tiny) -> Outcome:
    return session(out, tiny, cases=CASES[:1], methods=("flexiact",))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """One bit: of a JSON file's longest number, among a table's values, in the last quarter of another file."""
    content = bytearray(path.read_bytes())
    place = content.index(b"flexiact") if path.suffix == ".parquet" else len(content) * 3 // 4
    if path.suffix == ".json":
        number = max(re.finditer(rb"\d+", content), key=lambda found: len(found[0]))
        place = (number.start() + number.end()) // 2
    content[place] ^= 1
    path.write_bytes(content)


def a_file(out: Path, pattern: str) -> Path:
    return sorted(out.glob(pattern))[0]


def of_flexiact(out: Path, folder: str) -> Path:
    samples = pd.read_parquet(out / "samples.parquet")
    return next((out / folder).glob(f"*/{samples[samples['method'] == 'flexiact']['key'].item()}.*"))


def assert_same_tables(one: Path, other: Path) -> None:
    for name in ("samples", "scores"):
        first, second = (pd.read_parquet(folder / f"{name}.parquet") for folder in (one, other))
        drop = MEASURED if name == "samples" else []
        pd.testing.assert_frame_equal(first.drop(columns=drop), second.drop(columns=drop))


@pytest.mark.parametrize("harm", [truncated, flipped])
@pytest.mark.parametrize("folder", ["videos", "records", "scores", "samples.parquet", "scores.parquet", "run.json"])
def test_damage_is_found_at_the_start_and_made_again(
    tiny, whole: Path, out: Path, folder: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / folder if "." in folder else of_flexiact(out, folder)
    harm(path)
    capsys.readouterr()
    outcome = again(out, tiny)
    notes = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    name = path.relative_to(out).as_posix()
    assert notes == [f"note: {name} is damaged; it is made again"]
    assert f"damaged   {name}: is made again" in (out / "log.txt").read_text()
    assert (outcome.made, outcome.failed) == (int(folder in ("videos", "records")), ())
    assert_same_tables(whole, out)
    assert again(out, tiny).scored == 0


@pytest.mark.parametrize("harm", [truncated, flipped])
def test_a_damaged_fit_or_feature_is_found_when_it_is_read(
    tiny, whole: Path, out: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    fit = a_file(out, "fits/*/*.safetensors")
    harm(fit)
    for path in out.glob("features/*/*.safetensors"):
        harm(path)
    for folder in ("records", "scores"):
        of_flexiact(out, folder).unlink()
    assert again(out, tiny).made == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert f"note: {fit.relative_to(out)} is damaged; it is made again" in told
    assert len(told) == 4  # of reference, target and video, too
    assert_same_tables(whole, out)


def test_a_video_that_is_damaged_without_a_trace_is_found_when_it_is_measured(tiny, whole: Path, out: Path) -> None:
    video = of_flexiact(out, "videos")
    times = video.stat().st_atime_ns, video.stat().st_mtime_ns
    flipped(video)
    os.utime(video, ns=times)
    assert again(out, tiny).scored == 0  # nothing reads it
    of_flexiact(out, "scores").unlink()
    outcome = again(out, tiny)
    assert (outcome.scored, outcome.failed) == (1, ())
    assert f"damaged   {video.relative_to(out)}: is made again" in (out / "log.txt").read_text()
    assert_same_tables(whole, out)


def test_several_damaged_files_are_one_line(tiny, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = list(out.glob("videos/*/*.mkv"))
    for path in videos:
        truncated(path)
    capsys.readouterr()
    again(out, tiny)
    (told,) = re.findall("note: .*damaged.*", capsys.readouterr().err)
    form = rf"note: videos/\w\w/\w+\.mkv \(and {len(videos) - 1} more\) is damaged; it is made again"
    assert re.fullmatch(form, told)


def test_a_copy_without_times_is_read_once_and_kept(tiny, whole: Path, out: Path, monkeypatch) -> None:
    for path in out.glob("videos/*/*.mkv"):
        path.touch()
    read = []
    from benchmark.store import gather

    kept = gather.read_stored
    monkeypatch.setattr(gather, "read_stored", lambda path, row: read.append(path) or kept(path, row))
    assert again(out, tiny).made == 0
    assert len(read) == len(list(out.glob("videos/*/*.mkv")))
    read.clear()
    again(out, tiny)
    assert read == []


def test_a_disk_that_changes_what_is_written_stops_the_run(tiny, out: Path, monkeypatch) -> None:
    from benchmark.stages import execute

    write = execute.write_lossless
    monkeypatch.setattr(execute, "write_lossless", lambda path, video: (write(path, video), flipped(path)))
    of_flexiact(out, "records").unlink()
    of_flexiact(out, "scores").unlink()
    with pytest.raises(StoreError, match="written a moment ago; check the disk"):
        again(out, tiny)


@pytest.mark.parametrize("folder", ["records", "scores"])
def test_a_file_that_cannot_be_opened_stops_the_run_and_is_named(tiny, out: Path, folder: str) -> None:
    path = of_flexiact(out, folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: cannot be read \(Is a directory\); once"):
        again(out, tiny)
    assert path.is_dir()


def test_a_record_never_names_a_file_outside_its_folder(tiny, out: Path, tmp_path: Path) -> None:
    outside = tmp_path / "precious.mkv"
    outside.write_bytes(b"x")
    path = of_flexiact(out, "records")
    row = {key: value for key, value in json.loads(path.read_text()).items() if key != "seal"}
    RunFolder(out).write_json("records", path.stem, row | {"video": "../precious.mkv"})
    assert again(out, tiny).made == 1
    assert outside.read_bytes() == b"x"


def test_every_bit_of_a_sealed_object_counts() -> None:
    text = json.dumps(seals.sealed_json({"a": 1.5, "b": [None, "x"]}))
    for place in range(len(text) * 8):
        changed = bytearray(text.encode())
        changed[place // 8] ^= 1 << place % 8
        try:
            value = seals.unsealed_json(json.loads(changed))
        except ValueError:
            continue
        assert {name: value.get(name) for name in "ab"} == {"a": 1.5, "b": [None, "x"]}  # only the seal's name changed
