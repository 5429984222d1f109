"""Read the text tables (CSV) of a folder of material."""

import os
from pathlib import Path

from benchmark.suites.file_cases import lies_inside
from flexiact.media.csv_files import Row, TableError, read_table
from flexiact.terminal.cli import one_line


def read_rows(root: Path, path: Path, columns: int, problems: list[str], *, strict: bool = True) -> list[Row]:
    """Rows of a table, heading included, in the form of `flexiact.media.csv_files.read_table`.

    Args:
        root: Folder of the material.
        path: Path to the table.
        columns: Number of columns that each row needs; all rows have as many as the first one.
        problems: List that faults are added to, with the table's path inside the folder; after a fault no rows are
            returned.
        strict: True to refuse a text that goes on after its closing quotation mark.
    """
    name = inside(root, path)
    if os.path.lexists(path) and not lies_inside(root, name):
        problems.append(f"{name} is a link that leads out of the folder")
        return []
    try:
        rows = read_table(path, columns, strict=strict)
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return []
    except TableError as error:
        problems.append(f"{name}: {error}")
        return []
    except OSError as error:
        problems.append(f"{name}: cannot be read ({one_line(error)})")
        return []
    if not rows:
        problems.append(f"{name} is empty")
    return rows


def inside(root: Path, path: Path) -> str:
    """Path relative to a folder, with slashes."""
    return path.relative_to(root).as_posix()
