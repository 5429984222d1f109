"""Read text tables (CSV) in the forms that spreadsheets and other programs write."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from flexiact.media.files import read_text, trimmed
from flexiact.terminal.notes import note

_SEPARATORS = "|,;\t"  # the first one that is frequent enough in line 1; Excel writes semicolons in much of Europe

_ABSENT = {
    *("nan", "-nan", "<na>", "na", "n/a", "none", "null", "\\n"),
    *("#na", "#n/a", "#n/a!", "#nv", "#n/d", "#n/d!", "#n/b", "#i/t", "#н/д"),
}
"""Cells that programs write where nothing is known, in small letters; they are read as empty. Spreadsheets translate
theirs."""

_FAULT = re.compile(r"#[^\W\d_]+[/\d]*[?!]|Err:\d+")
"""A formula that a spreadsheet could not compute, in any language: #NAME?, #REF!, #BEZUG!, #DIV/0!"""

_NOT_CLOSED = "a quotation mark is not closed, here or in what follows it: the table cannot be read"

_END = "END"
"""A last row for the reader: where a quotation mark is not closed, it is taken for a part of the text."""

Row = tuple[int, list[str]]
"""Number of a line, and its cells."""


class TableError(ValueError):
    """A table that cannot be used; the message is one line and does not name the file."""


def read_table(path: Path, columns: int, *, strict: bool = False) -> list[Row]:
    """Read the rows of a table, without space around cells, without empty rows and without empty columns at the end.

    Args:
        path: Path to the table, see `read_text`.
        columns: Number of columns that each row needs at least; all rows have as many as the first one.
        strict: True to refuse a text that goes on after its closing quotation mark, too.

    Raises:
        TableError: If it is no table, a row has another number of cells, a formula failed, or the last quotation mark
            opens a text that nothing closes.
        OSError: If the file cannot be read as text.
    """
    text = read_text(path)
    named = re.match(r"sep=(.)(\r\n|\r|\n)", text)  # the line that tells a spreadsheet the separator
    text = text[named.start(2) :] if named else text  # its end stays, so that lines keep their numbers
    first = next(iter(text.lstrip().splitlines()), "")
    separator = named[1] if named else next((m for m in _SEPARATORS if first.count(m) >= columns - 1), ",")
    rows = [(number, cells) for number, cells in _lines(text, separator, strict) if any(cells)]
    if not rows:
        return []
    width = max(columns, *(place for place, cell in enumerate(rows[0][1], start=1) if cell))
    for number, cells in rows:
        if fault := next((cell for cell in cells if _FAULT.fullmatch(cell)), None):
            raise TableError(f"line {number}: {fault} is an error of the spreadsheet, not a text")
        if len(cells) < width or any(cells[width:]):
            raise TableError(
                f"line {number}: expected {width} fields, got {len(cells)} (a text with {separator} in it needs quotes)"
            )
    return [(number, cells[:width]) for number, cells in rows]


def _lines(text: str, separator: str, strict: bool) -> list[Row]:
    """All lines of a table, also those without any text.

    Raises:
        TableError: If a line is that of no table.
    """
    ended = io.StringIO(f"{text}\n{_END}", newline="")
    reader = csv.reader(ended, delimiter=separator, skipinitialspace=True, strict=strict)
    lines: list[Row] = []
    wrong = _NOT_CLOSED
    try:
        for cells in reader:
            lines.append((reader.line_num, [_cell(cell) for cell in cells]))
        if lines.pop()[1] == [_END]:
            return lines
    except csv.Error as error:
        if "expected after" in str(error):
            wrong = 'a space or text follows a closing quotation mark; marks inside a text are doubled, "a ""big"" cat"'
        elif "end of data" not in str(error):
            wrong = f"cannot be read ({error})"
    start = lines[-1][0] + 1 if lines else 1
    raise TableError(f"line {start}: {wrong}")


def by_heading(path: Path, rows: Sequence[Row], columns: Sequence[str], others: Collection[str] = ()) -> list[Row]:
    """The rows below the heading, with cells in the order of `columns`; a note names other columns, which are dropped.

    Columns have small letters; the heading may have them in any order and in capitals. Of `others`, which are for
    another reader, there is no note.

    Raises:
        TableError: If the heading lacks a column or has it twice.
    """
    written = rows[0][1] if rows else []
    heading = [cell.lower() for cell in written]
    if any(heading.count(name) != 1 for name in columns):
        raise TableError(f"expected the heading {','.join(columns)}, got {','.join(written)!r}")
    further = [cell or "one without a name" for cell in written if cell.lower() not in {*columns, *others}]
    if further:
        note(path, f"has columns that are not read: {', '.join(further)}")
    return [(number, [cells[heading.index(name)] for name in columns]) for number, cells in rows[1:]]


def whole(text: str) -> int | None:
    """A whole number from 0, also if a program wrote it as 49.0 or 49,0; None for any other text."""
    found = re.fullmatch(r"(\d{1,18})([.,]0)?", text, re.ASCII)
    return int(found[1]) if found else None


def _cell(text: str) -> str:
    text = trimmed(text)
    return "" if text.casefold() in _ABSENT else text
