"""Merge runs of one suite into one run directory: `python -m benchmark.merge RUN RUN ... --out DIR`.

The runs may be of several machines, with other methods, cases, seeds or metrics. All must have the same suite, backbone
and judges, and the same version of every method and metric that two of them have; otherwise nothing is written. A video
or value that two runs have, but not the same, is an error that names it, unless `--first` takes that of the first run.
The result can be reported, compared and resumed like any run, and its card says who made and measured what. Exit codes:
0 done; 2 not done, with the reason in one line on standard error; 130 interrupted.
"""

import argparse
import shutil
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.suites.case import refuse
from flexiact.terminal.cli import OneLineParser, command, shortened
from flexiact.terminal.notes import note

if TYPE_CHECKING:  # tables load slow libraries, which --help should not cost
    from benchmark.planning.plan import Cell
    from benchmark.store.schema.card_json import CardPart
    from benchmark.store.schema.rows import SampleRow

SAME_VALUE = 1e-6
"""Relative difference up to which values of one video count as equal: processors differ in the last bits of sums."""

_SAME_ZERO = 1e-9
_SHARED = ("fits", "features", "inputs")  # folders whose files are named by all that they depend on
_MUST_EQUAL = ("suite", "suite_version", "suite_digest", "backbone", "truth")
_FREE = ("summary", "videos")  # in entries; the videos of submissions are compared one by one


@dataclass(frozen=True, eq=False)
class Part:
    """One of the runs that are merged.

    Attributes:
        cells: Planned videos by key. Their rows are read when they are needed.
    """

    folder: RunFolder
    run: dict[str, Any]
    cells: "Mapping[str, Cell]"

    def __str__(self) -> str:
        return str(self.folder.path)

    def row(self, key: str) -> "SampleRow | None":
        """Row of a video; None if it was not made or is of other runs."""
        from benchmark.store.gather import sample_row

        return sample_row(self.folder, self.cells[key]) if key in self.cells else None


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.merge", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, two or more")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="run directory to write; must be new")
    p.add_argument("--first", action="store_true", help="of what differs take that of the first run in the list")
    return p


def _merge(args: argparse.Namespace) -> None:
    if len({path.resolve() for path in args.runs}) < max(2, len(args.runs)):
        raise UsageError("runs: expected two or more different run directories")
    from benchmark.store.card import parts_of

    out = RunFolder(args.out)
    out.check()
    if out.read_run() is not None:
        raise UsageError(f"{args.out}: holds a run already; choose another --out")
    parts = [read_part(path) for path in args.runs]
    run = joined(parts)
    problems = [] if args.first else [*conflicts(parts)]
    refuse("the runs differ (--first takes the first one's)", problems)
    cards = [card for part in parts for card in parts_of(part.folder)]
    write(out, run, parts, cards)

    from reports.build import build

    print(f"merged {len(parts)} runs: {len(run['methods'])} methods and bounds on {len(run['cases'])} cases")
    print(f"report: {build(out.path, out.path / 'report')}")


def read_part(path: Path) -> Part:
    """Read a run; a note counts the rows that are there but damaged, or have no whole video.

    Raises:
        UsageError: If there is no run, one of another schema version, or one whose run.json breaks the contract.
    """
    from benchmark.planning.plan import plan
    from benchmark.store.gather import sample_row

    folder = RunFolder(path)
    run = folder.described()
    cells = {cell.key: cell for cell in plan(run)}
    lost = sum(
        folder.file("records", f"{key}.json").exists() and sample_row(folder, cell) is None
        for key, cell in cells.items()
    )
    if lost:
        note(path, f"has {lost} damaged records or videos, which are left out; its own command makes them again")
    return Part(folder, run, cells)


def joined(parts: Sequence[Part]) -> dict[str, Any]:
    """Content of run.json for all runs together, with their sessions one after the other.

    Raises:
        UsageError: If two of the runs cannot be merged; the message names them and what differs.
    """
    from benchmark.stages.describe import merged
    from benchmark.store.schema.run_json import sessions_of

    for first, second in combinations(parts, 2):
        _check_alike(first, second)
    run = parts[0].run
    for part in parts[1:]:
        run = merged(run, part.run | {"methods": _kept_videos(run["methods"], part.run["methods"])})
    sessions = [session for part in parts for session in sessions_of(part.run)]
    distinct = [session for number, session in enumerate(sessions) if session not in sessions[:number]]
    return run | distinct[0] | {"later_sessions": distinct[1:]}


def _check_alike(first: Part, second: Part) -> None:
    """Refuse two runs of another suite, backbone or truth, or with another case, method or metric of one name."""
    for name in _MUST_EQUAL:
        _check_equal(first, second, name, first.run.get(name), second.run.get(name))
    for table in ("cases", "methods", "metrics"):
        for name in first.run[table].keys() & second.run[table].keys():
            sides = [{k: v for k, v in part.run[table][name].items() if k not in _FREE} for part in (first, second)]
            _check_equal(first, second, f"{table[:-1]} {name}", *sides)


def _check_equal(first: Part, second: Part, what: str, one: Any, other: Any) -> None:
    """Refuse two runs that differ in something, which is followed down to the smallest part."""
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in {**one, **other} if one.get(name) != other.get(name))
        _check_equal(first, second, f"{what} {name}", one.get(name), other.get(name))
    here, there = (shortened(repr(value), 40) for value in (other, one))
    raise UsageError(f"{second}: {what} is {here}, in {first} it is {there}; they cannot be merged")


def _kept_videos(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Methods of a run; a submission keeps the files that an earlier run has and this one lacks."""
    found = dict(after)
    for name, entry in after.items():
        if entry["kind"] == "submission" and name in before:
            files = {video: file for video, file in before[name]["videos"].items() if file}
            found[name] = entry | {"videos": {**entry["videos"], **files}}
    return found


def conflicts(parts: Sequence[Part]) -> Iterator[str]:
    """Videos and values that two runs have, but not the same: one line each."""
    for first, second in combinations(parts, 2):
        yield from _other_files(first, second)
        for key in first.cells.keys() & second.cells.keys():
            yield from _differences(first, second, key)


def _other_files(first: Part, second: Part) -> Iterator[str]:
    for name, entry in second.run["methods"].items():
        before = first.run["methods"].get(name, {}).get("videos", {})
        for video, file in entry.get("videos", {}).items():
            if file and before.get(video) and before[video] != file:
                yield f"{name} on {video}: {first} and {second} have other files"


def _differences(first: Part, second: Part, key: str) -> Iterator[str]:
    from benchmark.planning.plan import said_seed
    from benchmark.store.gather import score_rows

    one, other = first.row(key), second.row(key)
    if one is None or other is None:
        return
    where = f"{one.method} on {one.case_id} at {said_seed(one.seed, one.fit_seed)}"
    if (one.status, one.video_digest) != (other.status, other.video_digest):
        said = "other videos" if one.status == other.status else f"{one.status} and {other.status}"
        yield f"{where}: {first} and {second} have {said}"
        return
    values = {score.metric: score for score in score_rows(first.folder, first.run["metrics"], one)}
    for score in score_rows(second.folder, second.run["metrics"], other):
        before = values.get(score.metric, score)
        if before.status != score.status or not _same(before.value, score.value):
            sides = [before.status if side.value is None else f"{side.value:.6g}" for side in (before, score)]
            yield f"{where}: {score.metric} is {sides[0]} in {first}, {sides[1]} in {second}"


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=SAME_VALUE, abs_tol=_SAME_ZERO)


def write(out: RunFolder, run: Mapping[str, Any], parts: Sequence[Part], cards: "Sequence[CardPart]") -> None:
    """Write the merged run and its card; run.json comes last, so that a killed merge can be started again.

    Raises:
        UsageError: If the place is taken, or a video has gone.
    """
    from benchmark.planning.plan import plan
    from benchmark.store.card import store_card
    from benchmark.store.gather import write_tables

    cells = plan(run)  # first, since it refuses one video under two names
    with out.opened():
        for key in dict.fromkeys(key for part in parts for key in part.cells):
            if held := [(part, row) for part in parts if (row := part.row(key))]:
                _write_video(out, [part for part, _ in held], held[0][1])
        for part in parts:
            for name in _SHARED:
                _copy_all(part.folder.path / name, out.path / name, out)
        write_tables(out, run, cells)
        store_card(out, cards)
        out.write_run(run)


def _write_video(out: RunFolder, parts: Sequence[Part], row: "SampleRow") -> None:
    """Write video, preview and `row` of the first run, and the scores of all that have the same video."""
    from benchmark.store.gather import current_scores, write_scores

    first, key = parts[0], row.key
    # What a run has in an older version must not hide what another one has measured since.
    metrics = ChainMap(*(current_scores(part.folder, part.run["metrics"], row) for part in parts))
    if metrics:
        write_scores(out, row, metrics)
    for folder, name in (("videos", f"{key}.mkv"), ("previews", f"{key}.mp4")) if row.status == "ok" else ():
        source = first.folder.file(folder, name)
        if folder == "previews" and not source.exists():  # which no run makes again, since only people look at it
            _preview(out, first, row)
            continue
        if not source.is_file() or not source.resolve().is_relative_to(first.folder.path.resolve()):
            raise UsageError(f"{source}: is missing or a link; start that run's command again, which makes it anew")
        with out.replacing(out.file(folder, name)) as partial:
            shutil.copyfile(source, partial)
    out.write_json("records", key, asdict(row))  # last, as in a run: what has a row is whole


def _preview(out: RunFolder, part: Part, row: "SampleRow") -> None:
    """Make the preview of a run's video anew."""
    from benchmark.stages.execute import preview_scale
    from benchmark.store.videos import read_stored
    from flexiact.media.video import write_preview

    video = read_stored(part.folder.path / str(row.video), row)
    write_preview(out.room_for(out.file("previews", f"{row.key}.mp4")), video, preview_scale(video))


def _copy_all(source: Path, target: Path, out: RunFolder) -> None:
    """Copy the visible files below a folder that are not there yet."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        inside = path.resolve().is_relative_to(source.resolve())
        if path.is_file() and inside and not path.name.startswith(".") and not place.exists():
            with out.replacing(place) as partial:
                shutil.copyfile(path, partial)


main = command(parser, _merge)

if __name__ == "__main__":
    sys.exit(main())
