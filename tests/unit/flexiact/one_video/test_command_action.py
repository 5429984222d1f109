"""`python -m flexiact --action`, and the options about memory: what is made, and what is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flexiact.__main__ import main
from flexiact.checkpoints.authors import Sizes
from flexiact.checkpoints.convert import import_file
from flexiact.checkpoints.ours import load_action, save_action
from flexiact.media.image import write_png
from flexiact.media.video import read_video, write_lossless
from flexiact.task import Video
from tests.support.backbones import random_frames, save_tiny_folder, save_tiny_refadapter, tiny_backbone
from tests.support.release_files import TINY, dense, embedding_state, written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, and its RefAdapter beside it."""
    root = tmp_path_factory.mktemp("model")
    save_tiny_refadapter(root / "refadapter", tiny_backbone())
    return save_tiny_folder(root / "tiny", tiny_backbone())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command runs in a folder with an image, a reference and an imported action."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    write_png(tmp_path / "cat.png", random_frames(2, 1, 40, 50)[0])
    write_lossless(tmp_path / "dance.mkv", Video(random_frames(1, 9, 20, 30), 8.0))
    import_file(written(dense(embedding_state(TINY, 5)), tmp_path / "fae.pt"), tmp_path / "jump.safetensors", "none")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_text("no tensors")
    return tmp_path


def call(model: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    capsys.readouterr()
    common = ["--image", "cat.png", "--prompt", "a dog jumps", "--backbone", str(model), "--device", "cpu"]
    common += ["--refadapter", str(model.parent / "refadapter"), "--steps", "2"]
    try:
        code = main([*common, *more])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_video_is_made_of_an_imported_action(model: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(model, capsys, "--action", "jump.safetensors", "--out", "a.mkv")
    assert (code, err) == (0, "")
    assert out.startswith("a.mkv; made in ") and "fit found (jump.safetensors), transfer " in out
    assert read_video("a.mkv").frames.shape == (9, 16, 24, 3)
    assert not (files / "caches").exists()  # nothing was learned


def test_a_kept_action_gives_the_video_of_its_reference(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--reference", "dance.mkv", "--caption", "a bird jumps", "--fit-steps", "2", "--cache", "c"]
    assert call(model, capsys, *shown, "--out", "a.mkv")[0] == 0
    (kept,) = Path("c").iterdir()
    code, _, err = call(model, capsys, "--action", str(kept), "--out", "b.mkv")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_video("a.mkv").frames, read_video("b.mkv").frames)
    code, _, err = call(model, capsys, "--action", str(kept), "--out", "c.mkv", "--offload")
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(read_video("a.mkv").frames, read_video("c.mkv").frames)


def test_a_kept_action_of_other_weights_is_taken_with_a_note(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--reference", "dance.mkv", "--caption", "a bird jumps", "--fit-steps", "1", "--cache", "c"]
    assert call(model, capsys, *shown, "--out", "a.mkv")[0] == 0
    (kept,) = Path("c").iterdir()
    with safe_open(kept, "pt") as file:
        fit = json.loads(file.metadata()["fit"])
    fit["backbone"]["revision"] = "0123456789abcdef"
    save_file(load_action(kept)[0], files / "older.safetensors", {"fit": json.dumps(fit)})
    code, _, err = call(model, capsys, "--action", "older.safetensors", "--out", "b.mkv")
    assert code == 0 and "note: older.safetensors was made for revision 0123456789ab of the backbone" in err


def test_an_action_of_other_weights_is_taken_with_a_note(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    action, _ = load_action(files / "jump.safetensors")
    save_action(action, files / "elsewhere.safetensors", {"backbone_revision": "0123456789abcdef"})
    code, _, err = call(model, capsys, "--action", "elsewhere.safetensors", "--out", "a.mkv")
    assert code == 0 and err.startswith("note: elsewhere.safetensors was made for revision 0123456789ab of")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--action", "jump.safetensors", "--reference", "dance.mkv"],
            "action: was learned already, so it goes withou",
        ),
        (
            ["--action", "jump.safetensors", "--reference", "dance.mkv", "--caption", "x", "--fit-steps", "3"],
            "goes without --reference and --caption and --fit-steps",
        ),
        (["--action", "none.safetensors"], "action: no such file: none.safetensors"),
        (["--action", "fae.pt"], "action: expected a .safetensors file, got fae.pt; python -m flexiact.checkpoints"),
        (["--action", "broken.safetensors"], "broken.safetensors cannot be read"),
        (["--action", "other.safetensors"], "action: other.safetensors holds other, expected"),
        (["--reference", "dance.mkv"], "missing: --caption"),
        (["--action", "jump.safetensors", "--quantise", "2bit"], "argument --quantise: invalid choice: '2bit'"),
        (["--action", "jump.safetensors", "--quantise", "8bit"], "quantise: needs a GPU (CUDA), the device is cpu"),
        (["--action", "jump.safetensors", "--demo"], "does not go with --demo"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    more: list[str], message: str, model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(model, capsys, *more, "--out", "out.mkv")
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not (files / "out.mkv").exists()


def test_an_action_of_another_size_is_refused(model: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = dense(embedding_state(Sizes(3, 32), 5))
    import_file(written(state, files / "deep.pt"), files / "deep.safetensors", "none")
    code, _, err = call(model, capsys, "--action", "deep.safetensors", "--out", "out.mkv")
    assert code == 2 and "expected shape [2, tokens, 32], got [3, 5, 32]" in err and err.count("\n") == 1


def test_a_model_without_a_pinned_commit_asks_for_one(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--action", "jump.safetensors", "--out", "out.mkv", "--backbone", "cogvideox-1.5-5b-i2v"]
    code, _, err = call(model, capsys, *more)
    assert code == 2 and "give cogvideox-1.5-5b-i2v@COMMIT" in err and err.count("\n") == 1
