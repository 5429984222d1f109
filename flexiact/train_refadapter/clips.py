"""Untrimmed videos that a training reads, and their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flexiact.media.csv_files import TableError, by_heading, read_table
from flexiact.media.files import in_folder, is_clutter, read_text, spelled, trimmed
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"),
}
COLUMNS = ["path", "caption"]
MAX_NAMED = 5
"""Largest number of names listed in an error."""


@dataclass(frozen=True)
class Clip:
    """An untrimmed video and its caption, which may be empty."""

    path: Path
    caption: str


def list_clips(data: Path) -> list[Clip]:
    """List the videos of a folder, each with its caption in a text file of the same name, or those of a table.

    A table is a .csv or .tsv file with the columns `path` and `caption`, read by `flexiact.media.csv_files`; paths are
    relative to its folder and stay inside. Hidden files that systems add (`._jump.mp4`) are ignored.

    Raises:
        ValueError: If there are no videos, captions or videos are missing (all are counted), a path leads outside,
            or the table cannot be read.
    """
    if data.is_dir():
        return _clips_of_folder(data)
    if data.suffix.lower() not in {".csv", ".tsv"}:
        raise ValueError(f"data: expected a folder of videos, a .csv or a .tsv file, got {data}")
    clips = _clips_of_table(data)
    if not clips:
        raise ValueError(f"data: {data} names no videos")
    missing = [str(clip.path.relative_to(data.resolve().parent)) for clip in clips if not clip.path.is_file()]
    if missing:
        raise ValueError(f"data: {data} names {len(missing)} missing files: {some_of(missing)}")
    return clips


def some_of(names: Sequence[str]) -> str:
    """The first few of many names or problems, and the number of the others."""
    rest = len(names) - MAX_NAMED
    return "; ".join(names[:MAX_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _clips_of_folder(folder: Path) -> list[Clip]:
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not is_clutter(p))
    if not paths:
        raise ValueError(f"data: {folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    captions = [in_folder(folder, f"{path.stem}.txt") for path in paths]
    missing = [caption.name for caption in captions if not caption.is_file()]
    if missing:
        raise ValueError(f"data: {folder} lacks {len(missing)} captions: {some_of(missing)}")
    texts = {p for p in folder.iterdir() if p.suffix.lower() == ".txt" and not is_clutter(p)}
    if unread := sorted(path.name for path in texts.difference(captions)):
        note(folder, f"has texts without a video that is read: {some_of(unread)}")
    if deeper := sorted(path.name for path in folder.iterdir() if path.is_dir() and _holds_videos(path)):
        note(folder, f"has folders whose videos are not read: {some_of(deeper)}")
    try:
        return [Clip(path, trimmed(read_text(caption))) for path, caption in zip(paths, captions, strict=True)]
    except OSError as error:
        raise ValueError(f"data: a caption in {folder} cannot be read ({one_line(error)})") from error


def _holds_videos(folder: Path) -> bool:
    return not is_clutter(folder) and any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.rglob("*"))


def _clips_of_table(table: Path) -> list[Clip]:
    root = table.resolve().parent
    clips = []
    try:
        for number, (written, caption) in by_heading(table, read_table(table, len(COLUMNS), strict=True), COLUMNS):
            path = (root / spelled(root, written)).resolve()
            if path == root or not path.is_relative_to(root):
                raise TableError(f"line {number}: {written!r} leads out of the table's folder")
            clips.append(Clip(path, caption))
    except TableError as error:
        raise ValueError(f"data: {table} {error}") from error
    except OSError as error:
        raise ValueError(f"data: {table} cannot be read ({one_line(error)})") from error
    return clips
