"""Read features that another tool found in a run's videos: a folder of .npz files, or one Parquet table.

A folder mirrors the run: `videos/XX/KEY.npz`, where XX are KEY's first two digits, `inputs/CASE_ID/reference.npz`,
`inputs/CASE_ID/target.npz`. A file holds `producer`, the tool's name and version as a text, and the arrays of one kind
in `KINDS`. A table has the columns of `ALWAYS` and those of one kind in `COLUMNS`, a row for each point, embedding or
mask in a frame; `video` is the path in the run without a suffix, such as `videos/XX/KEY`. Nothing is unpickled.
"""

import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.planning.selection import UsageError
from flexiact.terminal.cli import one_line
from metrics.features import VideoFeatures

KINDS = {
    "tracks": ("tracks", "track_visible"),
    "keypoints": ("keypoints", "keypoint_scores"),
    "masks": ("masks",),
    "image_embeddings": ("image_embeddings",),
}
"""Fields of `VideoFeatures` of each kind of features."""

ALWAYS = ("video", "frame", "producer")
COLUMNS = {
    "tracks": ("track", "x", "y", "visible"),
    "keypoints": ("keypoint", "x", "y", "score"),
    "masks": ("runs",),
    "image_embeddings": ("embedding",),
}
"""Columns of a table of each kind. `runs` are lengths of runs of pixels, row by row, the first of them outside."""

MOST_MIB = 256
"""Size of a file's arrays from which on it is refused."""
MOST_TABLE_MIB = 4096
"""The same of a table, which holds those of all videos."""

_VIDEOS = "videos/*/*.npz"
_UNREADABLE = (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, pa.ArrowException)
_Arrays = Mapping[str, np.ndarray]


class FeatureFolder:
    """Features of a run's videos, of one kind and by one producer.

    Args:
        path: Folder of .npz files, or a Parquet table.

    Attributes:
        producer: Name and version of the tool.
        kind: Name in `KINDS`.

    Raises:
        UsageError: If there are no features of a video, or they cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table = _table(path) if path.is_file() else None
        if not self.keys:
            raise UsageError(f"{path}: holds no {'rows of videos/XX/KEY' if path.is_file() else 'videos/XX/KEY.npz'}")
        if self._table is not None:
            self.kind = next(kind for kind, names in COLUMNS.items() if set(names) <= set(self._table.columns))
            self.producer = str(self._table["producer"].iloc[0])
        else:
            file = min(path.glob(_VIDEOS))
            content = _arrays(file)
            self.producer, self.kind = _producer(file, content), _kind(file, content)

    @cached_property
    def keys(self) -> set[str]:
        """Keys of the videos that have features."""
        if self._table is None:
            return {file.stem for file in self._path.glob(_VIDEOS)}
        return {name.rpartition("/")[2] for name in self._rows if name.startswith("videos/")}

    @cached_property
    def _rows(self) -> dict[str, pd.DataFrame]:
        assert self._table is not None
        return {str(name): rows for name, rows in self._table.groupby("video")}

    @cached_property
    def _num_keypoints(self) -> int:
        """Number of keypoints of all videos, since some may be found in none of one video's frames."""
        assert self._table is not None
        return 1 + int(_indices(self._table["keypoint"]).max())

    def of(self, name: str, frames: np.ndarray) -> VideoFeatures:
        """Features of a video or image.

        Args:
            name: Path in the run without its suffix.
            frames: Frames, uint8 [T, H, W, 3].

        Raises:
            UsageError: If the features are missing, of another producer or kind, or do not fit the frames.
        """
        where = f"{self._path}: {name}" if self._table is not None else f"{self._path / name}.npz"
        try:
            content = self._of_table(name, frames) if self._table is not None else self._of_file(name)
            return VideoFeatures(frames=frames, **{field: content[field] for field in KINDS[self.kind]})
        except (ValueError, TypeError, OverflowError) as error:
            raise error if isinstance(error, UsageError) else UsageError(f"{where}: {one_line(error)}") from error

    def _of_file(self, name: str) -> _Arrays:
        file = self._path / f"{name}.npz"
        content = _arrays(file)
        if (_producer(file, content), _kind(file, content)) != (self.producer, self.kind):
            raise UsageError(f"{file}: is not {self.kind} of {self.producer} as the others are")
        return content

    def _of_table(self, name: str, frames: np.ndarray) -> _Arrays:
        if name not in self._rows:
            raise ValueError("has no row")
        rows = self._rows[name]
        place, (count, height, width) = _indices(rows["frame"]), frames.shape[:3]
        if place.max() >= count:
            raise ValueError(f"frame {place.max()} is there, the video has {count}")
        if self.kind == "tracks":
            _, point = np.unique(_indices(rows["track"]), return_inverse=True)
            return _points(rows, (point, place), (point.max() + 1, count), KINDS["tracks"])
        if self.kind == "keypoints":
            shape = count, self._num_keypoints
            return _points(rows, (place, _indices(rows["keypoint"])), shape, KINDS["keypoints"])
        _check_once(place)
        if self.kind == "masks":
            masks = np.zeros((count, height * width), bool)
            for frame, runs in zip(place, rows["runs"], strict=True):
                masks[frame] = _mask(runs, height * width)
            return {"masks": masks.reshape(count, height, width)}
        return {"image_embeddings": np.stack([*rows["embedding"].iloc[np.argsort(place)]]).astype(np.float64)}


def _points(
    rows: pd.DataFrame, places: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], fields: tuple[str, ...]
) -> _Arrays:
    """Positions and what is said of them; what no row names is not visible, or has the score 0."""
    if shape[0] * shape[1] * 16 > MOST_MIB * 2**20:
        raise ValueError(f"its arrays take more than {MOST_MIB} MiB")
    _check_once(places[0] * shape[1] + places[1])
    points, said = np.zeros((*shape, 2)), np.zeros(shape, bool if fields == KINDS["tracks"] else np.float64)
    points[places] = rows[["x", "y"]].to_numpy(np.float64)
    column = rows["visible" if said.dtype == bool else "score"]
    if said.dtype == bool and column.dtype != bool:
        raise ValueError(f"visible: expected true or false, got {column.dtype}")
    said[places] = column.to_numpy(said.dtype)
    return dict(zip(fields, (points, said), strict=True))


def _mask(runs: object, pixels: int) -> np.ndarray:
    """Pixels of a mask from the lengths of its runs: bool [pixels]."""
    lengths = np.asarray(runs)
    whole = lengths.ndim == 1 and lengths.dtype.kind in "iu" and not ((lengths < 0) | (lengths > pixels)).any()
    if not whole or int(lengths.sum()) != pixels:
        raise ValueError(f"runs: expected whole numbers from 0 with the sum {pixels}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def _indices(column: pd.Series) -> np.ndarray:
    """Whole numbers from 0, int64 [rows]."""
    whole = column.dtype.kind in "iu"
    found = column.to_numpy(np.int64) if whole else np.zeros(0, np.int64)
    if not whole or (found < 0).any():
        raise ValueError(f"{column.name}: expected whole numbers from 0")
    return found


def _check_once(places: np.ndarray) -> None:
    if len(np.unique(places)) < len(places):
        raise ValueError("two rows are of one place")


def _table(path: Path) -> pd.DataFrame:
    """Content of a Parquet file, with the columns of one kind."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about, held = file.metadata, set(file.schema_arrow.names)
            size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
            if size > MOST_TABLE_MIB * 2**20:
                raise ValueError(f"it takes more than {MOST_TABLE_MIB} MiB")
            kinds = [kind for kind, names in COLUMNS.items() if {*ALWAYS, *names} <= held]
            if len(kinds) != 1:
                expected = " or ".join(", ".join(names) for names in COLUMNS.values())
                raise ValueError(f"expected the columns {', '.join(ALWAYS)} and those of one kind: {expected}")
            table = file.read([*ALWAYS, *COLUMNS[kinds[0]]]).to_pandas()
    except _UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)})") from error
    told = [text for text in table["producer"].unique() if isinstance(text, str) and text.strip()]
    if len(told) != 1 or table["producer"].nunique(dropna=False) != 1:
        raise UsageError(f"{path}: producer: expected one text with the tool's name and version in all rows")
    if table["video"].isna().any():  # or its rows would be lost
        raise UsageError(f"{path}: video: is empty in {table['video'].isna().sum()} rows")
    return table


def _arrays(file: Path) -> _Arrays:
    """Arrays of a file; nothing in it is unpickled."""
    try:
        _check_size(file)
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except _UNREADABLE as error:  # each damage has its own
        raise UsageError(f"{file}: cannot be read ({one_line(error)})") from error


def _check_size(file: Path) -> None:
    with zipfile.ZipFile(file) as content:
        size = sum(member.file_size for member in content.infolist())
    if size > MOST_MIB * 2**20:
        raise ValueError(f"its arrays take more than {MOST_MIB} MiB")


def _producer(file: Path, content: _Arrays) -> str:
    found = content.get("producer")
    if found is None or found.dtype.kind != "U" or found.size != 1 or not str(found.item()).strip():
        raise UsageError(f"{file}: producer: expected a text with the tool's name and version")
    return str(found.item())


def _kind(file: Path, content: _Arrays) -> str:
    held = [kind for kind, fields in KINDS.items() if set(fields) <= content.keys()]
    if len(held) != 1:
        expected = (" and ".join(fields) for fields in KINDS.values())
        raise UsageError(f"{file}: expected either {' or '.join(expected)}")
    return held[0]
