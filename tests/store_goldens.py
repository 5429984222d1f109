"""Store what the golden tests compare with, after a change that is meant to change numbers and raised a version.

    python -m tests.store_goldens methods [NAME ...]
    python -m tests.store_goldens metrics [NAME ...]
    python -m tests.store_goldens skeleton

Without names all entries are stored. A method's action is kept where there is one; delete
tests/golden/methods/METHOD_ID.safetensors to have it fitted anew, then store all entries of that class. The goldens of
the report are worked out by hand (tests/golden/report/README.md), so no command stores them.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import save_file

from benchmark.planning.methods import METHODS
from flexiact.media.image import write_png
from metrics import METRICS
from tests.support.goldens import (
    METHODS_FOLDER,
    METRICS_FILE,
    SKELETON_FILE,
    action_file,
    cells,
    metric_value,
    skeleton_picture,
    stored_action,
)
from tests.support.tiny_methods import fitted, new_backbone, patch_tiny, transferred


def store_methods(names: Sequence[str]) -> None:
    """Version and cells of each entry, and the actions that are missing."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch_tiny(patch)
        backbone = new_backbone(Path(folder))
        for name in names:
            method = METHODS[name].build(backbone)
            if not stored_action(method) and (action := fitted(method)):
                save_file(dict(action), action_file(method))
            found = cells(transferred(method, stored_action(method))).round(1).tolist()
            values = {"version": method.version, "cells": found}
            (METHODS_FOLDER / f"{name}.json").write_text(json.dumps(values) + "\n")


def store_metrics(names: Sequence[str]) -> None:
    """Version and value of each metric, in the table's order."""
    stored = json.loads(METRICS_FILE.read_text())
    for name in names:
        value = metric_value(METRICS[name])
        assert value is not None, f"{name} is not defined on the golden features"
        stored[name] = {"version": METRICS[name].version, "value": round(value, 9)}
    ordered = {name: stored[name] for name in METRICS if name in stored}
    METRICS_FILE.write_text(json.dumps(ordered, indent=1) + "\n")


def store_skeleton(_: Sequence[str]) -> None:
    """The drawing."""
    write_png(SKELETON_FILE, skeleton_picture())


KINDS: dict[str, tuple[Callable[[Sequence[str]], None], Sequence[str]]] = {
    "methods": (store_methods, tuple(METHODS)),
    "metrics": (store_metrics, tuple(METRICS)),
    "skeleton": (store_skeleton, ()),
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.store_goldens", description="Store golden values.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries; all of them without")
    asked = parser.parse_args(arguments)
    store, known = KINDS[asked.kind]
    if unknown := [name for name in asked.names if name not in known]:
        parser.error(f"unknown name {unknown[0]!r} (known: {', '.join(known)})")
    store(asked.names or known)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
