"""Hostile files: every reader takes them or says in one line what is wrong, and touches nothing else.

`HOSTILE_INPUTS=120 python -m pytest tests/test_hostile_input.py` gives each reader so many, and `QUICK` times as many
to those of a single small file; they are drawn anew each time.
"""

import csv
import io
import json
import os
import runpy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmark.curate.files import case_to_toml, sealed, suite_to_toml
from benchmark.planning.plan import plan as plan_cells
from benchmark.planning.selection import UsageError
from benchmark.status import status_page
from benchmark.store.folder import RunFolder
from benchmark.submissions.found import Cases, by_name, by_table
from benchmark.suites.case import CaseError, Format
from benchmark.suites.case_table import table_suite
from benchmark.suites.davis import davis_suite
from benchmark.suites.flexiact import flexiact_suite
from benchmark.suites.folder import folder_suite
from benchmark.suites.puppets import load_case, load_suite
from flexiact.backbone.codec import encode_text, note_long_text
from flexiact.checkpoints.authors import load_release
from flexiact.checkpoints.ours import load_action
from flexiact.fits import FitFolder
from flexiact.media.files import MediaError
from flexiact.media.image import read_image
from flexiact.media.seals import SEAL
from flexiact.media.video import read_clip, read_video
from flexiact.refadapter import CONFIG_FILE, WEIGHTS_FILE, RefAdapter
from flexiact.task import Request
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import collected
from reports.prefer.analysis import read_votes
from reports.prefer.pairs import plan as plan_pairs
from reports.prefer.pairs import sheet_digest
from reports.results import measure
from reports.run_folder import RunError, load_run
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone
from tests.support.films import moving, write_film
from tests.support.harm.hostile import SECRET, as_json, changed, damaged, text, value, watched
from tests.support.harness import CASES, session, small_suite
from tests.support.real_material import official, write_clip, write_image, write_pictures
from tests.support.release_files import TINY, dense, embedding_state, refadapter_state

INPUTS = int(os.environ.get("HOSTILE_INPUTS", "0"))
QUICK = 20
FORM = Format(9, 16, 24, 8.0)
make_run = runpy.run_path(str(Path(__file__).parent / "golden" / "report" / "fake_run.py"))["make_run"]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        make: Writes sound files into a folder.
        read: Makes a file of the folder hostile and reads it.
        errors: What the reader may raise, in one line.
        inputs: Number of inputs, as a multiple of that of slow readers.
    """

    make: Callable[[Path], object]
    read: Callable[[Path, Random], object]
    errors: tuple[type[Exception], ...]
    inputs: int = 1


# ------------------------------------------------------------------------------------------------------------ suites


def make_toml(folder: Path) -> None:
    suite = sealed(small_suite(CASES), CASES)
    (folder / "small").mkdir()
    (folder / "small" / "suite.toml").write_text(suite_to_toml(suite))
    for case in CASES:
        (folder / "small" / f"{case.case_id}.toml").write_text(case_to_toml(case))


def read_toml(folder: Path, random: Random) -> None:
    case_id = CASES[0].case_id
    name = random.choice(("suite.toml", f"{case_id}.toml"))
    path = folder / "small" / name
    sound = path.read_bytes()
    try:
        if random.random() < 0.5:
            path.write_bytes(damaged(sound, random))
        else:
            lines = sound.decode().splitlines()
            place = random.randrange(len(lines))
            key = lines[place].partition("=")[0].strip() or "x"
            lines[place] = f"{key} = {toml_value(random)}" if random.random() < 0.8 else text(random, 3000)
            path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
        try:
            load_suite("small", folder)
        finally:
            case = load_case(small_suite(CASES), case_id, folder)
            case.check()
            case.show(FORM)
    finally:
        path.write_bytes(sound)


def toml_value(random: Random) -> str:
    odd = ("inf", "nan", "1979-05-27", "1e400", "true", "[" * 5000, "{a=" * 2000, '"""' + "x" * 2**21, "9" * 4000)
    return random.choice(odd) if random.random() < 0.5 else as_json(value(random))


def make_material(folder: Path) -> None:
    write_clip(folder / "a.mp4")
    write_image(folder / "b.png", 1)
    write_pictures(folder / "JPEGImages" / "dog")
    (folder / "link.mp4").symlink_to(folder.parent / SECRET)
    (folder / "link.png").symlink_to(folder.parent / SECRET)
    (folder / "ring").symlink_to(folder / "ring")
    (folder / "folder-link").symlink_to(folder.parent)


def table(path: Path, heading: list[str], good: list[str], random: Random) -> None:
    """A table with a good row and hostile ones, or damaged bytes."""
    rows = [list(good) for _ in range(random.randrange(4))]
    for row in rows:
        for place in random.sample(range(len(good)), random.choice((1, 1, len(good)))):
            row[place] = text(random)
    file = io.StringIO()
    csv.writer(file, delimiter=random.choice(",;\t|")).writerows([heading, good, *rows])
    content = file.getvalue().encode("utf-8", errors="replace")
    path.unlink(missing_ok=True)
    path.write_bytes(damaged(content, random) if random.random() < 0.3 else content)


def check_inside(folder: Path, suite: Any) -> None:
    for case in suite.cases:
        for file in (case.reference, case.target):
            assert file.path.resolve().is_relative_to(folder.resolve()), file
        assert Path(case.case_id).name == case.case_id not in (".", "..")


def read_case_table(folder: Path, random: Random) -> None:
    table(folder / "t.csv", ["case", "reference", "target", "prompt"], ["c", "a.mp4", "b.png", "a dog"], random)
    check_inside(folder, table_suite(str(folder / "t.csv")))


def read_davis(folder: Path, random: Random) -> None:
    good = ["dog", "a dog", random.choice(("dog", "b.png")), "a cat"]
    table(folder / "transfers.csv", ["reference", "caption", "target", "prompt"], good, random)
    check_inside(folder, davis_suite(str(folder)))


def make_official(folder: Path) -> None:
    official(folder)
    make_material(folder / "target_images")


def read_official(folder: Path, random: Random) -> None:
    path = folder / "captions" / "human" / "chest" / random.choice(("crop.csv", "val_image.csv"))
    sound = path.read_bytes()
    first, *rest = list(csv.reader(io.StringIO(sound.decode())))
    try:
        table(path, first, random.choice(rest), random)
        check_inside(folder, flexiact_suite(str(folder)))
    finally:
        path.write_bytes(sound)


def make_plain(folder: Path) -> None:
    write_clip(folder / "reference.mp4")
    (folder / "reference.txt").write_text("a dog jumps")
    write_image(folder / "images" / "a.png", 1)
    (folder / "images" / "a.txt").write_text("a cat jumps")


def read_plain(folder: Path, random: Random) -> None:
    path = folder / random.choice(("reference.txt", "images/a.txt", "images/a.png", "reference.mp4"))
    sound = path.read_bytes()
    path.unlink()
    try:
        if random.random() < 0.5:
            path.write_bytes(damaged(sound, random))
        else:
            path.symlink_to(random.choice((folder.parent / SECRET, path, folder, Path("/dev/zero"))))
        suite = folder_suite(str(folder))
        check_inside(folder, suite)
        suite.check_readable(suite.case_ids)
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(sound)


def read_submission(folder: Path, random: Random) -> None:
    cases = Cases(["c", "d"], {"c", "d", "e"})
    table(folder / "v.csv", ["video", "case", "seed"], ["a.mp4", "c", "1"], random)
    for videos in by_table(folder / "v.csv", folder, cases).values():
        for name in videos.values():
            assert (folder / name).resolve().is_relative_to(folder.resolve())
    by_name(folder, cases)


# --------------------------------------------------------------------------------------------- pictures, films, tensors


def make_pictures(folder: Path) -> None:
    frames = random_frames(1)
    image = Image.fromarray(frames[0])
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp", "tga", "ppm", "jp2", "ico", "pcx", "avif"):
        image.save(folder / f"a.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("I;16").save(folder / "deep.png")
    image.quantize(8).save(folder / "palette.png", transparency=0, exif=exif)
    image.save(folder / "turned.jpg", exif=exif, icc_profile=Image.new("RGB", (1, 1)).info.get("icc_profile"))


def read_picture(folder: Path, random: Random) -> None:
    path = folder / random.choice(sorted(path.name for path in folder.iterdir() if path.name[0] != "x"))
    hostile = folder / random.choice((f"x{path.suffix}", "x.png", "x.jpg"))
    hostile.write_bytes(damaged(path.read_bytes(), random))
    read_image(hostile)


def make_films(folder: Path) -> None:
    seconds = [n / 8 for n in range(6)]
    codecs = {
        "a.mp4": "libx264",
        "a.mov": "mpeg4",
        "a.mkv": "ffv1",
        "a.webm": "libvpx-vp9",
        "a.gif": "gif",
        "a.avi": "mjpeg",
    }
    for name, codec in codecs.items():
        if codec == "mjpeg":
            write_clip(folder / "b.mp4")
        else:
            write_film(folder / name, moving(seconds, width=48), seconds, rate=8, codec=codec)
    first, *others = (Image.fromarray(frame) for frame in random_frames(2))
    first.save(folder / "a.webp", save_all=True, append_images=others, duration=100)
    (folder / "a.txt").write_text(f"ffconcat version 1.0\nfile '{folder.parent / SECRET}'\n")
    (folder / "a.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{folder.parent / SECRET}\n#EXT-X-ENDLIST\n")
    (folder / "a.sdp").write_text("v=0\nm=video 1234 RTP/AVP 96\nc=IN IP4 127.0.0.1\n")


def read_film(folder: Path, random: Random) -> None:
    path = folder / random.choice(sorted(path.name for path in folder.iterdir() if path.name[0] != "x"))
    hostile = folder / random.choice((f"x{path.suffix}", "x.mp4", "x%d.png", "xconcat:a.mp4"))
    content = path.read_bytes()
    is_text = path.suffix in (".txt", ".m3u8", ".sdp")
    hostile.write_bytes(content if is_text and random.random() < 0.5 else damaged(content, random))
    try:
        random.choice((read_video, lambda path: read_clip(path, 9, 16, 24)))(hostile)
    finally:
        hostile.unlink()


def make_fit(folder: Path) -> None:
    FitFolder(folder).save("sound", {"x": torch.randn(2, 3), "y": torch.zeros(4)}, {"cost": '{"seconds": 1}'})


def tensors(content: bytes, random: Random) -> bytes:
    """A safetensors file with a hostile header, without a seal, or with damaged bytes."""
    if random.random() < 0.5:
        return damaged(content, random)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.get("__metadata__", {}).pop(SEAL, None)
    written = as_json(changed(header, random)).encode()
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def read_fit(folder: Path, random: Random) -> None:
    (folder / "x.safetensors").write_bytes(tensors((folder / "sound.safetensors").read_bytes(), random))
    FitFolder(folder).load("x")
    load_action(folder / "x.safetensors")


@cache
def tiny() -> Any:
    return tiny_backbone()


def make_adapter(folder: Path) -> None:
    save_tiny_refadapter(folder, tiny())


def read_adapter(folder: Path, random: Random) -> None:
    name = random.choice((CONFIG_FILE, WEIGHTS_FILE))
    sound = (folder / name).read_bytes()
    try:
        if name == WEIGHTS_FILE:
            content = tensors(sound, random)
        else:
            content = as_json(changed(json.loads(sound), random)).encode()
        (folder / name).write_bytes(content)
        RefAdapter.load(folder, tiny().transformer)
    finally:
        (folder / name).write_bytes(sound)


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def make_release(folder: Path) -> None:
    torch.save(dense(embedding_state(TINY, 3)), folder / "a.pt")
    torch.save(dense(refadapter_state(TINY, 2)), folder / "b.bin", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(dense(refadapter_state(TINY, 2)), folder / "c.safetensors")
    torch.save({"state_dict": Evil()}, folder / "d.pt")


def read_release(folder: Path, random: Random) -> None:
    path = folder / random.choice(("a.pt", "b.bin", "c.safetensors", "d.pt"))
    hostile = folder / f"x{path.suffix}"
    hostile.write_bytes(damaged(path.read_bytes(), random))
    load_release(hostile, TINY)


# --------------------------------------------------------------------------------------------------- runs, votes, words


def make_stored(folder: Path) -> None:
    session(folder / "run", tiny(), cases=CASES[:1], methods=("i2v",), metrics=("dynamic_degree",))
    make_run(folder / "fake", references=2, targets=2, seeds=(0,), videos=False)


def read_stored_run(folder: Path, random: Random) -> None:
    """Files of a run without their seals, which a stranger could make anew."""
    pattern = random.choice(("run.json", "records/*/*.json", "scores/*/*.json"))
    path = random.choice(sorted((folder / "run").glob(pattern)))
    copy = folder / "run" / ".run.json.copy"
    sound, kept = path.read_bytes(), copy.read_bytes()
    unsealed = {name: one for name, one in json.loads(sound).items() if name != SEAL}
    try:
        copy.write_text("")
        path.write_bytes(
            damaged(sound, random) if random.random() < 0.5 else as_json(changed(unsealed, random)).encode()
        )
        status_page(folder / "run")
        plan_cells(RunFolder(folder / "run").described())
    finally:
        path.write_bytes(sound)
        copy.write_bytes(kept)


def read_reported_run(folder: Path, random: Random) -> None:
    path = folder / "fake" / random.choice(("run.json", "run.json", "samples.parquet", "scores.parquet"))
    sound = path.read_bytes()
    try:
        if path.suffix == ".json" and random.random() < 0.5:
            path.write_text(as_json(changed(json.loads(sound), random)))
        else:
            path.write_bytes(damaged(sound, random))
        load_run(folder / "fake")
    finally:
        path.write_bytes(sound)


def make_votes(folder: Path) -> None:
    make_run(folder / "fake", references=2, targets=2, seeds=(0,), videos=False)
    _voted(folder)


@cache
def _voted(folder: Path) -> Any:
    run = load_run(folder / "fake")
    return measure(run), plan_pairs(run, ["flexiact", "i2v"], 4, seed=1)


def read_voted(folder: Path, random: Random) -> None:
    results, trials = _voted(folder)
    good = [sheet_digest(results.run, trials), "me", "1", "motion", "left"]
    table(folder / "x.csv", ["sheet", "rater", "trial", "question", "choice"], good, random)
    read_votes([folder / "x.csv"], results, trials)


def read_words(folder: Path, random: Random) -> None:
    words = text(random) if random.random() < 0.9 else "a \udc80 dog"  # half a character, as a broken argument has
    request = Request(random_frames(1)[0], words, 0)
    with collected():
        note_long_text(tiny(), request.prompt)
    encode_text(tiny(), [request.prompt])


READERS = {
    "case files": Reader(make_toml, read_toml, (CaseError,)),
    "table of cases": Reader(make_material, read_case_table, (CaseError,)),
    "DAVIS table": Reader(make_material, read_davis, (CaseError,)),
    "authors' tables": Reader(make_official, read_official, (CaseError,)),
    "plain folder": Reader(make_plain, read_plain, (CaseError,)),
    "submissions": Reader(make_material, read_submission, (CaseError, UsageError)),
    "pictures": Reader(make_pictures, read_picture, (MediaError,), QUICK),
    "films": Reader(make_films, read_film, (MediaError,), QUICK),
    "fits and actions": Reader(make_fit, read_fit, (ValueError,), QUICK),
    "RefAdapter": Reader(make_adapter, read_adapter, (ValueError,)),
    "release": Reader(make_release, read_release, (ValueError,), QUICK),
    "run directory": Reader(make_stored, read_stored_run, (UsageError,)),
    "reported run": Reader(make_stored, read_reported_run, (RunError,)),
    "votes": Reader(make_votes, read_voted, (RunError,)),
    "prompts": Reader(lambda folder: None, read_words, (ValueError,)),
}


@pytest.mark.slow
@pytest.mark.timeout(600 + 20 * INPUTS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # libraries warn of files that they then refuse
@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, folder = READERS[name], tmp_path / "given"
    folder.mkdir()
    write_clip(tmp_path / "a.mkv")
    shutil.move(tmp_path / "a.mkv", tmp_path / SECRET)
    reader.make(folder)
    monkeypatch.chdir(folder)
    beside = sorted(tmp_path.iterdir())
    refused = [0, 0]

    @settings(
        max_examples=INPUTS * reader.inputs or 12,
        derandomize=not INPUTS,
        database=None,
        phases=[Phase.generate],  # a smaller seed makes no smaller file
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63))
    def hold(seed: int) -> None:
        refused[0] += 1
        with watched(folder), collected():
            try:
                reader.read(folder, Random(seed))
            except reader.errors as error:
                refused[1] += 1
                assert "\n" not in str(error) and 0 < len(one_line(error)) <= 2000

    hold()
    assert sorted(tmp_path.iterdir()) == beside
    with capfd.disabled():
        if INPUTS:
            print(f"\n{name}: {refused[0]} inputs, {refused[1]} refused")
