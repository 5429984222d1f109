"""Puppet cases: one reference video and one target image each. A case is a small TOML file; a suite is a folder.

Reading cases needs no network library, so `--help` and unknown names are answered at once. This module holds names,
captions, axes and digests of a case; `benchmark.suites.truth` renders its pictures.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from benchmark.planning.selection import UsageError, unknown
from benchmark.suites.case import CaseError, Format
from flexiact.media.digests import json_digest as digest
from flexiact.media.files import is_clutter, limited_bytes
from flexiact.terminal.cli import one_line

if TYPE_CHECKING:
    from benchmark.suites.truth import Staged

REPLICATION = "puppets-replicate"
"""Name of the suite that is drawn last (`benchmark.curate.replication`)."""
CASES_FOLDER = Path(__file__).parents[1] / "cases"
SUITE_FILE = "suite.toml"
AXES: tuple[str, ...] = ("layout", "viewpoint", "skeleton", "pose")
TERCILES: tuple[str, ...] = ("near", "middle", "far")
HEADLINE = "motion_agreement_centred"
FILE_LIMIT_MIB = 1
"""Size from which on a suite's own file or a case's file is refused."""

_NAME = re.compile(r"\w[\w.-]*")
DIGESTS: tuple[str, ...] = ("reference", "target", "truth")


@dataclass(frozen=True)
class PuppetSuite:
    """A named set of cases; `benchmark.suites.case.Suite` describes what all suites have.

    Attributes:
        edges: Borders per axis between near and middle, and between middle and far (terciles of the candidates that the
            suite was chosen from).
        drawn_after: Digest of what the suite was drawn after (`benchmark.curate.replication`); "" for other suites.
    """

    name: str
    summary: str
    num_inference_steps: int | None
    edges: Mapping[str, tuple[float, float]]
    case_ids: tuple[str, ...]
    headline: str = HEADLINE
    version: int = 1
    digest: str = ""
    fit_share: float = 1.0
    drawn_after: str = ""

    def chosen(self, case_ids: Iterable[str]) -> tuple["PuppetCase", ...]:
        """Cases of the given ids, read from their files."""
        return tuple(load_case(self, case_id) for case_id in case_ids)

    def first_cases(self) -> dict[str, "PuppetCase"]:
        """The first case of each reference, by id."""
        first = {case.reference_id: case for case in reversed(self.chosen(self.case_ids))}
        return {case.case_id: case for case in reversed(first.values())}

    def check_readable(self, case_ids: Iterable[str]) -> None:
        """Do nothing: cases are rendered, so there is no further file to read."""


@dataclass(frozen=True)
class PuppetCase:
    """One transfer to be made, with all that is known about it; `Case` describes what all cases have.

    Attributes:
        wrong_action: Name of another action of similar amplitude on this target, for the bound `wrong-action`.
        axes: Distance between reference and target on each of `AXES` (see `axes` in flexiact.puppets.world.answers and
            `body_sizes` in benchmark.curate.rules).
        left_out_share: Share of the action's channels that no transfer could show, 0..1.
        digests: SHA-256 of the specification of `reference`, `target` and `truth`, with the renderer's version.
        reference: Specification of the reference's scene.
        target: Specification of the target's scene.
        target_pose: Channel values of the figure in the target image; empty: its neutral stance.
    """

    case_id: str
    suite: str
    action: str
    wrong_action: str
    reference_id: str
    target_id: str
    caption: str
    prompt: str
    axes: Mapping[str, float]
    terciles: Mapping[str, str]
    left_out_share: float
    licence: str
    source: str
    digests: Mapping[str, str]
    reference: Mapping[str, Any]
    target: Mapping[str, Any]
    target_pose: tuple[float, ...] = ()
    truth_known: ClassVar[bool] = True

    def describe(self) -> dict[str, Any]:
        """Entry of the case in run.json."""
        return {
            **{name: getattr(self, name) for name in (*CASE_WORDS, "left_out_share")},
            "reference_rig": self.reference.get("rig"),
            "target_rig": self.target.get("rig"),
            "axes": dict(self.axes),
            "terciles": dict(self.terciles),
            "digests": dict(self.digests),
        }

    def check(self) -> None:
        """Refuse a case whose material has changed since the case was written."""
        from benchmark.suites.truth import check_digests

        check_digests(self)

    def losses(self, form: Format) -> tuple[()]:
        """Return no notes: cases are rendered at the format's size."""
        return ()

    def show(self, form: Format) -> "Staged":
        """Render the case at a format."""
        from benchmark.suites.truth import stage

        return stage(self, form)


def suite_names(folder: Path = CASES_FOLDER) -> list[str]:
    """Names of all suites."""
    return sorted(path.parent.name for path in folder.glob(f"*/{SUITE_FILE}"))


def load_suite(name: str, folder: Path = CASES_FOLDER) -> PuppetSuite:
    """Read a suite's own file and list its cases.

    Raises:
        UsageError: If there is no suite of that name.
        CaseError: If the file is invalid, or the suite's digest does not match its cases.
    """
    if name not in suite_names(folder):
        raise UsageError(unknown(name, suite_names(folder), "suite"))
    path = folder / name / SUITE_FILE
    data = _read(path)
    steps = data.get("num_inference_steps")
    if steps is not None and not _is_count(steps):
        raise CaseError(f"{path}: num_inference_steps: expected a whole number above 0, got {steps!r}")
    share = data.get("fit_share", 1.0)
    if not _is_number(share) or not 0 < share <= 1:
        raise CaseError(f"{path}: fit_share: expected a number in (0, 1], got {share!r}")
    edges, written = {}, data.get("edges", {})
    for axis in AXES:
        pair = written.get(axis) if isinstance(written, dict) else written
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)) or pair[0] > pair[1]:
            raise CaseError(f"{path}: edges.{axis}: expected two ascending numbers, got {pair!r}")
        edges[axis] = (float(pair[0]), float(pair[1]))
    cases = {p.stem: p for p in sorted(path.parent.glob("*.toml")) if p.name != SUITE_FILE and not is_clutter(p)}
    if not cases:
        raise CaseError(f"{path.parent}: holds no cases")
    for case_id, file in cases.items():
        if not _NAME.fullmatch(case_id) or file.is_symlink():
            raise CaseError(f"{file}: expected a file, no link, with a name of letters, digits, '_', '.' and '-'")
    headline = _text({"headline": HEADLINE} | data, "headline", path)
    version, stated = data.get("version"), _text(data, "digest", path)
    if not _is_count(version):
        raise CaseError(f"{path}: version: expected a whole number above 0, got {version!r}")
    found = content_digest(data, {case_id: _read(file) for case_id, file in cases.items()})
    if stated != found:
        raise CaseError(f"{path}: digest: the file says {stated}, its cases have {found}; make the suite again")
    summary, drawn_after = _text(data, "summary", path), data.get("drawn_after", "")
    if not isinstance(drawn_after, str):
        raise CaseError(f"{path}: drawn_after: expected text, got {drawn_after!r}")
    cases_and_rest = tuple(cases), headline, version, stated, float(share), drawn_after
    return PuppetSuite(name, summary, steps, edges, *cases_and_rest)


def load_case(suite: PuppetSuite, case_id: str, folder: Path = CASES_FOLDER) -> PuppetCase:
    """Read one case.

    Raises:
        CaseError: If the file is missing or invalid; the message names the field.
    """
    path = folder / suite.name / f"{case_id}.toml"
    data = _read(path)
    if data.get("case_id") != case_id:
        raise CaseError(f"{path}: case_id: expected the file's name '{case_id}', got {data.get('case_id')!r}")
    axes = {}
    for axis in AXES:
        value = _table(data, "axes", path).get(axis)
        if not _is_number(value) or value < 0:
            raise CaseError(f"{path}: axes.{axis}: expected a number from 0, got {value!r}")
        axes[axis] = float(value)
    left_out = data.get("left_out_share")
    if not _is_number(left_out) or not 0 <= left_out < 1:
        raise CaseError(f"{path}: left_out_share: expected a number in [0, 1), got {left_out!r}")
    digests = _table(data, "digests", path)
    for name in DIGESTS:
        value = digests.get(name)
        if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise CaseError(f"{path}: digests.{name}: expected 64 hex digits, got {value!r}")
    pose = data.get("target_pose", [])
    if not isinstance(pose, list) or not all(map(_is_number, pose)):
        raise CaseError(f"{path}: target_pose: expected a list of numbers, got {pose!r}")
    words = {field: _text(data, field, path) for field in CASE_WORDS}
    return PuppetCase(
        case_id=case_id,
        suite=suite.name,
        axes=axes,
        terciles={axis: tercile(value, suite.edges[axis]) for axis, value in axes.items()},
        left_out_share=float(left_out),
        digests={name: digests[name] for name in DIGESTS},
        reference=_table(data, "reference", path),
        target=_table(data, "target", path),
        target_pose=tuple(float(value) for value in pose),
        **words,
    )


CASE_WORDS = (
    "action", "wrong_action", "reference_id", "target_id", "caption", "prompt", "licence", "source",
)  # fmt: skip


def tercile(value: float, edges: tuple[float, float]) -> str:
    """Name of the tercile of a value: near up to the first edge, middle up to the second, far beyond."""
    return TERCILES[sum(value > edge for edge in edges)]


def content_digest(suite: Mapping[str, Any], cases: Mapping[str, Any]) -> str:
    """Digest of the content of the files, whatever their formatting."""
    return digest({"suite": {name: value for name, value in suite.items() if name != "digest"}, "cases": cases})


def _read(path: Path) -> dict[str, Any]:
    try:
        data = tomllib.loads(limited_bytes(path, FILE_LIMIT_MIB).decode())
        digest(data)  # refuses dates, numbers that are not finite, and what is nested too deeply
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CaseError(f"{path}: not TOML ({one_line(error)})") from error
    return data


def _text(data: Mapping[str, Any], field: str, path: Path) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not value.strip():
        raise CaseError(f"{path}: {field}: expected text, got {value!r}")
    return value


def _table(data: Mapping[str, Any], field: str, path: Path) -> dict[str, Any]:
    value = data.get(field)
    if not isinstance(value, dict) or not value:
        raise CaseError(f"{path}: [{field}]: expected a table, got {value!r}")
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """True for a finite number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
