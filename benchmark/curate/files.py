"""Write suites and cases as TOML files, which `benchmark.suites.puppets` reads."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.suites.puppets import (
    CASE_WORDS,
    CASES_FOLDER,
    HEADLINE,
    SUITE_FILE,
    PuppetCase,
    PuppetSuite,
    content_digest,
)


def write_suite(suite: PuppetSuite, cases: Sequence[PuppetCase], folder: Path = CASES_FOLDER) -> None:
    """Write a suite's files and remove cases that are no longer part of the suite."""
    root = folder / suite.name
    root.mkdir(parents=True, exist_ok=True)
    for stale in set(root.glob("*.toml")) - {root / f"{case.case_id}.toml" for case in cases}:
        stale.unlink()
    (root / SUITE_FILE).write_text(suite_to_toml(suite), encoding="utf-8")
    for case in cases:
        (root / f"{case.case_id}.toml").write_text(case_to_toml(case), encoding="utf-8")


def sealed(suite: PuppetSuite, cases: Iterable[PuppetCase]) -> PuppetSuite:
    """Copy of the suite with the digest of these cases."""
    said = {case.case_id: tomllib.loads(case_to_toml(case)) for case in cases}
    return replace(suite, digest=content_digest(tomllib.loads(suite_to_toml(suite)), said))


def suite_to_toml(suite: PuppetSuite) -> str:
    """Text of a suite's own file."""
    lines = [f"summary = {_toml(suite.summary)}", f"version = {suite.version}", f"digest = {_toml(suite.digest)}"]
    if suite.num_inference_steps is not None:
        lines.append(f"num_inference_steps = {suite.num_inference_steps}")
    if suite.fit_share != 1:
        lines.append(f"fit_share = {suite.fit_share}")
    if suite.drawn_after:
        lines.append(f"drawn_after = {_toml(suite.drawn_after)}")
    if suite.headline != HEADLINE:
        lines.append(f"headline = {_toml(suite.headline)}")
    lines += _toml_table("edges", suite.edges)
    return "\n".join(lines) + "\n"


def case_to_toml(case: PuppetCase) -> str:
    """Text of a case's file; `load_case` reads the same case back."""
    lines = [f"case_id = {_toml(case.case_id)}"]
    lines += [f"{field} = {_toml(getattr(case, field))}" for field in (*CASE_WORDS, "left_out_share")]
    lines += [f"target_pose = {_toml(case.target_pose)}"] if case.target_pose else []
    for name in ("axes", "digests", "reference", "target"):
        lines += _toml_table(name, getattr(case, name))
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """Write a TOML value: a text (quoted in JSON's way, which is valid TOML), a number, or a list of them."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"no TOML form for {type(value).__name__}")
    return repr(value)


def _toml_table(name: str, table: Mapping[str, Any]) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    lines = ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in plain.items())]
    for k, v in table.items():
        lines += _toml_table(f"{name}.{k}", v) if isinstance(v, Mapping) else []
    return lines
