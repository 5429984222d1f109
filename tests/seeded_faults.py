"""Do the tests find what is wrong? Puts known faults into a copy of the tree, one at a time, and runs the tests named.

    python -m tests.seeded_faults [NUMBER ...]

tests/faults.toml lists the faults, numbered from 1. Prints a table in Markdown with the first test that failed, which
has to pass without the fault; the exit code is 1 when a fault was not found.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "faults.toml"
OWN = ("baselines", "benchmark", "flexiact", "metrics", "reports", "tests")
TIME_LIMIT_S = 900
_LEFT_OUT = (".*", "*.egg-info", "runs", "state", "downloads")


@dataclass(frozen=True)
class Fault:
    """One wrong place.

    Attributes:
        what: goes wrong, in words.
        file: that is changed, from the root.
        old: text that is there once.
        new: text put in its place.
        tests: files that should find it, from the root.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def faults() -> list[Fault]:
    """All of the list, in its order."""
    entries = tomllib.loads(LIST.read_text())["fault"]
    return [Fault(**(entry | {"tests": tuple(entry["tests"])})) for entry in entries]


class _First:
    """A plug-in of pytest that keeps the first test that failed."""

    failed = ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def _run(tree: Path, tests: Sequence[str], told: Connection) -> None:
    """In a process of its own: run test files of a tree and tell the first that failed, "" when none did."""
    import pytest

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(tree)
    sys.path[0] = str(tree)
    sys.dont_write_bytecode = True  # of a faulty file it might be taken for the right one's
    first = _First()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-o", "timeout=0"]
    early = "ignore::pytest.PytestAssertRewriteWarning"  # of third parties that are imported before pytest starts
    code = pytest.main([*options, "-W", early, *tests], plugins=[first])
    told.send(first.failed or ("" if code == 0 else f"pytest ended with {code!s}"))


def first_failure(tree: Path, tests: Sequence[str]) -> str:
    """The first test that fails in a tree; "" when none does."""
    context = multiprocessing.get_context("fork")  # third parties' modules, which take seconds, are there already
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(tree, tests, there))
    process.start()
    there.close()
    try:
        return str(here.recv()) if here.poll(TIME_LIMIT_S) else f"no end within {TIME_LIMIT_S} s"
    except EOFError:
        return "the process died"
    finally:
        process.kill()
        process.join()


def found_by(fault: Fault, tree: Path) -> str:
    """The first test that fails with a fault in the tree, and passes once it is taken out again; "" when none does."""
    path = tree / fault.file
    right = path.read_text()
    path.write_text(right.replace(fault.old, fault.new))
    try:
        failed = first_failure(tree, fault.tests)
    finally:
        path.write_text(right)
    # With all its parameters: a fault may change their names.
    if "::" in failed and first_failure(tree, [failed.partition("[")[0]]):
        sys.exit(f"{failed}: fails without any fault")
    return failed


def load_third_parties() -> None:
    """Import what the tests import and forget the project's own part of it."""
    for name in ("tests.conftest", "reports.build", "hypothesis", "_pytest.assertion.rewrite"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN and name != "tests"]:
        if name != __name__:
            del sys.modules[name]
    del sys.modules["tests"]  # a namespace, which remembers the folders that it was found in


def main(arguments: Sequence[str]) -> int:
    """Print the table of the faults asked for."""
    listed = dict(enumerate(faults(), start=1))
    asked = [int(number) for number in arguments] or list(listed)
    load_third_parties()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        print("| | fault | in | found by |\n|-:|---|---|---|", flush=True)
        for number in asked:
            fault = listed[number]
            failed = found_by(fault, tree)
            missed += not failed
            where = f"`{failed.partition('[')[0].rpartition('/')[2]}`" if failed else "**not found**"
            print(f"| {number} | {fault.what} | `{fault.file}` | {where} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
