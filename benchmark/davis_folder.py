"""A copy of DAVIS as a suite: real videos kept as pictures, and a table of the transfers to make between them.

    JPEGImages/[480p/]{sequence}/00000.jpg ...
    transfers.csv                               reference,caption,target,prompt

DAVIS brings neither texts nor target images, so the table is the user's to write. `reference` is a sequence, `caption`
says what it shows. `target` is another sequence, whose first picture is taken, or the path of an image in the folder;
`prompt` says what its video shall show. Of several resolutions, 480p is taken where it is there.
"""

from pathlib import Path, PurePosixPath

from benchmark.real_cases import UNSTATED, FileCase, FileSuite, file_of, refuse, unique_names
from benchmark.selection import UsageError
from benchmark.text_tables import inside, read_rows
from flexiact.image import MediaError
from flexiact.pictures import pictures_in

TABLE = "transfers.csv"
COLUMNS = ["reference", "caption", "target", "prompt"]
_RESOLUTIONS = ("480p", "1080p", "Full-Resolution")


def davis_suite(place: str) -> FileSuite:
    """A case for each line of the folder's table.

    Args:
        place: the folder.

    Raises:
        UsageError: when it is no such folder.
        CaseError: when the table or what it names is missing; the message names all of it, up to ten.
    """
    root = Path(place).expanduser()
    top = root / "JPEGImages"
    if not top.is_dir():
        raise UsageError(f"suite: {root} holds no JPEGImages, as DAVIS does")
    top = next((top / name for name in _RESOLUTIONS if (top / name).is_dir()), top)
    problems: list[str] = []
    rows = _transfers(root, problems)
    sequences = {path.name: path for path in top.iterdir() if path.is_dir()}
    found = []
    for number, row in enumerate(rows, start=2):
        where = f"{TABLE}: row {number}"
        reference, caption, target, prompt = row
        if reference not in sequences:
            problems.append(f"{where}: there is no sequence {reference or '(empty)'} in {inside(root, top)}")
        problems += [f"{where}: the {name} is empty" for name, cell in zip(COLUMNS, row, strict=True) if not cell]
        image = _image(root, sequences, target, where, problems) if target else None
        found.append((reference, caption, target, image, prompt))
    refuse(root, problems)
    names = unique_names(f"{reference}-to-{PurePosixPath(target).stem}" for reference, _, target, _, _ in found)
    cases = [
        FileCase(
            case_id=name,
            action=reference,
            reference_id=reference,
            caption=caption,
            prompt=prompt,
            licence=UNSTATED,
            source="DAVIS, a copy on disk",
            reference=file_of(root, inside(root, sequences[reference])),
            target=file_of(root, str(image)),
        )
        for name, (reference, caption, _, image, prompt) in zip(names, found, strict=True)
    ]
    return FileSuite("davis", tuple(sorted(cases, key=lambda case: case.case_id)))


def _transfers(root: Path, problems: list[str]) -> list[list[str]]:
    """The lines of the table, cells in the order of `COLUMNS`; [] after a problem."""
    if not (root / TABLE).is_file():
        problems.append(f"{TABLE} is missing: write into it {','.join(COLUMNS)} and a line for each transfer")
        return []
    rows = read_rows(root, root / TABLE, len(COLUMNS), problems)
    if not rows:
        return []
    heading = [cell.lower() for cell in rows[0]]
    if sorted(heading) != sorted(COLUMNS):
        problems.append(f"{TABLE}: expected the heading {','.join(COLUMNS)}, got {','.join(rows[0])}")
        return []
    if len(rows) == 1:
        problems.append(f"{TABLE}: names no transfer")
    return [[row[heading.index(name)] for name in COLUMNS] for row in rows[1:]]


def _image(root: Path, sequences: dict[str, Path], target: str, where: str, problems: list[str]) -> str | None:
    """Path inside the folder of the image that a target is; None after a problem."""
    if target in sequences:
        try:
            return inside(root, pictures_in(sequences[target])[0])
        except MediaError as error:
            problems.append(f"{where}: {error}")
            return None
    path = PurePosixPath(target)
    if path.is_absolute() or ".." in path.parts:
        problems.append(f"{where}: {target} leads out of the folder")
    elif not (root / path).is_file():
        problems.append(f"{where}: {target} is neither a sequence nor an image in the folder")
    else:
        return str(path)
    return None
