"""What is said of the code is said of this code, not of whatever it is installed in."""

import subprocess
from pathlib import Path

from benchmark.store.provenance import code_state


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    nothing = {"commit": None, "dirty": None}
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("1")
    assert code_state(installed) == nothing
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.py").write_text("1")
    git(tmp_path, "add", "mine.py")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_state(tmp_path) == {"commit": commit, "dirty": False}
    assert code_state(installed) == nothing
    (tmp_path / "mine.py").write_text("2")
    assert code_state(tmp_path) == {"commit": commit, "dirty": True}
