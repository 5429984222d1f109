"""Docstrings of the packages whose prose is done: every attribute and argument line names the thing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "baselines",
    "benchmark",
    "flexiact",
    "metrics",
    "reports",
)

_NOT_A_THING = re.compile(
    r"(about|above|after|as|at|before|below|beside|by|for|from|how|in|inside|of|on|over|than|that|to|under|what|when|"
    r"where|which|whose|why|with|within|without)\b",
    re.IGNORECASE,
)


def entries(docstring: str) -> Iterator[str]:
    """The texts behind the names under `Attributes:` and `Args:`."""
    for section in re.findall(r"^(?:Attributes|Args):\n((?:    .*\n?)+)", docstring, re.MULTILINE):
        yield from re.findall(r"^    \w+: (.*)", section, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_attribute_and_argument_lines_name_the_thing(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    faults = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
        for text in entries(ast.get_docstring(node) or "")
        if _NOT_A_THING.match(text)
    ]
    assert not faults
