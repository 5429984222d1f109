"""Films as phones, recorders, browsers and cutters leave them: right in time, upright, and said where it is odd."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import ExifTags, Image

from flexiact.media.files import MediaError
from flexiact.media.frame_times import Timing, spread
from flexiact.media.video import check_clip, fit_frames, read_clip, read_timing, read_video
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
    assert timing.window(3.0, 1.0, 25) == [*range(72, 97)] and timing.window(0.0, 4.0, 97) == [*range(97)]
    with pytest.raises(ValueError, match=r"start: a clip of .* leaves the video of 4.00 s"):
        timing.window(start_s, length_s, 9)


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


HELD = [n / 8 for n in range(5)]  # the square moves for half a second, then stands for another half


def _held(path: Path) -> Path:
    """Write a film whose last frame is stored once and lasts 5 steps."""
    first, *others = [Image.fromarray(frame) for frame in moving(HELD)]
    if path.suffix != ".mp4":
        options = {"lossless": True} if path.suffix == ".webp" else {}
        lasting = [120] * 4 + [600]  # GIF counts in hundredths
        first.save(path, save_all=True, append_images=others, duration=lasting, loop=0, **options)
        return path
    source = write_film(path.with_name("source.mp4"), moving(HELD), HELD, rate=8, options={"bf": "0"})
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        film = given.streams.video[0]
        copy = output.add_stream_from_template(film)
        packets = [packet for packet in given.demux(film) if packet.size]
        packets[-1].duration *= 5
        for packet in packets:
            packet.stream = copy
            output.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.mp4"])
def test_the_last_frame_counts_for_as_long_as_it_is_held(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _held(tmp_path / name)
    clip, whole = read_clip(path, 9, 32, 160), read_video(path)
    assert places(clip.frames) == pytest.approx([0, 3, 6, 9, 12, 12, 12, 12, 12], abs=1)
    assert clip.fps == pytest.approx(8, rel=0.05)
    notes = {line.partition(path.name)[2].strip() for line in capsys.readouterr().err.splitlines()}
    assert notes == {"holds its last frame, which counts for as long as it is shown"}
    np.testing.assert_array_equal(fit_frames(whole, 9, 32, 160).frames, clip.frames)
    unheld = read_timing(path).unheld()
    assert (unheld.count, unheld.times) == (len(HELD), None) and unheld.fps == pytest.approx(8, rel=0.05)
    assert read_timing(path).steadily(8.0)[0][-2:] == [4, 4]


@pytest.mark.parametrize("last_s", [0.275, 0.5, 60.0])
def test_a_window_may_lie_in_a_last_frame_that_is_held(last_s: float) -> None:
    timing = Timing.measured(HELD, None, HELD[-1] + last_s)
    assert timing.held and timing.stored == 5
    assert timing.window(0.0, 0.5, 5) == [0, 1, 2, 3, 4]
    assert timing.window(0.25, HELD[-1] + last_s - 0.375, 3)[::2] == [2, 4]
    assert timing.window(0.5 + last_s - 0.2, 0.05, 9) == [4] * 9
    with pytest.raises(ValueError, match="leaves the video"):
        timing.window(0.5, last_s, 9)


@pytest.mark.parametrize("missing", [2, 4])
def test_what_is_cut_off_is_not_held(tmp_path: Path, missing: int, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [n / 24 for n in range(100)]
    options = {"bf": "0", "g": "1"}
    path = write_film(tmp_path / "a.mp4", moving(seconds, 300), seconds, options=options)
    with av.open(str(path)) as opened:
        places_in_file = [packet.pos for packet in opened.demux(opened.streams.video[0]) if packet.size]
    content = path.read_bytes()
    head = content.index(b"moov") - 4
    cut, moov = places_in_file[-missing], content[head:]
    path.write_bytes(content[:cut] + bytes(head - cut) + moov)  # the frames are gone, the header promises them
    try:
        timing = read_timing(path)
    except MediaError as error:
        assert "damaged" in str(error) or "truncated" in str(error)
    else:
        assert not timing.held and timing.fps == pytest.approx(24, rel=0.01)
    assert "holds its last frame" not in capsys.readouterr().err


def test_frames_of_one_timestamp_are_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [n / 24 for n in range(24)] + [1 + n / 8 for n in range(9)]
    doubled = seconds.copy()
    doubled[10] = doubled[9]
    path = write_film(tmp_path / "a.mkv", moving(seconds), doubled, codec="ffv1")
    clip = read_clip(path, 9, 32, 160)
    assert places(clip.frames) == pytest.approx(SPEED * np.linspace(0, 2, 9), abs=2)
    assert "frames of one timestamp" in capsys.readouterr().err
    assert spread([0.0, 1.0, 1.0, *range(2, 20), 19.0]) == [0, 1, 1.5, *range(2, 20), 20]
    assert spread([0.0, 1.0, 1.0, 2.0]) is None and spread([0.0, 2.0, 1.0, 3.0]) is None


def test_a_rate_that_is_nearly_right_is_not_taken(tmp_path: Path) -> None:
    for seconds, told, true in (([0.0, 2.0, 4.0], 0.6, 0.5), ([n / 8 for n in range(9)], 7.58, 8)):
        timing = Timing.measured(seconds, told)
        assert timing.times is None and timing.fps == pytest.approx(true)
    rounded = [round(1000 * n / 30) / 1000 for n in range(3)]
    assert Timing.measured(rounded, 30.0).fps == 30


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
    with pytest.raises(MediaError, match=r"a.mkv: (damaged or )?truncated"):
        read_timing(path)


def test_nothing_before_a_trimmed_film_is_not_missed(tmp_path: Path) -> None:
    late = [0.7 + second for second in STEADY[:49]]
    path = write_film(tmp_path / "a.mp4", moving(STEADY[:49]), late, options={"bf": "0", "g": "1"})
    content = path.read_bytes()
    edits = content.index(b"elst") + 12
    length, begin = 1000, round(0.75 * 1000)  # of the second edit, in thousandths of a second, from the film's 0.75 s
    with av.open(str(path)) as opened:
        begin = round(0.75 / opened.streams.video[0].time_base)
    second = struct.pack(">Ii", length, begin)
    path.write_bytes(content[: edits + 12] + second + content[edits + 12 + len(second) :])
    video = read_video(path)
    assert len(video.frames) == pytest.approx(24, abs=1)
    assert places(video.frames)[0] == pytest.approx(SPEED * 0.75, abs=1)


def test_a_gif_without_its_end_is_refused(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.gif", moving(STEADY[:12]), STEADY[:12], codec="gif")
    content = path.read_bytes()
    assert read_timing(path).count == 12
    path.write_bytes(content + b"\r\n")
    assert read_timing(path).count == 12
    for length in range(len(content) // 2, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(MediaError, match="a.gif: .*(truncated|damaged)"):
            read_timing(path)


def _time_lapse(path: Path, turns: Sequence[int]) -> Path:
    """Copy a camera's pictures, turned by their EXIF, into a film without encoding them."""
    for index, (frame, turn) in enumerate(zip(moving(STEADY), turns, strict=False)):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        Image.fromarray(frame).save(path.with_name(f"{index:03d}.jpg"), exif=exif, quality=95)
    with av.open(str(path.with_name("%03d.jpg"))) as given, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    return path


@pytest.mark.parametrize("name", ["a.mov", "a.avi", "a.mkv"])
def test_frames_may_hold_a_camera_s_exif(tmp_path: Path, name: str) -> None:
    assert read_video(_time_lapse(tmp_path / name, [1] * 5)).frames.shape == (5, 32, 160, 3)
    assert read_video(_time_lapse(tmp_path / name, [6] * 5)).frames.shape == (5, 160, 32, 3)
    with pytest.raises(MediaError, match="only some frames are turned"):
        read_timing(_time_lapse(tmp_path / name, [1, 1, 3, 1, 1]))


def test_a_photo_is_no_film(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A"
    Image.fromarray(moving([0.0])[0]).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(MediaError, match="a.jpg: holds one frame"):
        check_clip(tmp_path / "a.jpg")


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


def with_sound(path: Path, film_s: float, sound_s: float) -> Path:
    """A film at 24 frames a second beside noise, packets in the order of time."""
    with av.open(str(path), "w") as output:
        stream, sound = output.add_stream("ffv1", rate=24), output.add_stream("flac", rate=8000)
        stream.height, stream.width, stream.pix_fmt = 32, 160, "bgr0"
        noise = np.random.default_rng(0).integers(-(2**15), 2**15, (1, 2000), dtype=np.int16)
        for quarter in range(round(4 * max(film_s, sound_s))):
            if quarter < 4 * film_s:
                for frame in moving([quarter / 4 + n / 24 for n in range(6)]):
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if quarter < 4 * sound_s:
                heard = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
                heard.sample_rate, heard.pts = 8000, 2000 * quarter
                output.mux(sound.encode(heard))
        output.mux([*stream.encode(None), *sound.encode(None)])
    return path


@pytest.mark.parametrize(("film_s", "sound_s"), [(2.0, 2.0), (2.0, 4.0), (4.0, 2.0)])
def test_sound_does_not_hide_that_a_film_is_cut(tmp_path: Path, film_s: float, sound_s: float) -> None:
    path = with_sound(tmp_path / "a.mkv", film_s, sound_s)
    assert read_timing(path).count == 24 * film_s
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(MediaError, match="a.mkv: "):
        read_timing(path)


def test_another_stream_may_last_longer_than_the_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("ffv1", rate=24) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 160, "bgr0"
        for stream, count in zip(streams, (24, 48), strict=True):
            for frame in moving([n / 24 for n in range(count)]):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            output.mux(stream.encode(None))
    assert read_timing(path).count == 24
    assert "holds 2 films, of which the first is read" in capsys.readouterr().err


def test_a_late_start_does_not_hide_that_a_film_is_cut(tmp_path: Path) -> None:
    """Cameras that run on write the time of day."""
    path = write_film(tmp_path / "a.mkv", moving(STEADY), [3600 + second for second in STEADY], codec="ffv1")
    assert read_timing(path).count == 97
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(MediaError, match=r"a.mkv: (damaged or truncated|truncated, .* of 4.04 s)"):
        read_timing(path)


def test_a_broadcast_may_begin_between_whole_frames(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.ts", moving(STEADY), STEADY, options={"g": "24"})
    content = path.read_bytes()
    path.write_bytes(content[188 * (len(content) // 188 // 3) :])
    assert 24 < read_timing(path).count < 97


@pytest.mark.parametrize(("codec", "pixels", "name"), [("qtrle", "argb", "a.mov"), ("apng", "rgba", "a.png")])
def test_a_film_s_transparency_turns_white_as_a_picture_s_does(
    tmp_path: Path, codec: str, pixels: str, name: str
) -> None:
    shown = np.zeros((32, 48, 4), dtype=np.uint8)
    shown[:, :16], shown[:, 16:32] = (200, 30, 60, 255), (200, 30, 60, 51)
    with av.open(str(tmp_path / name), "w", format=None if codec == "qtrle" else "apng") as output:
        stream = output.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgba").reformat(format=pixels)))
        output.mux(stream.encode(None))
    frames = read_video(tmp_path / name).frames
    np.testing.assert_array_equal(frames[2][8, [8, 24, 40]], [(200, 30, 60), (244, 210, 216), (255, 255, 255)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x264-params": "interlaced=1"}, "is interlaced"),
        ({"x264-params": "colorprim=smpte432"}, "has colours of Display P3"),
        ({"x264-params": "colorprim=bt2020"}, "has colours of BT.2020"),
        ({"x264-params": "colorprim=bt2020:transfer=smpte2084"}, r"is HDR \(PQ\)"),
        ({"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}, ""),
    ],
)
def test_what_a_player_would_show_otherwise_is_said(
    tmp_path: Path, options: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_film(tmp_path / "a.mp4", moving(STEADY[:9]), STEADY[:9], options=options)
    read_timing(path)
    said = capsys.readouterr().err
    assert re.fullmatch(f"note: {path} {says}.*\n", said) if says else said == ""


@pytest.mark.parametrize("codec", ["libx264", "mjpeg"])
def test_of_two_films_the_first_is_read_and_a_short_cover_is_none(
    tmp_path: Path, codec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        streams = [output.add_stream(codec, rate=8) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 160, pixels
        for index, frame in enumerate(moving([n / 8 for n in range(12)])):
            for stream in streams[1:] if codec == "mjpeg" and index else streams:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux([packet for stream in streams for packet in stream.encode(None)])
    assert read_timing(tmp_path / "a.mov").count == 12
    assert ("holds 2 films, of which the first is read" in capsys.readouterr().err) == (codec == "libx264")


def test_frames_without_a_duration_last_as_browsers_show_them(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(frame) for frame in moving([0, 1, 2, 3])]
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=0, lossless=True)
    assert read_timing(tmp_path / "a.webp").fps == pytest.approx(10)


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
