"""Tables as data: cells hold numbers, and only `reports.tables.formats` and the page turn them into text."""

import math
from dataclasses import dataclass, replace

from reports.wording import Write, number, percent

MOST_ROWS = 1000
"""Largest number of rows of a table on the page and in Markdown; longer ones are files of their own."""


@dataclass(frozen=True)
class Interval:
    """The ends of a 95% interval; NaN if there is none."""

    low: float
    high: float
    write: Write = number


@dataclass(frozen=True)
class Number:
    """A number, with its interval if it has one, and the format of all three; NaN where there is none.

    Attributes:
        videos: Number of videos with a value, given if some of the made videos have none.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    write: Write = number
    videos: int | None = None


@dataclass(frozen=True)
class Share:
    """A share of a number of things; empty if there are none."""

    value: float
    of: int
    write: Write = percent


Cell = str | int | Number | Interval | Share | tuple[Number, ...]
"""A tuple is a sum whose parts are shown."""


@dataclass(frozen=True)
class Table:
    """A title, headings, a cell for each of them in every row, and a note that says how to read the table, if any."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def shortened(table: Table, file: str) -> Table:
    """The first `MOST_ROWS` rows of a table; if there are more, its note says so and names the file that holds all."""
    if len(table.rows) <= MOST_ROWS:
        return table
    note = f"The first {MOST_ROWS} of {len(table.rows)} rows; all of them are in {file}. {table.note}"
    return replace(table, rows=table.rows[:MOST_ROWS], note=note.strip())
