"""Folders of pictures as videos: their order, what is left alone, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flexiact.media.files import MediaError
from flexiact.media.frame_folder import pictures_in
from flexiact.media.image import fit_image, write_png
from flexiact.media.video import read_clip, read_timing, read_video
from tests.support.backbones import HEIGHT, WIDTH
from tests.support.real_material import moving, write_pictures


def test_pictures_are_the_frames_of_a_video(tmp_path: Path) -> None:
    write_pictures(tmp_path, num_frames=12, suffix=".png")
    frames = moving(12)
    np.testing.assert_array_equal(read_video(tmp_path).frames, frames)
    assert (read_timing(tmp_path).count, read_timing(tmp_path).fps) == (12, 24.0)
    clip = read_clip(tmp_path, 9, HEIGHT, WIDTH)
    chosen = np.rint(np.linspace(0, 11, 9)).astype(int)
    np.testing.assert_array_equal(clip.frames, [fit_image(frames[index], HEIGHT, WIDTH) for index in chosen])
    assert clip.fps == pytest.approx(24 * 8 / 11)


def test_numbers_in_names_count_by_their_value(tmp_path: Path) -> None:
    for name in ("frame10.png", "frame9.PNG", "frame11.jpg"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["frame9.PNG", "frame10.png", "frame11.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cover.png"], "cover.png: is no numbered frame like 00000.jpg"),
        (["0.png", "1.png", "cover.png"], "cover.png: is no numbered frame like 0.png; .* holds its frames alone"),
        (["00001.jpg", "00001_mask.png"], "00001_mask.png: is no numbered frame like 00001.jpg"),
        (["a1.png", "b2.png"], "b2.png: is no numbered frame like a1.png"),
        (["1.png", "01.jpg"], "two pictures have number 1"),
        (["0.png", "1.png", "2.png", "6.png"], "frames are missing, after 2 comes 6; the first two are 1 apart"),
        (["0.png", "5.png", "10.png", "11.png"], "frames are missing, after 10 comes 11; the first two are 5 apart"),
    ],
)
def test_folders_of_more_or_less_than_frames_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(MediaError, match=message):
        pictures_in(tmp_path)


def test_every_fifth_frame_will_do(tmp_path: Path) -> None:
    for number in (0, 5, 10):
        (tmp_path / f"{number:05d}.jpg").touch()
    assert len(pictures_in(tmp_path)) == 3


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path, num_frames=3)
    for name in ("notes.txt", "Thumbs.db", ".hidden.png"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "more.png").mkdir()
    assert read_timing(tmp_path).count == 3


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder without pictures"):
        read_clip(tmp_path, 9, HEIGHT, WIDTH)
    write_png(tmp_path / "1.png", moving(1)[0])
    with pytest.raises(MediaError, match="holds one frame, which shows no action"):
        read_clip(tmp_path, 9, HEIGHT, WIDTH)
    Image.new("RGB", (30, 20)).save(tmp_path / "2.png")
    for read in (read_video, read_timing):
        with pytest.raises(MediaError, match=r"2.png: 30 x 20 pixels when upright, 1.png has 72 x 48"):
            read(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"2.png: not a readable image"):
        read_video(tmp_path)
