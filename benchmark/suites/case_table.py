"""A table (CSV) of cases as a suite: each row names a reference video, a target image and the text of the video.

Columns are `case`, `reference`, `target` and `prompt`, and may be `caption`, which describes the reference, and
`start_frame` and `end_frame` (one past the last), which say where it shows the action. Paths are relative to the
table's folder and stay in it. Rows of one case, for several methods or seeds, have to say the same.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from benchmark.planning.selection import UsageError
from benchmark.suites.case import refuse
from benchmark.suites.csv_tables import read_rows
from benchmark.suites.file_cases import (
    UNSTATED,
    FileCase,
    FileSuite,
    file_name,
    file_of,
    lies_inside,
    suite_of,
    unique_names,
)
from flexiact.media.csv_files import TableError, by_heading, whole
from flexiact.media.files import spelled

NEEDED = ("case", "reference", "target", "prompt")
"""Columns that a table needs."""
CAPTION = "caption"
SPAN = ("start_frame", "end_frame")
OPTIONAL = (CAPTION, *SPAN)
"""Columns that it may have."""
SUBMITTED = ("video", "seed", "method")
"""Columns of the same table that `benchmark.submissions.found` reads."""


def table_suite(place: str) -> FileSuite:
    """Make a suite of the cases of a table; a note names columns that nothing reads.

    Raises:
        UsageError: If there is no such file.
        CaseError: If the table is invalid, or names files that are not in its folder; the message names up to ten
            faults.
    """
    table = Path(place).expanduser()
    if not table.is_file():
        raise UsageError(f"suite: there is no table {table}")
    root, problems = table.parent, list[str]()
    rows = _rows(root, table, problems)
    told: dict[str, dict[str, str]] = {}
    for number, row in rows:
        faults = _faults(root, row)
        if not faults and told.setdefault(row["case"], row) != row:
            faults = [f"case {row['case']} is another one above"]
        problems += [f"line {number}: {fault}" for fault in faults]
    refuse(table, problems)
    refuse(table, [] if told else ["names no case"])
    references = dict.fromkeys(_file(row) for row in told.values())
    names = unique_names(reference.with_suffix("").as_posix() for reference in references)
    actions = dict(zip(references, names, strict=True))  # two files have two names, or they would count as one
    cases = [_case(root, row, actions[_file(row)]) for row in told.values()]
    return suite_of(f"table-{file_name(table.stem)}", cases)


def _file(row: Mapping[str, str]) -> Path:
    """Path to a row's reference, the same however it is written."""
    return Path(os.path.normpath(row["reference"]))


def _rows(root: Path, table: Path, problems: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows by column, each with the number of its line; [] after a problem."""
    rows = read_rows(root, table, len(NEEDED), problems)
    if not rows:
        return []
    heading = [cell.lower() for cell in rows[0][1]]
    columns = [*NEEDED, *(name for name in OPTIONAL if name in heading)]
    try:
        lines = by_heading(table, rows, columns, others=SUBMITTED)
    except TableError as error:
        problems.append(str(error))
        return []
    cells = [(n, dict.fromkeys(OPTIONAL, "") | dict(zip(columns, row, strict=True))) for n, row in lines]
    return [(n, row | {name: spelled(root, row[name]) for name in ("reference", "target")}) for n, row in cells]


def _faults(root: Path, row: Mapping[str, str]) -> list[str]:
    faults = [f"the {name} is empty" for name in NEEDED if not row[name]]
    if row["case"] and file_name(row["case"]) != row["case"]:
        faults.append(f"case: expected letters, digits, '_', '.' and '-', got '{row['case']}'")
    for name in ("reference", "target"):
        if row[name] and not lies_inside(root, row[name]):
            faults.append(f"there is no {row[name]} in the table's folder")
    span = [row[name] for name in SPAN]
    start, end = (whole(text) for text in span)
    if any(span) and (start is None or end is None or end - start < 2):  # fewer frames show no action
        faults.append(f"{' and '.join(SPAN)}: expected frames of which the second is 2 more or above, got {span}")
    return faults


def _case(root: Path, row: Mapping[str, str], action: str) -> FileCase:
    start, end = (whole(row[name]) for name in SPAN)
    return FileCase(
        case_id=row["case"],
        action=action,
        reference_id=action,
        caption=row[CAPTION],
        prompt=row["prompt"],
        licence=UNSTATED,
        source="a table of files",
        reference=file_of(root, row["reference"]),
        target=file_of(root, row["target"]),
        frames=None if start is None or end is None else (start, end),
    )
