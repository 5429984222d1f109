"""Reading and writing video and images."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flexiact.media.files import MediaError, WriteError
from flexiact.media.image import fit_image, read_image, write_png
from flexiact.media.video import (
    fit_frames,
    frames_digest,
    read_clip,
    read_frames,
    read_timing,
    read_video,
    write_lossless,
    write_preview,
)
from flexiact.task import Request, Video
from tests.support.backbones import random_frames


@pytest.mark.parametrize("fps", [8.0, 24000 / 1001, 25.0])
def test_lossless_gives_back_the_same_frames_and_rate(tmp_path: Path, fps: float):
    video = Video(random_frames(0), fps)
    write_lossless(tmp_path / "a.mkv", video)
    again = read_video(tmp_path / "a.mkv")
    np.testing.assert_array_equal(again.frames, video.frames)
    assert again.fps == pytest.approx(fps, rel=1e-6)
    assert os.listdir(tmp_path) == ["a.mkv"]


@pytest.mark.parametrize("size", [(16, 24), (15, 23), (1, 1)])
def test_preview_is_h264_that_browsers_play(tmp_path: Path, size: tuple[int, int]):
    write_preview(tmp_path / "a.mp4", Video(random_frames(0, 3, *size), 8.0), scale=3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == tuple(3 * side // 2 * 2 for side in size)
        assert sum(1 for _ in container.decode(stream)) == 3
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before all of it is there


def test_preview_keeps_colours(tmp_path: Path):
    frames = np.full((9, 16, 16, 3), (200, 60, 40), dtype=np.uint8)
    write_preview(tmp_path / "a.mp4", Video(frames, 8.0))
    assert np.abs(read_video(tmp_path / "a.mp4").frames.astype(int) - (200, 60, 40)).max() <= 6


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.8, 0.97])
def test_truncated_video_is_refused_in_one_line(tmp_path: Path, share: float):
    for write, name in ((write_lossless, "a.mkv"), (write_preview, "a.mp4")):
        path = tmp_path / name
        write(path, Video(random_frames(0), 8.0))
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        for read in (read_video, lambda path: read_clip(path, 9, 16, 24)):
            with pytest.raises(MediaError) as caught:
                read(path)
            assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "no such file"),
        ("note.mp4", "cannot be decoded"),
        ("note.txt", "holds no video stream"),  # which FFmpeg takes for a film of a terminal
        ("empty.mp4", "is empty"),
        ("folder", "is a folder without pictures, expected a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, message: str):
    (tmp_path / "note.mp4").write_text("not a video")
    (tmp_path / "note.txt").write_text("not a video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    for read in (read_video, lambda path: read_clip(path, 9, 16, 24)):
        with pytest.raises(MediaError, match=f"{name}: .*{message}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [2, 3, 9, 20])
def test_clip_is_what_fitting_the_whole_gives(tmp_path: Path, count: int):
    write_lossless(tmp_path / "a.mkv", Video(random_frames(0, count, 20, 30), 12.0))
    whole, clip = fit_frames(read_video(tmp_path / "a.mkv"), 9, 16, 24), read_clip(tmp_path / "a.mkv", 9, 16, 24)
    np.testing.assert_array_equal(clip.frames, whole.frames)
    assert clip.fps == whole.fps
    with pytest.raises(ValueError, match="num_frames"):
        read_clip(tmp_path / "a.mkv", 0, 16, 24)


def test_frames_are_read_by_their_index(tmp_path: Path):
    video = Video(random_frames(0, 20, 20, 30), 12.0)
    write_lossless(tmp_path / "a.mkv", video)
    assert (read_timing(tmp_path / "a.mkv").count, read_timing(tmp_path / "a.mkv").fps) == (20, 12.0)
    frames = read_frames(tmp_path / "a.mkv", [19, 3], 16, 24)
    assert sorted(frames) == [3, 19]
    for index, frame in frames.items():
        np.testing.assert_array_equal(frame, fit_image(video.frames[index], 16, 24))
    with pytest.raises(MediaError, match="a.mkv: has no frame 20"):
        read_frames(tmp_path / "a.mkv", [3, 20], 16, 24)


def test_one_frame_is_no_clip(tmp_path: Path):
    write_png(tmp_path / "image.png", random_frames(0)[0])
    with pytest.raises(MediaError, match="one frame, which shows no action"):
        read_clip(tmp_path / "image.png", 9, 16, 24)


def test_failed_write_leaves_nothing(tmp_path: Path):
    with pytest.raises(WriteError, match="a.mkv"):
        write_lossless(tmp_path / "missing" / "a.mkv", Video(random_frames(0), 8.0))
    (tmp_path / "folder.mkv").mkdir()
    with pytest.raises(WriteError, match="folder.mkv"):
        write_lossless(tmp_path / "folder.mkv", Video(random_frames(0), 8.0))
    with pytest.raises(WriteError, match="image.png"):
        write_png(tmp_path / "missing" / "image.png", random_frames(0)[0])
    assert os.listdir(tmp_path) == ["folder.mkv"]


def test_turned_video_comes_upright(tmp_path: Path):
    frames = np.zeros((3, 16, 24, 3), dtype=np.uint8)
    frames[:, :8] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    content = (tmp_path / "a.mp4").read_bytes()
    identity = b"".join(n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    clockwise = b"".join(n.to_bytes(4, "big") for n in (0, 0x10000, 0, 0xFFFF0000, 0, 0, 0, 0, 0x40000000))
    track = content.index(b"tkhd")
    at = content.index(identity, track)
    (tmp_path / "a.mp4").write_bytes(content[:at] + clockwise + content[at + 36 :])
    turned = read_video(tmp_path / "a.mp4").frames
    assert turned.shape == (3, 24, 16, 3)
    # Turned clockwise, what was on top is on the right.
    assert turned[:, :, 12:].min() > 200 and turned[:, :, :4].max() < 50


def test_digest_is_of_frames_and_shape():
    frames = random_frames(0)
    assert frames_digest(frames) == frames_digest(Video(frames, 8.0)) == frames_digest(Video(frames.copy(), 30.0))
    assert frames_digest(frames) != frames_digest(frames.reshape(9, 24, 16, 3))
    assert frames_digest(frames[:, ::-1]) == frames_digest(np.ascontiguousarray(frames[:, ::-1]))
    changed = frames.copy()
    changed[4, 3, 2, 1] ^= 1
    assert frames_digest(changed) != frames_digest(frames)
    with pytest.raises(ValueError, match="frames"):
        frames_digest(frames.astype(np.float32))


def test_fitting_keeps_ends_duration_and_what_fits():
    video = Video(random_frames(0, 17), 16.0)
    assert fit_frames(video, 17, 16, 24) is video
    fitted = fit_frames(video, 9, 16, 24)
    np.testing.assert_array_equal(fitted.frames, video.frames[::2])
    assert fitted.fps == 8.0
    assert fit_frames(Video(video.frames[:1], 8.0), 9, 8, 8).frames.shape == (9, 8, 8, 3)
    with pytest.raises(ValueError, match="num_frames"):
        fit_frames(video, 0, 16, 24)


def test_fitting_an_image_cuts_the_centre():
    image = np.zeros((40, 120, 3), dtype=np.uint8)
    image[:, 40:80] = 200
    fitted = fit_image(image, 20, 20)
    assert fitted.shape == (20, 20, 3) and (fitted[:, 2:-2] == 200).all()
    assert fit_image(image, 40, 120) is image
    with pytest.raises(ValueError, match="size"):
        fit_image(image, 0, 4)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str):
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 8), 204 * 257, dtype=np.uint16))
    else:
        image = Image.new("RGB", (8, 6), (204, 204, 204)).convert(mode)
    path = tmp_path / ("a.tif" if mode in {"CMYK", "I;16"} else "a.png")
    image.save(path)
    read = read_image(path)
    assert read.shape == (6, 8, 3) and read.dtype == np.uint8
    assert mode == "1" or np.abs(read.astype(int) - 204).max() <= 1


def test_transparency_turns_white_and_exif_turns_upright(tmp_path: Path):
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(random_frames(0, 1)[0]).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (24, 16, 3)


def test_png_round_trip_and_damaged_images(tmp_path: Path):
    image = random_frames(0)[0]
    write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_text("not an image")
    (tmp_path / "d.png").touch()
    (tmp_path / "e.png").mkdir()
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "f.tif")
    for name in ("b.png", "c.png", "d.png", "e.png", "f.tif", "missing.png"):
        with pytest.raises(MediaError, match=name) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_large_pictures_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_png(tmp_path / "a.png", random_frames(0)[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # the picture has 384; from twice the number on it is refused
    assert read_image(tmp_path / "a.png").shape == (16, 24, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match="a.png"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("frames", "fps", "field"),
    [
        (random_frames(0).astype(np.float32), 8.0, "frames"),
        (random_frames(0)[0], 8.0, "frames"),
        (random_frames(0)[:0], 8.0, "frames"),
        (random_frames(0)[..., :1], 8.0, "frames"),
        (random_frames(0).tolist(), 8.0, "frames"),
        (random_frames(0), 0.0, "fps"),
        (random_frames(0), float("nan"), "fps"),
        (random_frames(0), "8", "fps"),
    ],
)
def test_video_names_the_bad_field(frames, fps, field):
    with pytest.raises(ValueError, match=field):
        Video(frames, fps)


@pytest.mark.parametrize(
    ("target", "prompt", "seed", "field"),
    [
        (random_frames(0), "a dog", 0, "target"),
        (random_frames(0)[0].astype(np.int64), "a dog", 0, "target"),
        (random_frames(0)[0], b"a dog", 0, "prompt"),
        (random_frames(0)[0], "a dog", -1, "seed"),
        (random_frames(0)[0], "a dog", 2**63, "seed"),
        (random_frames(0)[0], "a dog", 0.5, "seed"),
        (random_frames(0)[0], "a dog", True, "seed"),
    ],
)
def test_request_names_the_bad_field(target, prompt, seed, field):
    with pytest.raises(ValueError, match=field):
        Request(target, prompt, seed)
