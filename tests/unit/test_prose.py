"""Docstrings of the product: attribute and argument lines name the thing; summaries do not begin with a question."""

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
_QUESTION = re.compile(r"(what|how|where|which|who|whether)\b", re.IGNORECASE)


def docstrings(package: str) -> list[tuple[Path, str]]:
    """Docstrings of all modules, classes and functions of a package, each with its file."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (path.relative_to(ROOT), ast.get_docstring(node) or "")
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    ]


def entries(docstring: str) -> Iterator[str]:
    """The texts behind the names under `Attributes:` and `Args:`."""
    for section in re.findall(r"^(?:Attributes|Args):\n((?:    .*\n?)+)", docstring, re.MULTILINE):
        yield from re.findall(r"^    \w+: (.*)", section, re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_attribute_and_argument_lines_name_the_thing(package: str) -> None:
    faults = [
        f"{path}: {text}"
        for path, docstring in docstrings(package)
        for text in entries(docstring)
        if _NOT_A_THING.match(text)
    ]
    assert not faults


@pytest.mark.parametrize("package", PACKAGES)
def test_summaries_name_the_result_or_begin_with_a_verb(package: str) -> None:
    faults = [
        f"{path}: {docstring.splitlines()[0]}" for path, docstring in docstrings(package) if _QUESTION.match(docstring)
    ]
    assert not faults
