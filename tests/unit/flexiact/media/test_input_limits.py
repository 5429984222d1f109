"""What no honest input is as large as is refused before it takes memory or time, and no file brings a program along."""

import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

from benchmark.suites.case import CaseError
from benchmark.suites.case_table import table_suite
from benchmark.suites.puppets import FILE_LIMIT_MIB, load_case
from flexiact.media import film, video
from flexiact.media.files import TEXT_LIMIT_MIB, MediaError, read_text
from flexiact.media.image import MOST_PIXELS, read_image
from flexiact.media.video import read_clip, read_video
from flexiact.refadapter import CONFIG_FILE, RefAdapter
from tests.support.backbones import random_frames, save_tiny_refadapter, tiny_backbone
from tests.support.films import moving, write_film
from tests.support.harness import CASES, small_suite


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    assert path.stat().st_size < 20_000
    with pytest.raises(MediaError, match=rf"exceeds limit of {MOST_PIXELS} pixels"):
        read_image(path)


def test_large_animations_and_films_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = (Image.fromarray(frame) for frame in random_frames(2))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100)
    write_film(tmp_path / "a.mkv", moving([0, 0.1, 0.2]), [0, 0.1, 0.2], rate=10, codec="ffv1")
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(MediaError, match="a.webp: .*exceeds limit of 200 pixels"):
            read_video(tmp_path / "a.webp")
    for module, name, value, says in (
        (film, "MOST_PIXELS", 5119, r"frames of 160 x 32 pixels, 5119 at most"),
        (film, "MOST_FRAMES", 2, r"holds more than 2 frames; cut it"),
        (video, "MOST_GIB", 1e-5, r"more than 1e-05 GiB of frames"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(MediaError, match=f"a.mkv: {says}"):
                read_video(tmp_path / "a.mkv")
    assert len(read_video(tmp_path / "a.mkv").frames) == 3


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(random_frames(1)[0]).save(tmp_path / "a.eps")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.eps").read_bytes())
    monkeypatch.setattr(subprocess, "Popen", lambda *rest, **more: pytest.fail("a program was started"))
    for name in ("a.eps", "a.png"):
        with pytest.raises(MediaError, match="not a readable image"):
            read_image(tmp_path / name)


def test_a_film_named_like_a_protocol_is_that_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "a.mkv", moving([0, 0.1, 0.2]), [0, 0.1, 0.2], rate=10, codec="ffv1")
    Path("concat:a.mkv").write_bytes(b"no film")
    with pytest.raises(MediaError, match="no video, or a damaged one"):
        read_clip("concat:a.mkv", 9, 16, 24)  # FFmpeg would read a.mkv


def test_large_texts_and_case_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a" * (TEXT_LIMIT_MIB * 2**20 + 1))
    with pytest.raises(OSError, match=f"larger than {TEXT_LIMIT_MIB} MiB"):
        read_text(path)
    with pytest.raises(CaseError, match=f"t.csv: cannot be read .*larger than {TEXT_LIMIT_MIB} MiB"):
        table_suite(str(path))
    case = tmp_path / "small" / f"{CASES[0].case_id}.toml"
    case.parent.mkdir()
    case.write_bytes(b"#" * (FILE_LIMIT_MIB * 2**20 + 1))
    with pytest.raises(CaseError, match=f"larger than {FILE_LIMIT_MIB} MiB"):
        load_case(small_suite(CASES), CASES[0].case_id, tmp_path)


def test_an_adapter_that_claims_a_large_rank_takes_no_memory(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    folder = save_tiny_refadapter(tmp_path / "adapter", backbone)
    config = (folder / CONFIG_FILE).read_text()
    (folder / CONFIG_FILE).write_text(config.replace('"r": 2', '"r": 2000000000'))
    with pytest.raises(ValueError, match="says rank 2000000000, the weights are smaller"):
        RefAdapter.load(folder, backbone.transformer)
