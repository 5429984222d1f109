"""`python -m flexiact.train_refadapter`: what it writes, how it goes on, and one line for whatever is wrong."""

from pathlib import Path

import pytest

from flexiact.refadapter import RefAdapter
from flexiact.train_refadapter import command
from flexiact.train_refadapter.__main__ import TRACKERS, main
from tests.support.backbones import tiny_backbone
from tests.support.clips import write_clip, write_folder
from tests.support.harm.two_processes import OPTIONS


def arguments(tmp_path: Path, *more: str) -> list[str]:
    return [str(tmp_path / "videos"), "--out", str(tmp_path / "out"), *OPTIONS, *more]


@pytest.fixture
def tiny_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_backbone", lambda *_: tiny_backbone())


@pytest.mark.usefixtures("tiny_command")
def test_the_command_encodes_trains_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_folder(tmp_path / "videos")
    assert main(arguments(tmp_path)) == 0
    assert "out: mean loss of the last 10 steps" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    first = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out.state").iterdir()) == [
        "cache",
        "checkpoint.safetensors",
        "curve.csv",
    ]
    RefAdapter.load(tmp_path / "out", tiny_backbone().transformer)
    assert main(arguments(tmp_path)) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == first
    assert main(arguments(tmp_path, "--steps", "12")) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() != first
    capsys.readouterr()
    assert main(arguments(tmp_path, "--steps", "12", "--identity-weight", "0.5")) == 2
    assert "identity_weight None instead of 0.5" in capsys.readouterr().err  # the option reached the training


@pytest.mark.usefixtures("tiny_command")
def test_the_command_reads_a_table(tmp_path: Path):
    write_clip(tmp_path / "videos" / "deep" / "a.mkv", 0)
    (tmp_path / "data.csv").write_text("path,caption\nvideos/deep/a.mkv,a dog\n")
    table = [str(tmp_path / "data.csv"), *arguments(tmp_path)[1:]]
    assert main([*table, "--state", str(tmp_path / "state"), "--cache", str(tmp_path / "cache")]) == 0
    assert (tmp_path / "state" / "curve.csv").is_file() and len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


@pytest.mark.usefixtures("tiny_command")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--steps", "0"], "steps:"),
        (["--rank", "0"], "rank:"),
        (["--ema", "2"], "ema:"),
        (["--windows", "0"], "windows:"),
        (["--seed", "-1"], "seed:"),
        (["--cache", "{}/videos/0.mkv"], "cache:"),
        (["--state", "{}/videos/0.mkv", "--cache", "{}/cache"], "state:"),
        (["--out", "{}/videos/0.mkv"], "out:"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: str
):
    write_folder(tmp_path / "videos")
    assert main(arguments(tmp_path, *(part.format(tmp_path) for part in change))) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {words}") and captured.err.count("\n") == 1 and not captured.out
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(arguments(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("error: data:")
    write_folder(tmp_path / "videos")
    assert main(arguments(tmp_path, "--backbone", "pupets")) == 2
    assert "did you mean 'puppets'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path, "--steps", "many"))
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    monkeypatch.setattr(command, "get_available_trackers", list)
    assert main(arguments(tmp_path, "--tracker", name)) == 2
    assert capsys.readouterr().err == f"error: tracker: {name} is not installed (pip install {name})\n"
