"""Find the videos of submissions: by their names in a folder, or by a table (CSV) that names them.

In a folder a video is `CASE.EXT`, or `CASE-seedN.EXT` for several seeds. EXT is that of any format that FFmpeg reads; a
folder of numbered pictures has none. A table has the columns `video` and `case`, and may have `seed` and `method`.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.bounds.bounds import BOUNDS
from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError, unknown
from benchmark.submissions.submission import Submission
from benchmark.suites import case_table
from benchmark.suites.case import CaseError, refuse
from benchmark.suites.file_cases import UNSTATED, file_name, file_of, lies_inside
from flexiact.media.csv_files import TableError, by_heading, read_table, whole
from flexiact.media.files import is_clutter, spelled
from flexiact.media.frame_folder import PICTURE_SUFFIXES
from flexiact.terminal.cli import one_line

NEEDED, OPTIONAL = ("video", "case"), ("seed", "method")
"""Columns of a table."""

_NO_VIDEOS = {
    *(".csv", ".html", ".json", ".jsonl", ".log", ".md", ".pdf", ".srt", ".tsv", ".txt", ".vtt", ".yaml", ".yml"),
    *(".aac", ".flac", ".m4a", ".mp3", ".wav"),
    *(".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors"),
}
_SEEDED = re.compile(r"(?P<case>.+)-seed(?P<seed>\d{1,18})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,31}", re.ASCII)

Found = dict[tuple[str, int], str]
"""Path inside the folder of the video of each case and seed."""


@dataclass(frozen=True)
class Cases:
    """Ids of cases.

    Attributes:
        asked: Cases that are scored.
        known: All cases of the suite; videos of those that are not scored are left alone.
    """

    asked: Sequence[str]
    known: Collection[str]


def by_name(folder: Path, cases: Cases) -> Found:
    """Videos of a folder by their names.

    Texts, sounds, arrays, hidden files, and pictures that name no case are passed over.

    Raises:
        UsageError: If there is no such folder.
        CaseError: If another file or folder names no case, or two name the same case and seed.
    """
    if not folder.is_dir():
        raise UsageError(f"videos: there is no folder {folder}")
    found: Found = {}
    problems: list[str] = []
    for path in sorted(folder.iterdir()):
        if is_clutter(path) or path.suffix.lower() in _NO_VIDEOS:
            continue
        cell = _cell(path.name if path.is_dir() else path.stem, cases.known)
        if not lies_inside(folder, path.name):
            problems.append(f"'{path.name}' leads out of the folder")
        elif cell is not None:
            _add(found, cell, path.name, cases, problems)
        elif path.is_dir() or path.suffix.lower() not in PICTURE_SUFFIXES:
            problems.append(f"'{path.name}' names no case of the suite")
    refuse(f"{folder} (a video is CASE.mp4 or CASE-seed1.mp4)", problems)
    return found


def by_table(table: Path, folder: Path, cases: Cases) -> dict[str, Found]:
    """Videos of each method by a table; the method is "" if the table names none.

    The table's paths are relative to `folder` and stay in it.

    Raises:
        CaseError: If the table cannot be read; if it names an unknown case, a file that is not there or outside of the
            folder, or two videos for one method, case and seed; or if only some rows name a method. The message names
            up to ten faults.
    """
    found: dict[str, Found] = {}
    problems: list[str] = []
    rows = _rows(table)
    some_are_named = any(row.get("method") for _, row in rows)
    for number, row in rows:
        cell, fault = _row_cell(row, cases.known)
        if some_are_named and not row["method"]:
            fault = "the method is empty; name it, since other rows name theirs"
        name = spelled(folder, row["video"])
        if row["video"] and not fault and not lies_inside(folder, name):
            fault = f"there is no '{row['video']}' in {folder}"
        if fault:
            problems.append(f"line {number}: {fault}")
        elif cell is not None:
            mine = found.setdefault(row.get("method", ""), {})
            if row["video"]:
                _add(mine, cell, name, cases, problems)
    refuse(table, problems)
    return found


def submissions_of(
    found: Mapping[str, Found], folder: Path, cases: Cases, seeds: Sequence[int], summary: str, supervision: str
) -> tuple[Submission, ...]:
    """Submissions with a place for every case and seed, also where there is no video, by the name of the method.

    Without expected seeds, they are those that any method has; without a summary, it names the folder.

    Raises:
        UsageError: If a name is not fit for a table or belongs to a method or bound of this suite, or no video is of a
            case and seed that are scored.
        CaseError: If a file cannot be read.
    """
    for name in found:
        if not _NAME.fullmatch(name):
            raise UsageError(f"name: expected letters, digits, '_', '.', '+' or '-', 32 at most, got '{name}'")
        if name in METHODS or name in BOUNDS:
            raise UsageError(f"name: '{name}' is one of this suite's own rows; choose another")
    seeds = sorted(seeds or {seed for videos in found.values() for _, seed in videos})
    if not any(seed in seeds for videos in found.values() for _, seed in videos):
        raise UsageError(f"videos: {folder} holds no video of a case and seed that are scored")
    said = summary or f"submitted videos of the folder {file_name(folder.resolve().name)}"
    made = []
    for name, videos in found.items():
        cells = [(case_id, seed) for case_id in cases.asked for seed in seeds]
        files = {cell: file_of(folder, videos[cell]) if cell in videos else None for cell in cells}
        made.append(Submission(name, files, said, supervision or UNSTATED))
    return tuple(made)


def _cell(stem: str, known: Collection[str]) -> tuple[str, int] | None:
    """Case and seed that a name means; None if it names no case."""
    stem = unicodedata.normalize("NFC", stem)  # as ids are; Macs store an accent as a character of its own
    if stem in known:
        return stem, 0
    seeded = _SEEDED.fullmatch(stem)
    return (seeded["case"], int(seeded["seed"])) if seeded and seeded["case"] in known else None


def _add(found: Found, cell: tuple[str, int], name: str, cases: Cases, problems: list[str]) -> None:
    if cell in found:
        problems.append(f"'{found[cell]}' and '{name}' are both {cell[0]} at seed {cell[1]}")
    elif cell[0] in cases.asked:
        found[cell] = name


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a table by column, each with the number of its line."""
    try:
        rows = read_table(table, len(NEEDED))
        heading = [cell.lower() for cell in rows[0][1]] if rows else []
        columns = [*NEEDED, *(name for name in OPTIONAL if name in heading)]
        # The table may be that of the suite as well, whose columns are read there.
        cells = by_heading(table, rows, columns, others=[*case_table.NEEDED, *case_table.OPTIONAL])
        return [(number, dict(zip(columns, row, strict=True))) for number, row in cells]
    except TableError as error:
        raise CaseError(f"{table}: {error}") from error
    except OSError as error:
        raise CaseError(f"{table}: cannot be read ({one_line(error)})") from error


def _row_cell(row: Mapping[str, str], known: Collection[str]) -> tuple[tuple[str, int] | None, str]:
    """Case and seed of a row, and its fault; "" if there is none."""
    seed = row.get("seed") or "0"
    if row["case"] not in known:
        return None, unknown(row["case"], sorted(known), "case")
    number = whole(seed)
    if number is None:
        return None, f"seed: expected a whole number from 0, got '{seed}'"
    return (row["case"], number), ""
