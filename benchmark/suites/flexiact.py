"""The authors' benchmark folder as a suite: one case for each action and target image (25 x 10 in their release).

    captions/{human,animal,camera}/{action}/crop.csv         path, start_frame, end_frame, fps, mask_id, caption
    captions/{human,animal,camera}/{action}/val_image.csv    path, caption
    reference_videos/{scenario}/{action}[_crop]/0..11.mp4    twelve random crops of one reference
    target_image[s]/{scenario}/...

The release leaves some points open. They are settled here:

- `crop.csv` is read by column position. Its first row is a heading unless its second and third columns are whole
  numbers. `val_image.csv` is read by its heading; upper and lower case are equal there. Both files may use `,` or `|`
  as separator.
- Paths begin at the authors' own folder (`benchmark/...`): the part before `reference_videos` or `target_image` is
  dropped. Of `target_image` and `target_images`, and of `{action}` and `{action}_crop`, the existing one is used.
- The twelve crops come with the reference if all of them are there. `--set flexiact.crops=0` fits on them, as the
  released code does; all else fits on crops that it draws from the reference.
- The reference is video 0 of the twelve, between its start and end frame. The uncropped `{action}.mp4` is used instead
  if it exists and is no longer than video 0. It can be longer because the authors' instructions put the *untrimmed*
  source in that place, and such a film shows more than the action.
- `fps` is the rate of video 0 and serves only to compare the two lengths. Frames are spaced evenly over the clip; for
  49 frames at 8 per second the released loader does the same.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from benchmark.planning.selection import UsageError
from benchmark.suites.case import refuse
from benchmark.suites.csv_tables import inside, read_rows
from benchmark.suites.file_cases import UNSTATED, FileCase, FileSuite, file_of, lies_inside, suite_of, unique_names
from flexiact.backbone.hub import snapshot
from flexiact.media.csv_files import whole
from flexiact.media.files import MediaError, is_clutter, is_file, spelled
from flexiact.terminal.notes import note

REPOSITORY = "shiyi0408/FlexiAct"
"""The authors' dataset on the model hub."""

_TARGETS = ("target_image", "target_images")
_TOPS = ("reference_videos", *_TARGETS)
_CROP = "_crop"
_SAME_LENGTH = 1.1
"""Longest allowed duration of an uncropped video, as a multiple of the duration of video 0."""

_WANTED = ["README.md", "captions/*", *(f"{top}/*" for top in _TOPS)]
_UNREAD = ["reference_videos/*/[1-9].mp4", "reference_videos/*/1[01].mp4"]  # few want the other crops


@dataclass(frozen=True)
class _Clip:
    """Row of `crop.csv` that describes a reference, and the crops that all rows name."""

    name: str
    frames: tuple[int, int] | None
    caption: str
    crops: tuple[tuple[str, tuple[int, int]], ...] = ()


def flexiact_suite(place: str) -> FileSuite:
    """Open the suite in a folder, or with `hub@COMMIT` the authors' own suite on the model hub.

    Raises:
        UsageError: If there is no such folder, or the dataset cannot be fetched.
        CaseError: If files are missing or invalid; the message names up to ten.
    """
    if place != "hub" and not place.startswith("hub@"):
        return read_benchmark(Path(place).expanduser(), "the authors' benchmark folder, a copy on disk")
    commit = place.removeprefix("hub").removeprefix("@")
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise UsageError(
            "suite: say which version, flexiact:hub@COMMIT with 40 hex digits as listed at "
            f"https://huggingface.co/datasets/{REPOSITORY}/commits/main (none is pinned here)"
        )
    return read_benchmark(fetched(commit), f"huggingface.co/datasets/{REPOSITORY}@{commit}")


def fetched(commit: str) -> Path:
    """Folder of the authors' dataset at one commit, from the model hub or from its cache on this machine.

    A note is made if the cache has no list of the dataset's files, against which the library checks that none is
    missing: such a cache was filled in part, or by an older version of the library.

    Raises:
        UsageError: If the dataset is not cached, or in part, and cannot be fetched.
    """
    try:
        folder = snapshot(REPOSITORY, commit, _WANTED, ignore=_UNREAD, kind="dataset")
    except OSError as error:
        raise UsageError(
            f"suite: {REPOSITORY}@{commit[:12]} is not in the cache and cannot be fetched ({type(error).__name__}); "
            "fetch it on a machine with network and give the folder, flexiact:FOLDER"
        ) from error
    if not (folder.parents[1] / "trees" / f"{commit}.json").is_file():
        note(folder, "is read as it is: the cache does not say if files are missing")
    return folder


def read_benchmark(root: Path, source: str) -> FileSuite:
    """Read the suite in a folder of the layout above, or in its subfolder `benchmark`; print its licence to stderr.

    Raises:
        UsageError: If the folder has another layout.
        CaseError: If files are missing or invalid; the message names up to ten.
    """
    given, root = root, root if (root / "captions").is_dir() else root / "benchmark"
    folders = sorted(path for path in root.glob("captions/*/*") if path.is_dir())
    folders = [path for path in folders if not is_clutter(path) and not is_clutter(path.parent)]
    if not folders:
        raise UsageError(f"suite: {given} holds no captions/SCENARIO/ACTION")
    licence = stated_licence(root / "README.md") if lies_inside(root, "README.md") else UNSTATED
    print(f"suite flexiact: licence of the material by its dataset card: {licence}", file=sys.stderr)
    problems: list[str] = []
    cases: list[FileCase] = []
    for folder in folders:
        scenario, action = folder.parent.name, folder.name
        clip, targets = _clip(root, folder, problems), _targets(root, folder, problems)
        if clip is None:
            continue
        reference = file_of(root, clip.name)
        crops = tuple((file_of(root, name), frames) for name, frames in clip.crops)
        for name, prompt in targets:
            cases.append(
                FileCase(
                    case_id=f"{scenario}-{action}-to-{PurePosixPath(name).stem}",
                    action=action,
                    reference_id=f"{scenario}-{action}",
                    caption=clip.caption,
                    prompt=prompt,
                    licence=licence,
                    source=source,
                    reference=reference,
                    target=file_of(root, name),
                    frames=clip.frames,
                    crops=crops,
                )
            )
    refuse(root, problems)
    names = unique_names(case.case_id for case in cases)  # valid as file names, too
    return suite_of("flexiact", [replace(case, case_id=name) for case, name in zip(cases, names, strict=True)])


def stated_licence(card: Path) -> str:
    """Field `license` in the heading of a dataset card; "not stated" if the field or the card is missing."""
    if not card.is_file():
        return UNSTATED
    from huggingface_hub.repocard import metadata_load

    try:
        stated = (metadata_load(card) or {}).get("license")
    except Exception:  # YAML raises errors of its own; an unreadable card states no licence
        return UNSTATED
    return ", ".join(map(str, stated if isinstance(stated, list) else [stated])) if stated else UNSTATED


def _clip(root: Path, folder: Path, problems: list[str]) -> _Clip | None:
    """Video 0 of an action, or the uncropped video in its place; None after a problem."""
    rows = [cells for _, cells in read_rows(root, folder / "crop.csv", 6, problems, strict=False)]
    if rows and (whole(rows[0][1]) is None or whole(rows[0][2]) is None):
        rows = rows[1:]  # without the heading
    if not rows:
        return None
    where = f"{inside(root, folder)}/crop.csv"
    row = next((row for row in rows if _path(row[0]).stem == "0"), None)
    if row is None:
        row = rows[0]
        note(root / where, f"has no row of video 0; {row[0]} is the reference")
    start, end, rate = whole(row[1]), whole(row[2]), whole(row[3])
    if start is None or end is None or end - start < 2 or not rate:
        got = ", ".join(row[1:4])
        problems.append(f"{where}: expected whole numbers start_frame, end_frame (2 more or above) and fps, got {got}")
        return None
    if not row[5]:
        problems.append(f"{where}: the caption of {row[0]} is empty")
    name = _located(root, row[0], where, problems)
    if name is None:
        return None
    uncropped = f"reference_videos/{folder.parent.name}/{folder.name}.mp4"
    if 0 < _seconds(root, uncropped) <= _SAME_LENGTH * (end - start) / rate:
        return _Clip(uncropped, None, row[5], _crops(root, rows))
    return _Clip(name, (start, end), row[5], _crops(root, rows))


def _crops(root: Path, rows: Sequence[Sequence[str]]) -> tuple[tuple[str, tuple[int, int]], ...]:
    """File and frames of the crops that the rows name; () unless all of them are there and say where they begin."""
    found = []
    for row in rows:
        name, start, end = _located(root, row[0], "", []), whole(row[1]), whole(row[2])
        if name is None or start is None or end is None or end - start < 2:
            return ()
        found.append((name, (start, end)))
    return tuple(found)


def _targets(root: Path, folder: Path, problems: list[str]) -> list[tuple[str, str]]:
    """Name and prompt of each target image of an action whose file exists."""
    rows = [cells for _, cells in read_rows(root, folder / "val_image.csv", 2, problems, strict=False)]
    where = f"{inside(root, folder)}/val_image.csv"
    heading = [cell.lower() for cell in rows[0]] if rows else ["path", "caption"]
    if heading.count("path") != 1 or heading.count("caption") != 1:
        problems.append(f"{where}: expected a heading with path and caption, got {', '.join(rows[0])}")
        return []
    if len(rows) == 1:
        problems.append(f"{where}: names no image")
    found: dict[str, str] = {}
    for row in rows[1:]:
        path, prompt = row[heading.index("path")], row[heading.index("caption")]
        name = _located(root, path, where, problems)
        if name in found:
            problems.append(f"{where}: {path} is there twice")
        if not prompt:
            problems.append(f"{where}: the caption of {path} is empty")
        if name is not None:
            found[name] = prompt
    return list(found.items())


def _located(root: Path, written: str, where: str, problems: list[str]) -> str | None:
    """Path, relative to the folder, of a file that a table names, in the spelling that exists; None after a problem."""
    path = _path(written)
    if path.is_absolute() and path.is_relative_to(root.absolute().as_posix()):
        path = path.relative_to(root.absolute().as_posix())
    if path.is_absolute() or ".." in path.parts:
        problems.append(f"{where}: {written} leads out of the folder")
        return None
    start = next((place for place, part in enumerate(path.parts) if part.lower() in _TOPS), 0)
    parts = path.parts[start:]
    for name in _spellings(parts):
        found = spelled(root, name)
        if is_file(root / found):
            return found
    problems.append(f"{'/'.join(parts)} is missing" if parts else f"{where}: a path is empty")
    return None


def _path(written: str) -> PurePosixPath:
    return PurePosixPath(written.replace("\\", "/"))


def _spellings(parts: Sequence[str]) -> list[str]:
    """Path of a file as written, then with the other names that its folder may have."""
    others = [list(parts)]
    if parts and parts[0].lower() in _TARGETS:
        others += [[top, *parts[1:]] for top in _TARGETS if top != parts[0].lower()]
    elif len(parts) > 2 and parts[0].lower() == "reference_videos":
        folder = parts[-2]
        others.append(
            [*parts[:-2], folder.removesuffix(_CROP) if folder.endswith(_CROP) else folder + _CROP, parts[-1]]
        )
    return ["/".join(spelling) for spelling in others]


def _seconds(root: Path, name: str) -> float:
    """Duration of a video in the folder by its header; 0 if there is none, or its header states none."""
    if not lies_inside(root, name):
        return 0.0
    import av

    from flexiact.media.film import opened

    try:
        with opened(root / name) as (container, stream):
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            return (container.duration or 0) / av.time_base
    except MediaError:
        return 0.0
