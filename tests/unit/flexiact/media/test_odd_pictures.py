"""Pictures with profiles, turns and formats that phones and editors give them; and what is said about all inputs."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from flexiact.media.files import MediaError
from flexiact.media.image import note_cut, read_image
from flexiact.media.video import read_clip, read_timing
from flexiact.terminal.notes import collected, each_once, note, tell
from tests.support.backbones import random_frames

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped(first: bytes, second: bytes) -> bytes:
    """An RGB profile like sRGB but with two primaries in each other's place, and another name."""
    entries = {SRGB[at : at + 4]: at for at in range(132, 132 + 12 * int.from_bytes(SRGB[128:132], "big"), 12)}
    profile = bytearray(SRGB)
    a, b = entries[first], entries[second]
    profile[a + 4 : a + 12], profile[b + 4 : b + 12] = SRGB[b + 4 : b + 12], SRGB[a + 4 : a + 12]
    return bytes(profile)


PROFILES = {
    (1, 0, 2): swapped(b"rXYZ", b"gXYZ"),
    (2, 1, 0): swapped(b"rXYZ", b"bXYZ"),
    (0, 2, 1): swapped(b"gXYZ", b"bXYZ"),
}


def patches() -> np.ndarray:
    frame = np.zeros((16, 24, 3), dtype=np.uint8)
    frame[:, :8], frame[:, 8:16], frame[:, 16:] = (200, 30, 60), (40, 90, 220), (128, 128, 128)
    return frame


@pytest.mark.parametrize("order", PROFILES)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "alpha.png", "palette.png"])
def test_colours_of_a_profile_become_srgb(
    tmp_path: Path, name: str, order: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.fromarray(patches())
    if name == "alpha.png":
        image.putalpha(255)
    image = image.quantize(8) if name == "palette.png" else image
    options = {"a.jpg": {"quality": 100, "subsampling": 0}, "a.webp": {"lossless": True}}.get(name, {})
    image.save(tmp_path / name, icc_profile=PROFILES[order], **options)
    read = read_image(tmp_path / name)
    for column in (4, 12, 20):
        expected = patches()[8, column][list(order)]
        assert np.abs(read[8, column].astype(int) - expected).max() <= 4
    assert f"note: {tmp_path / name} is converted to sRGB from " in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_srgb_by_its_name_changes_no_pixel(tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(random_frames(0)[0]).convert(mode)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "named.png", icc_profile=SRGB)
    np.testing.assert_array_equal(read_image(tmp_path / "plain.png"), read_image(tmp_path / "named.png"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("profile", [b"no profile", SRGB[:200], SRGB.replace(b"RGB XYZ ", b"CMYKXYZ ")])
def test_a_profile_that_is_no_use_is_said(tmp_path: Path, profile: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), patches())
    assert "its colours are taken as sRGB" in capsys.readouterr().err


def test_transparency_stays_when_colours_are_converted(tmp_path: Path) -> None:
    image = Image.fromarray(patches())
    image.putalpha(Image.fromarray(np.where(np.arange(24) < 12, 0, 255).astype(np.uint8)[None].repeat(16, 0)))
    image.save(tmp_path / "a.png", icc_profile=PROFILES[1, 0, 2])
    read = read_image(tmp_path / "a.png")
    assert (read[:, :12] == 255).all() and (read[:, 16:].max() < 140)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_and_mirrors(tmp_path: Path, orientation: int, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    frame = random_frames(0)[0]
    Image.fromarray(frame).save(tmp_path / "a.png", exif=exif)
    upright = [
        *(frame, frame[:, ::-1], np.rot90(frame, 2), frame[::-1], frame.swapaxes(0, 1), np.rot90(frame, -1)),
        *(np.rot90(frame, 2).swapaxes(0, 1), np.rot90(frame)),
    ][orientation - 1]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)
    assert ("turned upright by its EXIF" in capsys.readouterr().err) == (orientation > 1)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftyphevc\0\0\0\0hevc", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic", "HEIC"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II*\0\x10\0\0\0CR\x02\0", "raw photo"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_formats_without_a_reader_are_named(tmp_path: Path, start: bytes, says: str) -> None:
    for name in ("photo.heic", "photo.jpg"):  # the content tells, not the name
        (tmp_path / name).write_bytes(start + bytes(200))
        for read in (read_image, lambda path: read_clip(path, 9, 16, 24)):
            with pytest.raises(MediaError, match=f"{name}: .*{says}") as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_a_video_is_no_image(tmp_path: Path) -> None:
    for name, start in {
        "a.mp4": b"\0\0\0\x20ftypisom",
        "a.mov": b"\0\0\0\x14ftypqt  ",
        "a.webm": b"\x1aE\xdf\xa3",
        "a.avi": b"RIFF\0\0\0\0AVI LIST",
        "a.wmv": b"0&\xb2u\x8ef\xcf\x11",
    }.items():
        (tmp_path / name).write_bytes(start + bytes(100))
        with pytest.raises(MediaError, match=f"{name}: not a readable image .it is a video"):
            read_image(tmp_path / name)


def test_a_cut_avif_is_no_video_and_other_formats_are_to_be_saved_anew(tmp_path: Path) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.avif")
    (tmp_path / "a.avif").write_bytes((tmp_path / "a.avif").read_bytes()[:-40])
    with pytest.raises(MediaError, match=r"a.avif: .*a damaged or truncated AVIF"):
        read_image(tmp_path / "a.avif")
    (tmp_path / "a.exr").write_bytes(b"v/1\x01\x02" + bytes(100))
    with pytest.raises(MediaError, match=r"a.exr: .*of an unknown format; fetch it again, or save it as JPEG or PNG"):
        read_image(tmp_path / "a.exr")


def test_a_raw_photo_is_not_its_preview(tmp_path: Path) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.dng", format="TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with pytest.raises(MediaError, match="a.dng: .*raw photo, DNG; save it as JPEG or PNG"):
        read_image(tmp_path / "a.dng")


def test_a_preview_is_no_picture_and_integers_have_no_range(tmp_path: Path) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.nef", format="TIFF", tiffinfo={254: 1})
    with pytest.raises(MediaError, match="a.nef: .*begins with a preview, as raw photos do; save it as JPEG or PNG"):
        read_image(tmp_path / "a.nef")
    Image.fromarray(patches()[..., 0].astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match="a.tif: .*32-bit pixels, whose range is not known"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "fetch it with `git lfs pull`"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "is a web page"),
        (b"\n<HTML><HEAD>", "is a web page"),
    ],
)
def test_what_stands_in_place_of_a_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    for name, read in (("a.png", read_image), ("a.mp4", read_timing)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=f"{name}: .*{says}"):
            read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif", "tif"])
def test_of_an_animation_the_first_picture_is_the_image(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, image = tmp_path / f"a.{suffix}", Image.fromarray(patches())
    image.save(path, save_all=True, append_images=[Image.fromarray(patches()[:, ::-1])])
    assert np.abs(read_image(path).astype(int) - patches()).mean() < 8
    assert capsys.readouterr().err == f"note: {path} holds 2 pictures, of which the first is read\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_CHUNKS = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(
    b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
)


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        (chunk(b"gAMA", struct.pack(">I", 100000)), True),
        (chunk(b"cHRM", P3), True),
        (SRGB_CHUNKS, False),
        (chunk(b"sRGB", b"\0") + SRGB_CHUNKS, False),
    ],
)
def test_colours_that_a_png_states_without_a_profile_are_said(
    tmp_path: Path, chunks: bytes, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(patches()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + chunks + content[33:])  # after the header
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), patches())
    assert ("states a gamma or primaries of its own" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("primaries", "transfer", "said"),
    [(12, 13, "states Display P3"), (9, 16, "states HDR, PQ BT.2020"), (1, 18, "states HDR, HLG"), (1, 13, "")],
)
def test_colours_stated_by_numbers_are_said(
    tmp_path: Path, primaries: int, transfer: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "a.avif"):
        Image.fromarray(patches()).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        if name == "a.png":
            content = content[:33] + chunk(b"cICP", bytes([primaries, transfer, 0, 1])) + content[33:]
        else:
            place = content.index(b"nclx") + 4
            content = content[:place] + struct.pack(">HH", primaries, transfer) + content[place + 4 :]
        (tmp_path / name).write_bytes(content)
        read_image(tmp_path / name)
        told = capsys.readouterr().err
        assert said in told if said else not told


def test_a_camera_s_adobe_rgb_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, (colour_space, said) in enumerate((("R03", True), ("R98", False))):
        exif = Image.Exif()
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        inner[ExifTags.Base.ColorSpace], inner[ExifTags.IFD.Interop] = 65535 if said else 1, {1: colour_space}
        path = tmp_path / f"_DSC{index}.jpg"
        Image.fromarray(patches()).save(path, exif=exif)
        read_image(path)
        assert ("is in Adobe RGB by its EXIF" in capsys.readouterr().err) == said


@pytest.mark.parametrize(
    ("size", "wanted", "said"),
    [
        ((192, 108), (480, 720), "62%"),
        ((192, 108), (64, 64), "44%"),
        ((108, 192), (64, 64), "44%"),
        ((1334, 750), (480, 720), "63%"),
        ((30, 300), (64, 64), "90%"),
        ((108, 192), (480, 720), ""),
        ((300, 400), (480, 720), ""),
        ((64, 64), (64, 64), ""),
    ],
)
def test_it_is_said_when_much_is_cut_away(
    size: tuple[int, int], wanted: tuple[int, int], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    note_cut("a.png", np.zeros((*size, 3), dtype=np.uint8), *wanted)
    err = capsys.readouterr().err
    assert (f"{said} of it is cut away" in err) if said else err == ""


def test_a_folder_s_pictures_are_spoken_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(4):
        Image.fromarray(patches()).save(tmp_path / f"{index:05d}.png", icc_profile=PROFILES[1, 0, 2])
    for name in ("Thumbs.db", "desktop.ini", "._00000.png"):
        (tmp_path / name).write_bytes(b"clutter")
    assert read_timing(tmp_path).count == 4
    assert capsys.readouterr().err.count("note: ") == 1


def test_notes_are_printed_once_or_together(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with each_once():
            note("a.mp4", "is odd")
            note(Path("a.mp4"), "is odd")
    assert capsys.readouterr().err == "note: a.mp4 is odd\n" * 2
    with collected() as notes:
        for name in ("a.mp4", "b.mp4", "b.mp4", "c.mp4"):
            note(name, "is odd")
        note("c.mp4", "is long")
    assert capsys.readouterr().err == ""
    tell(notes)
    assert capsys.readouterr().err == "note: a.mp4 (and 2 more) is odd\nnote: c.mp4 is long\n"
