"""Which untrimmed videos a training reads, and their captions."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flexiact.cli import one_line

VIDEO_SUFFIXES = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
COLUMNS = ["path", "caption"]
MAX_NAMED = 5
"""So many of many names are spelled out in an error."""


@dataclass(frozen=True)
class Clip:
    """An untrimmed video and what it shows.

    Attributes:
        path: Path to the file.
        caption: may be empty.
    """

    path: Path
    caption: str


def list_clips(data: Path) -> list[Clip]:
    """The videos of a folder, each with its caption in a text file of the same name, or those that a table names.

    A table is a .csv file with the header `path,caption`; paths are relative to its folder and stay inside.

    Raises:
        ValueError: when there are no videos, captions or videos are missing (all are counted), a path leads outside,
            or the table cannot be read.
    """
    if data.is_dir():
        return _clips_of_folder(data)
    if data.suffix.lower() != ".csv":
        raise ValueError(f"data: expected a folder of videos or a .csv file, got {data}")
    clips = _clips_of_table(data)
    if not clips:
        raise ValueError(f"data: {data} names no videos")
    missing = [str(clip.path.relative_to(data.resolve().parent)) for clip in clips if not clip.path.is_file()]
    if missing:
        raise ValueError(f"data: {data} names {len(missing)} missing files: {some_of(missing)}")
    return clips


def some_of(names: Sequence[str]) -> str:
    """The first few of many names or problems, and how many more there are."""
    rest = len(names) - MAX_NAMED
    return "; ".join(names[:MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _clips_of_folder(folder: Path) -> list[Clip]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise ValueError(f"data: {folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    captions = [path.with_suffix(".txt") for path in paths]
    missing = [caption.name for caption in captions if not caption.is_file()]
    if missing:
        raise ValueError(f"data: {folder} lacks {len(missing)} captions: {some_of(missing)}")
    try:
        return [Clip(path, path.with_suffix(".txt").read_text(encoding="utf-8").strip()) for path in paths]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"data: a caption in {folder} cannot be read ({one_line(error)})") from error


def _clips_of_table(table: Path) -> list[Clip]:
    root = table.resolve().parent
    clips = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header != COLUMNS:
                raise ValueError(f"data: {table} expected the header {','.join(COLUMNS)}, got {','.join(header)!r}")
            for row in filter(None, rows):
                if len(row) != len(COLUMNS):
                    raise ValueError(f"data: {table} line {rows.line_num}: expected 2 fields, got {len(row)}")
                path = (root / row[0]).resolve()
                if path == root or not path.is_relative_to(root):
                    raise ValueError(f"data: {table} line {rows.line_num}: {row[0]!r} leads out of the table's folder")
                clips.append(Clip(path, row[1].strip()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"data: {table} cannot be read ({one_line(error)})") from error
    return clips
