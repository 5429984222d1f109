"""`flexiact-suite`: every command is there, is told in one line, and is the `python -m` form's own code."""

import inspect
from importlib import import_module

import pytest

from benchmark.__main__ import COMMANDS, main
from tests.support.quick_help import help_of


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_module_s_own(name: str) -> None:
    command = COMMANDS[name]
    own = import_module(command.module).main
    assert list(inspect.signature(own).parameters) == ["arguments"]
    try:
        runs = import_module(f"{command.name}.__main__").main
    except ModuleNotFoundError:
        runs = import_module(command.name).main
    assert runs is own


def test_help_names_all_and_loads_nothing_slow(capsys: pytest.CaptureFixture[str]) -> None:
    shown, imported = help_of("benchmark")
    lines = [line for line in shown.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert max(map(len, shown.splitlines())) <= 80
    assert not imported & {"torch", "numpy", "pandas"}
    assert main([]) == 2 and capsys.readouterr().out == shown


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rum"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'rum' (did you mean 'run'?)")


def test_arguments_and_exit_code_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "--help"])
    assert ended.value.code == 0 and "reports.build" in capsys.readouterr().out
    assert main(["run", "--suite", "no-such-suite"]) == 2
    assert "no-such-suite" in capsys.readouterr().err
