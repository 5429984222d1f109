"""Films as phones, recorders, browsers and cutters leave them: right in time, upright, and said where it is odd."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flexiact.media.files import MediaError
from flexiact.media.frame_times import Timing
from flexiact.media.video import fit_frames, read_clip, read_timing, read_video
from tests.support.films import SPEED, moving, places, remuxed, write_film

STEADY = [n / 24 for n in range(97)]
CLOCKS = {
    "slower": [n / 24 for n in range(24)] + [1 + n / 3 for n in range(10)],
    "faster": [n / 4 for n in range(8)] + [2 + n / 24 for n in range(49)],
    "dropped": [second for n, second in enumerate(STEADY) if n % 7 or n in {0, 96}],
    "burst": [n / 24 for n in range(6)] + [0.5, 1.0, 1.5, 2.0, 2.5, 3.0] + [3 + n / 24 for n in range(1, 25)],
}
CONTAINERS = {"a.mp4": "libx264", "a.mov": "libx264", "a.mkv": "libx264", "a.webm": "libvpx-vp9", "a.gif": "gif"}


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_frames_are_taken_at_equal_times(tmp_path: Path, name: str, clock: str) -> None:
    seconds = CLOCKS[clock]
    path = write_film(tmp_path / name, moving(seconds), seconds, codec=CONTAINERS[name])
    gap = max(np.diff(seconds))
    clip = read_clip(path, 9, 32, 160)
    wanted = SPEED * np.linspace(0, seconds[-1], 9)
    assert np.abs(np.array(places(clip.frames)) - wanted).max() <= SPEED * gap + 2
    assert clip.fps == pytest.approx(8 / seconds[-1], rel=0.02)
    whole = read_video(path)
    assert len(whole.frames) == len(seconds)
    np.testing.assert_array_equal(fit_frames(whole, 9, 32, 160).frames, clip.frames)


@pytest.mark.parametrize("clock", ["faster", "dropped", "steady"])
def test_a_window_keeps_its_speed(tmp_path: Path, clock: str) -> None:
    seconds = CLOCKS.get(clock, STEADY)
    path = write_film(tmp_path / "a.mkv", moving(seconds), seconds)
    clip = read_clip(path, 9, 32, 160, (2.0, 1.0))
    wanted = SPEED * np.linspace(2.0, 3.0, 9)
    assert np.abs(np.array(places(clip.frames)) - wanted).max() <= SPEED * 2 / 24 + 2
    assert clip.fps == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize(("start_s", "length_s"), [(-0.1, 1.0), (3.5, 1.0), (0.0, 5.0), (float("nan"), 1.0)])
def test_a_window_that_leaves_the_video_is_refused(start_s: float, length_s: float) -> None:
    timing = Timing.measured(STEADY, 24.0)
    assert timing.window(3.0, 1.0) == (72, 97) and timing.window(0.0, 4.0) == (0, 97)
    with pytest.raises(ValueError, match=r"start: a clip of .* leaves the video of 4.00 s"):
        timing.window(start_s, length_s)


def test_a_playlist_is_no_film(tmp_path: Path) -> None:
    """It would read another file, which no digest of this one knows."""
    write_film(tmp_path / "clip.mkv", moving(STEADY), STEADY)
    (tmp_path / "reference.mp4").write_text("ffconcat version 1.0\nfile clip.mkv\n")
    for read in (read_video, read_timing):
        with pytest.raises(MediaError, match="reference.mp4: holds no video stream"):
            read(tmp_path / "reference.mp4")


def test_a_variable_rate_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("slower", "faster"):
        read_timing(write_film(tmp_path / f"{name}.mkv", moving(CLOCKS[name]), CLOCKS[name]))
        assert f"{name}.mkv has a variable frame rate" in capsys.readouterr().err
    read_timing(write_film(tmp_path / "steady.mkv", moving(STEADY), STEADY))
    assert capsys.readouterr().err == ""


def test_a_frame_that_is_held_stands_until_the_next() -> None:
    timing = Timing(4, 0.75, np.array([0.0, 0.1, 3.0, 4.0]))
    assert timing.evenly(5) == [0, 1, 1, 2, 3]
    assert timing.steadily(2.0) == ([0, 1, 1, 1, 1, 1, 2, 2, 3], 2.0)
    steady = Timing.measured([n / 24 for n in range(9)], 24.0)
    assert steady.times is None and steady.steadily(8.0) == (range(9), 24.0)


@pytest.mark.parametrize("rate", [8, 24, 30, 50, 60])
@pytest.mark.parametrize("jitter_ms", [0, 1, 4])
def test_jitter_changes_nothing(tmp_path: Path, rate: int, jitter_ms: int) -> None:
    seconds = [n / rate + (n % 2) * jitter_ms / 1000 for n in range(20)]
    timing = read_timing(write_film(tmp_path / "a.mkv", moving(seconds), seconds, rate=rate, codec="ffv1"))
    assert (timing.count, timing.times) == (20, None) and timing.fps == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize(("header", "true"), [(1000, 24), (120, 30), (24, 8), (90, 25)])
def test_timestamps_overrule_a_header_s_rate(
    tmp_path: Path, header: int, true: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = [n / true for n in range(30)]
    path = write_film(tmp_path / "a.webm", moving(seconds), seconds, rate=header, codec="libvpx-vp9")
    timing = read_timing(path)
    assert timing.times is None and timing.fps == pytest.approx(true, rel=0.01)
    assert f"says {header} frames/s" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize(("earlier_s", "until_s"), [(2.0, np.inf), (1.5, np.inf), (0.25, np.inf), (2.0, 3.5)])
def test_what_an_edit_list_hides_is_not_missed(tmp_path: Path, name: str, earlier_s: float, until_s: float) -> None:
    source = write_film(tmp_path / "whole.mp4", moving(STEADY), STEADY)
    video = read_video(remuxed(source, tmp_path / name, earlier_s, until_s))
    left = [second for second in STEADY if earlier_s <= second < until_s]
    assert len(video.frames) == pytest.approx(len(left), abs=3)  # frames that are reordered may cross the end
    assert places(video.frames)[0] == pytest.approx(SPEED * earlier_s, abs=3)


@pytest.mark.parametrize("clock", ["slower", "burst"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_variable_rate_does_not_hide_that_a_film_is_cut(tmp_path: Path, clock: str, share: float) -> None:
    path = write_film(tmp_path / "a.mkv", moving(CLOCKS[clock]), CLOCKS[clock], codec="ffv1")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError, match="a.mkv: "):
        read_timing(path)


ONE, BACK = 0x10000, -0x10000


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((ONE, 0, 0, ONE), lambda f: f),
        ((BACK, 0, 0, ONE), lambda f: f[:, ::-1]),
        ((ONE, 0, 0, BACK), lambda f: f[::-1]),
        ((BACK, 0, 0, BACK), lambda f: f[::-1, ::-1]),
        ((0, ONE, BACK, 0), lambda f: np.rot90(f, -1)),
        ((0, BACK, ONE, 0), lambda f: np.rot90(f)),
        ((0, ONE, ONE, 0), lambda f: f.swapaxes(0, 1)),
        ((0, BACK, BACK, 0), lambda f: np.rot90(f, 2).swapaxes(0, 1)),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_turned_and_mirrored_films_come_as_players_show_them(
    tmp_path: Path, name: str, matrix: Sequence[int], upright, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.full((32, 48, 3), 90, dtype=np.uint8)
    frame[:12, :12], frame[:12, -12:], frame[-12:, :12] = (200, 30, 30), (30, 30, 200), (30, 180, 30)
    a, b, c, d = matrix
    path = write_film(
        tmp_path / name, [frame] * 6, [n / 8 for n in range(6)], rate=8, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30]
    )
    shown, expected = read_video(path).frames[0], upright(frame)
    assert shown.shape == expected.shape
    for row, column in ((4, 4), (4, -5), (-5, 4), (-5, -5)):
        assert np.abs(shown[row, column].astype(int) - expected[row, column]).max() < 25
    assert ("turned or mirrored" in capsys.readouterr().err) == (tuple(matrix) != (ONE, 0, 0, ONE))


@pytest.mark.parametrize("kind", ["marked", "unmarked", "marked thumbnail"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_cover_pictures_are_passed_over(tmp_path: Path, name: str, kind: str) -> None:
    film = moving([n / 8 for n in range(12)])
    with av.open(str(tmp_path / name), "w") as output:
        cover, stream = output.add_stream("mjpeg", rate=8), output.add_stream("libx264", rate=8)
        cover.height = cover.width = 32
        cover.pix_fmt = "yuvj420p"
        stream.height, stream.width, stream.pix_fmt = 32, 160, "yuv420p"
        if kind != "unmarked":
            mark = av.stream.Disposition.attached_pic
            cover.disposition = mark | av.stream.Disposition.timed_thumbnails if "thumb" in kind else mark
        picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 200, dtype=np.uint8), format="rgb24")
        output.mux(cover.encode(picture))
        output.mux(cover.encode(None))
        for frame in film:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    assert read_video(tmp_path / name).frames.shape == (12, 32, 160, 3)


def test_a_cover_alone_is_no_film(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as output:
        sound, cover = output.add_stream("aac", rate=44100), output.add_stream("mjpeg", rate=8)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono")
        quiet.sample_rate = 44100
        output.mux(sound.encode(quiet))
        output.mux(sound.encode(None))
        output.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        output.mux(cover.encode(None))
    with pytest.raises(MediaError, match="holds no video stream, only a cover picture"):
        read_video(tmp_path / "a.m4a")


@pytest.mark.parametrize("clock", CLOCKS)
def test_animated_webp_is_a_film(tmp_path: Path, clock: str) -> None:
    seconds = CLOCKS[clock]
    first, *others = [Image.fromarray(frame) for frame in moving(seconds)]
    lasting = [round(1000 * step) for step in np.diff(seconds)] + [40]
    path = tmp_path / "a.webp"
    first.save(path, save_all=True, append_images=others, duration=lasting, lossless=True, minimize_size=False)
    clip = read_clip(path, 9, 32, 160)
    wanted = SPEED * np.linspace(0, seconds[-1], 9)
    assert np.abs(np.array(places(clip.frames)) - wanted).max() <= SPEED * max(np.diff(seconds)) + 2
    first.save(tmp_path / "still.webp")
    with pytest.raises(MediaError, match="still.webp: holds one frame"):
        read_clip(tmp_path / "still.webp", 9, 32, 160)
    (tmp_path / "cut.webp").write_bytes(path.read_bytes()[:400])
    with pytest.raises(MediaError, match="cut.webp: no video, or a damaged one"):
        read_clip(tmp_path / "cut.webp", 9, 32, 160)
