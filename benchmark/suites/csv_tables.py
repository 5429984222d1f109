"""Tables of text (CSV) that a folder of material brings along."""

import csv
import io
from pathlib import Path

from flexiact.cli import one_line


def read_rows(root: Path, path: Path, columns: int, problems: list[str]) -> list[list[str]]:
    """The rows of a table, heading included and cells without space around them; its separator is `,` or `|`.

    Args:
        root: the folder of the material.
        path: Path to the table.
        columns: Columns that each row needs; all rows have as many as the first one.
        problems: List that faults are added to, with the table's path inside the folder; then no rows are returned.
    """
    name = inside(root, path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = "|" if text.lstrip().partition("\n")[0].count("|") >= columns - 1 else ","
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{name}: cannot be read ({one_line(error)})")
        return []
    rows = [[cell.strip() for cell in row] for row in table if any(cell.strip() for cell in row)]
    if not rows:
        problems.append(f"{name} is empty")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]) or len(row) < columns:
            wanted = max(columns, len(rows[0]))
            problems.append(
                f"{name}: row {number} has {len(row)} columns, not {wanted} (a text with {separator} in it?)"
            )
            return []
    return rows


def inside(root: Path, path: Path) -> str:
    """A path inside a folder, with slashes."""
    return path.relative_to(root).as_posix()
