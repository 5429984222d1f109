"""Every command: a fast `--help`, one line for what is wrong, and the same code under `flexiact-suite`."""

from pathlib import Path

import pytest

from benchmark.__main__ import COMMANDS, main, main_of
from tests.support.quick_help import help_of

SLOW = {"torch", "pandas", "scipy", "matplotlib", "diffusers", "transformers", "accelerate", "cv2", "av", "PIL"}
WRONG = {
    "run": "--suite no-such-suite",
    "score": "--videos {}/none --out {}/out",
    "merge": "{}/none {}/nobody --out x",
    "exchange": "card {}/none",
    "compare": "{}/none {}/nobody",
    "status": "{}/none",
    "verify": "{}/none",
    "cost": "--suite none",
    "report": "{}/none",
    "prefer": "{}/none",
    "power": "{}/none",
    "replication": "{}/none {}/nobody",
    "difficulty": "{}/none --publish {}/out",
    "transfer": "--image {}/none.png",
    "tune": "--methods none --log {}/log.csv",
    "guiding": "{}/none --out {}/out.md",
    "ablate": "none",
    "publish": "none",
    "study": "--suite none --publish {}/out",
    "speed": "--only none --out {}",
    "curate": "none",
    "memory": "--backbone pupets",
    "checkpoints": "show {}/none",
    "train-refadapter": "{}/none --out {}/out",
    "train-puppets": "backbone --processes 0 --threads 1 --device cpu --state {} --out {}/out",
    "leakage": "--actions 0",
}
"""Of every command: arguments that it can read, and whose fault its work finds."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_module_s_own_and_loads_nothing_slow(name: str) -> None:
    module = COMMANDS[name][0]
    shown, imported = help_of(module)
    assert shown.startswith(f"usage: python -m {module} ")
    assert not imported & SLOW


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main_of(COMMANDS[name][0])(["--no-such-option"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "error: " in said and "--help" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_wrong_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    assert main([name, *WRONG[name].format(tmp_path, tmp_path).split()]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and not captured.out


def test_help_names_all_and_loads_nothing_slow(capsys: pytest.CaptureFixture[str]) -> None:
    shown, imported = help_of("benchmark")
    lines = [line for line in shown.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80
    assert not imported & (SLOW | {"numpy"})
    assert main([]) == 2 and capsys.readouterr().out == shown


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rum"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'rum' (did you mean 'run'?)")
