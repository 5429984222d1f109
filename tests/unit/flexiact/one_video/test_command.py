"""`python -m flexiact`: one image and one reference video in, one video out, and one line for whatever is wrong."""

import os
import re
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from flexiact.__main__ import _NEEDED, main, parser
from flexiact.backbone.specs import BACKBONES
from flexiact.media.image import write_png
from flexiact.media.video import read_video, write_lossless, write_preview
from flexiact.method import PRESETS, FlexiAct
from flexiact.task import Video
from tests.support.backbones import random_frames, save_tiny_folder, save_tiny_refadapter, tiny_backbone
from tests.support.quick_help import help_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model in diffusers' layout, and its RefAdapter beside it."""
    root, backbone = tmp_path_factory.mktemp("model"), tiny_backbone()
    save_tiny_refadapter(root / "refadapter", backbone)
    return save_tiny_folder(root / "tiny", backbone)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that goes wrong by name; the command runs in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    write_png(tmp_path / "cat.png", random_frames(2, 1, 40, 50)[0])
    write_png(tmp_path / "dog.png", random_frames(3, 1, 20, 40)[0])
    write_preview(tmp_path / "dance.mp4", Video(random_frames(1, 12, 20, 30), 12.0))
    write_lossless(tmp_path / "short.mkv", Video(random_frames(1, 3, 20, 30), 8.0))
    content = (tmp_path / "dance.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "cut.png").write_bytes((tmp_path / "cat.png").read_bytes()[:200])
    (tmp_path / "note.mp4").write_text("no video\n" * 20)
    (tmp_path / "note.txt").write_text("no video\n" * 20)
    (tmp_path / "note.png").write_text("no image")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "other_model" / "transformer").mkdir(parents=True)
    (tmp_path / "other_model" / "transformer" / "config.json").write_text('{"sample_frames": 81}')
    return tmp_path


def arguments(model: Path | None, **changes: object) -> list[str]:
    """A quick call that works; a change to None leaves an argument out."""
    values: dict[str, object] = {
        "image": "cat.png",
        "reference": "dance.mp4",
        "caption": "a red bird jumps",
        "prompt": "a blue dog jumps",
        "out": "out.mp4",
        "backbone": model,
        "refadapter": model and model.parent / "refadapter",
        "fit-steps": 2,
        "steps": 2,
        "device": "cpu",
    }
    chosen = values | {name.replace("_", "-"): value for name, value in changes.items()}
    return [text for name, value in chosen.items() if value is not None for text in (f"--{name}", str(value))]


def outcome(call: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main(call)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_video_is_made_and_the_fit_is_used_again(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.random.get_rng_state()
    code, out, err = outcome(arguments(model), capsys)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"out\.mp4; made in [\d.]+ s: fit [\d.]+ s \(.*caches.*\.safetensors\), transfer .*\n", out)
    with av.open("out.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.height, stream.width) == ("h264", 256, 384)
        assert sum(1 for _ in container.decode(stream)) == 9
    assert torch.equal(torch.random.get_rng_state(), state)

    monkeypatch.setattr(FlexiAct, "fit", None)  # a second fit would fail
    code, out, err = outcome(arguments(model, image="dog.png", out="again.mkv", prompt="a dog"), capsys)
    assert (code, err) == (0, "") and out.startswith("again.mkv; made in") and "fit found (" in out
    assert read_video("again.mkv").frames.shape == (9, 16, 24, 3)
    assert len(list((files / "caches" / "flexiact").iterdir())) == 1


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"caption": "a dog"}, {"reference": "short.mkv"}, {"fit_steps": 3}, {"refadapter": "none"}]
)
def test_a_fit_is_found_by_what_it_depends_on(
    change: dict[str, object], model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(arguments(model, cache="c"), capsys)[0] == 0
    code, out, _ = outcome(arguments(model, cache="c", **change), capsys)
    assert code == 0
    assert ("fit found" in out) == ("refadapter" in change)  # which is read at transfer alone


def test_same_seed_same_video_and_a_damaged_fit_is_made_again(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert outcome(arguments(model, out=f"{name}.mkv", cache="c"), capsys)[0] == 0
    (fit,) = Path("c").iterdir()
    content = fit.read_bytes()
    fit.write_bytes(content[:100])
    code, out, _ = outcome(arguments(model, out="c.mkv", cache="c"), capsys)
    assert code == 0 and "fit found" not in out and fit.read_bytes() == content
    outcome(arguments(model, out="d.mkv", cache="c", seed=1), capsys)
    a, b, c, d = (read_video(f"{name}.mkv").frames for name in "abcd")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert (a != d).any()


def test_odd_images_and_few_frames_are_taken(model: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.fromarray(random_frames(4, 1, 30, 30)[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save("turned.jpg", exif=exif)
    for mode in ("RGBA", "P", "L"):
        picture.convert(mode).save(f"{mode}.png")
    picture.convert("CMYK").save("CMYK.jpg")
    Image.fromarray(np.full((20, 20), 40000, np.uint16)).save("deep.png")
    for name in ("turned.jpg", "RGBA.png", "P.png", "L.png", "CMYK.jpg", "deep.png"):
        call = arguments(model, image=name, reference="short.mkv", fit_steps=1, steps=1, out=f"{name}.mp4")
        assert outcome(call, capsys)[0] == 0
        assert Path(f"{name}.mp4").is_file()


def test_a_long_reference_is_taken_with_a_note(model: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lossless("film.mkv", Video(random_frames(1, 60, 20, 30), 8.0))
    code, out, err = outcome(arguments(model, reference="film.mkv", fit_steps=1, steps=1), capsys)
    assert code == 0 and out.count("\n") == 1
    assert (
        err
        == "note: film.mkv is long: 9 of its frames, 0.92 s apart, are read; cut it to the action, or give --start\n"
    )


def test_a_reference_that_is_played_faster_is_taken_with_a_note(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lossless("film.mkv", Video(random_frames(1, 13, 20, 30), 8.0))
    code, _, err = outcome(arguments(model, reference="film.mkv", fit_steps=1, steps=1), capsys)
    assert code == 0
    fast = "film.mkv is longer than the clip, which shows its action 1.5 times as fast"
    assert err == f"note: {fast}; --start takes a part at its own speed\n"


def test_a_part_of_a_reference_is_taken_at_its_own_speed(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = random_frames(1, 13, 20, 30)
    write_lossless("film.mkv", Video(frames, 8.0))
    write_lossless("part.mkv", Video(frames[2:11], 8.0))
    videos = []
    for reference, start, said in (("film.mkv", 0.25, "is read from 0.25 s to 1.25 s"), ("part.mkv", None, "")):
        call = arguments(model, reference=reference, start=start, fit_steps=1, steps=1, out="out.mkv")
        code, _, err = outcome(call, capsys)
        assert code == 0 and said in err and err.count("\n") == bool(said)
        videos.append(read_video("out.mkv").frames)
    np.testing.assert_array_equal(*videos)
    code, _, err = outcome(arguments(model, reference="film.mkv", start=0.75, fit_steps=1, steps=1), capsys)
    assert code == 2 and "start: a clip of 1.00 s from 0.75 s leaves the video of 1.50 s" in err


def test_a_reference_may_be_a_folder_of_its_frames(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = Video(random_frames(1, 9, 20, 30), 24.0)
    write_lossless("clip.mkv", clip)
    Path("frames").mkdir()
    for number, frame in enumerate(clip.frames):
        write_png(f"frames/{number}.png", frame)
    videos = []
    for reference in ("clip.mkv", "frames"):
        code, out, err = outcome(arguments(model, reference=reference, fit_steps=1, steps=1, out="out.mkv"), capsys)
        assert (code, err) == (0, "") and out.count("\n") == 1
        videos.append(read_video("out.mkv").frames)
    np.testing.assert_array_equal(*videos)


def test_a_short_reference_is_taken_with_a_note(model: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lossless("blink.mkv", Video(random_frames(1, 3, 20, 30), 8.0))
    code, out, err = outcome(arguments(model, reference="blink.mkv", fit_steps=1, steps=1), capsys)
    assert code == 0 and out.count("\n") == 1
    assert err == "note: blink.mkv is short: 3 different frames stand for 9; give a video of the whole action\n"


WRONG: list[tuple[dict[str, object], str]] = [
    ({"image": "missing.png"}, "image: no such file: missing.png"),
    ({"image": "folder"}, "folder: is a folder, expected an image"),
    ({"image": "note.png"}, "note.png: not a readable image"),
    ({"image": "cut.png"}, "cut.png: not a readable image"),
    ({"image": "dance.mp4"}, "dance.mp4: not a readable image"),
    ({"reference": "missing.mp4"}, "reference: no such file: missing.mp4"),
    ({"reference": "folder.mp4"}, "folder.mp4: is a folder without pictures, expected a video"),
    ({"reference": "empty.mp4"}, "empty.mp4: is empty"),
    (
        {"reference": "note.mp4"},
        "note.mp4: no video, or a damaged one: cannot be decoded (Invalid data found when processing input)",
    ),
    ({"reference": "note.txt"}, "note.txt: "),
    ({"reference": "cut.mp4"}, "cut.mp4: "),
    ({"reference": "dog.png"}, "dog.png: holds one frame, which shows no action"),
    ({"out": "out.avi"}, "out: expected a name that ends in .mp4 or .mkv"),
    ({"out": "folder.mp4"}, "out: folder.mp4 is a folder"),
    ({"out": "nowhere/out.mp4"}, "out: there is no folder nowhere"),
    ({"out": "dance.mp4"}, "out: dance.mp4 is the reference, which would be lost"),
    ({"out": None}, "missing: --out"),
    ({"caption": None, "image": None}, "missing: --image --caption"),
    ({"seed": -1}, "seed: expected 0 <= seed"),
    ({"seed": "x"}, "argument --seed: invalid int value"),
    ({"steps": 0}, "steps: expected a number above 0, got 0"),
    ({"fit_steps": -3}, "fit-steps: expected a number above 0, got -3"),
    ({"device": "gpu"}, "device: unknown name 'gpu'"),
    ({"method_preset": "papers"}, f"method-preset: unknown name 'papers' (known: {', '.join(PRESETS)})"),
    ({"cache": "cat.png"}, "cache: no folder can be made at cat.png"),
    ({"refadapter": "missing"}, "refadapter: no folder missing"),
    ({"refadapter": "folder"}, "refadapter: cannot be read from folder"),
    ({"refadapter": None}, "comes without a RefAdapter; give --refadapter FOLDER"),
    ({"backbone": "pupets"}, "backbone: unknown name 'pupets', did you mean 'puppets'?"),
    ({"backbone": "./missing"}, "backbone: ./missing is no folder"),
    ({"backbone": "cat.png"}, "backbone: cat.png is no folder"),
    ({"backbone": "folder"}, "backbone: folder holds no model in diffusers' layout"),
    ({"backbone": "other_model"}, "backbone: other_model needs a puppets.json that says num_frames, height"),
    ({"backbone": "cogvideox-5b-i2v", "refadapter": None}, "backbone cogvideox-5b-i2v comes without a RefAdapter"),
    ({"backbone": None}, "backbone: the built-in model only knows puppets; give --backbone cogvideox-5b-i2v"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    changes: dict[str, object], message: str, model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()}
    code, out, err = outcome(arguments(model, **changes), capsys)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ([], "nothing to do"),
        (["--demo", "--image", "cat.png"], "image: does not go with --demo"),
        (["--demo", "--backbone", "cogvideox-5b-i2v"], "backbone: the demo runs on puppets"),
        (["--demo", "--out", "cat.png"], "out: no folder can be made at cat.png"),
        (["--demo", "--seed", "-1"], "seed: expected 0 <= seed"),
        (["--demo", "--web"], "not allowed with argument"),
        (["--web", "--out", "a.mp4"], "out: does not go with --web"),
        (["--web", "--backbone", "puppets"], "web: gradio is not installed; install it with: pip install"),
        (["--imag", "cat.png"], "unrecognized arguments"),
    ],
)
def test_modes_say_what_they_cannot_do(
    call: list[str],
    message: str,
    files: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # absent, whatever is installed
    code, out, err = outcome(call, capsys)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert not (files / "flexiact-demo").exists()


def test_interrupting_leaves_no_video(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlexiAct, "transfer", interrupted)
    code, out, err = outcome(arguments(model), capsys)
    assert (code, out) == (130, "") and "stopped" in err
    assert not Path("out.mp4").exists()
    monkeypatch.undo()
    monkeypatch.chdir(files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(files / "caches"))
    code, out, _ = outcome(arguments(model), capsys)
    assert code == 0 and "fit found" in out  # what was learned before the interruption is kept


def test_too_little_memory_is_said_in_one_line(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(FlexiAct, "fit", full)
    code, _, err = outcome(arguments(model), capsys)
    assert (code, err) == (2, "error: device: too little memory (CUDA out of memory. Tried to allocate 2 GiB.)\n")
    assert not list((files / "caches" / "flexiact").iterdir())


@pytest.mark.slow
def test_demo_shows_two_puppets(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--demo", "--fit-steps", "2", "--steps", "2", "--device", "cpu"]
    code, out, err = outcome(call, capsys)
    assert (code, err) == (0, "") and out.startswith("flexiact-demo: ") and out.count("\n") == 1
    names = ["reference.mp4", "result.mp4", "side_by_side.mp4", "target.png"]
    assert sorted(os.listdir("flexiact-demo")) == names and all(name in out for name in names)
    reference, result, side = (read_video(Path("flexiact-demo") / name).frames for name in names[:3])
    assert reference.shape == result.shape == (9, 256, 256, 3) and side.shape == (9, 256, 768, 3)
    assert np.abs(side[:, :, :256].astype(int) - reference).mean() < 4
    assert np.abs(reference[0].astype(int) - reference[4]).max() > 100  # it moves
    assert "fit found" in outcome([*call, "--out", "second"], capsys)[1]


def test_help_is_quick_and_names_everything() -> None:
    shown, imported = help_of("flexiact")
    assert not imported & {"torch", "numpy", "diffusers", "transformers", "PIL", "av"}
    for name in (*BACKBONES, *(f"--{name}" for name in _NEEDED), "--demo", "--web"):
        assert name in shown
    assert parser().prog == "python -m flexiact"
