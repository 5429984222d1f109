"""A copy of DAVIS as a suite: real videos stored as pictures, and a table of the transfers to make between them.

    JPEGImages/[480p/]{sequence}/00000.jpg ...
    transfers.csv                               reference,caption,target,prompt

DAVIS has neither texts nor target images, so users write the table themselves. `reference` names a sequence; `caption`
describes it. `target` names another sequence, whose first picture is used, or gives the path of an image in the folder.
`prompt` describes the video to be made. If there are several resolutions, the smallest is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.planning.selection import UsageError
from benchmark.suites.case import refuse
from benchmark.suites.csv_tables import inside, read_rows
from benchmark.suites.file_cases import UNSTATED, FileCase, FileSuite, file_of, suite_of, unique_names
from flexiact.media.csv_files import TableError, by_heading
from flexiact.media.files import in_folder, is_file, spelled
from flexiact.media.frame_folder import pictures_in

TABLE = "transfers.csv"
COLUMNS = ["reference", "caption", "target", "prompt"]
_RESOLUTIONS = ("480p", "1080p", "Full-Resolution")


@dataclass(frozen=True, order=True)
class _Transfer:
    """Row of the table whose reference and image exist; paths are relative to the folder."""

    reference: str
    image: str
    target: str
    caption: str
    prompt: str


def davis_suite(place: str) -> FileSuite:
    """Make a case for each row of the folder's table.

    Raises:
        UsageError: If the folder is no copy of DAVIS.
        CaseError: If the table is invalid or names missing files; the message names up to ten faults.
    """
    root = Path(place).expanduser()
    top = root / "JPEGImages"
    if not top.is_dir():
        raise UsageError(f"suite: {root} holds no JPEGImages, as DAVIS does")
    top = next((top / name for name in _RESOLUTIONS if (top / name).is_dir()), top)
    problems: list[str] = []
    transfers = sorted(_transfers(root, top, problems))
    refuse(root, problems)
    files = {name: file_of(root, name) for one in transfers for name in (one.reference, one.image)}
    names = unique_names(f"{PurePosixPath(one.reference).name}-to-{one.target}" for one in transfers)
    cases = [
        FileCase(
            case_id=name,
            action=PurePosixPath(one.reference).name,
            reference_id=PurePosixPath(one.reference).name,
            caption=one.caption,
            prompt=one.prompt,
            licence=UNSTATED,
            source="DAVIS, a copy on disk",
            reference=files[one.reference],
            target=files[one.image],
        )
        for name, one in zip(names, transfers, strict=True)
    ]
    return suite_of("davis", cases)


def _transfers(root: Path, top: Path, problems: list[str]) -> Iterator[_Transfer]:
    """Rows of the table that have no problem."""
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(_rows(root, problems), start=1):
        where = f"{TABLE}: transfer {number}"
        empty = [name for name, cell in zip(COLUMNS, row, strict=True) if not cell]
        problems += [f"{where}: the {name} is empty" for name in empty]
        if empty:
            continue
        reference, caption, target, prompt = row
        try:
            frames = _frames(top, reference)
            image = _image(root, top, target)
        except (OSError, ValueError) as error:
            problems.append(f"{where}: {error.strerror if isinstance(error, OSError) else error}")
            continue
        place = inside(root, frames[0].parent)
        first = seen.setdefault((place, image), number)
        if first != number:
            problems.append(f"{where}: has the reference and target of transfer {first}")
            continue
        name = target if in_folder(top, target).is_dir() else PurePosixPath(image).stem
        yield _Transfer(place, image, name, caption, prompt)


def _rows(root: Path, problems: list[str]) -> list[list[str]]:
    """Rows of the table below its heading, with cells in the order of `COLUMNS`; [] after a problem."""
    if not (root / TABLE).is_file():
        problems.append(f"{TABLE} is missing: write into it {','.join(COLUMNS)} and a line for each transfer")
        return []
    rows = read_rows(root, root / TABLE, len(COLUMNS), problems)
    if not rows:
        return []
    try:
        transfers = by_heading(root / TABLE, rows, COLUMNS)
    except TableError as error:
        problems.append(f"{TABLE}: {error}")
        return []
    if not transfers:
        problems.append(f"{TABLE}: names no transfer")
    return [cells for _, cells in transfers]


def _frames(top: Path, sequence: str) -> list[Path]:
    """Paths of the frames of a sequence."""
    if not _is_name(sequence) or not in_folder(top, sequence).is_dir():
        raise ValueError(f"there is no sequence {sequence} in {top}")
    return pictures_in(in_folder(top, sequence))


def _is_name(text: str) -> bool:
    """True if a text can name a folder beside others: `/` and `//` are paths of one part, too."""
    return text != ".." and PurePosixPath(text).name == text


def _image(root: Path, top: Path, target: str) -> str:
    """Path, relative to the folder, of the image that a `target` cell names: a sequence's first frame, or a file."""
    path = PurePosixPath(spelled(root, target))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{target} leads out of the folder")
    if _is_name(target) and in_folder(top, target).is_dir():
        return inside(root, _frames(top, target)[0])
    if not is_file(root / path):
        raise ValueError(f"{target} is neither a sequence nor an image in the folder")
    return str(path)
