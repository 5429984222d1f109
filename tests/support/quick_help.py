"""What `--help` of a command prints, and what printing it imports."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def help_of(module: str) -> tuple[str, set[str]]:
    """The text, no name in it broken at its hyphen, and every module that was imported for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "4000"},
    )
    return done.stdout, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
