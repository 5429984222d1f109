"""Make the report of a run: `python -m reports.build RUN [--out DIR] [--publish DIR] [--against METHOD]`.

Without a run, `python -m reports.build --readme README.md` writes the README's results from the published ones.

All files are first written to a temporary folder and then moved one by one, so that a failed build leaves the former
report unchanged. Figures, frames and long tables of a former report that the new one lacks are then removed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:  # importing this module loads only the standard library, so that `--help` is fast
    from reports.run_folder import StoredRun

PUBLISHED_LIMIT_BYTES = 5_000_000
PUBLISHED_CASES = 4
PUBLISHED_FRAMES = 4
"""Number of cases whose frames are published, for the page's gallery."""
PUBLISHED = Path(__file__).parent / "published" / "claims"
"""Results that the README shows: those with which claims are made."""
REPLICATED = PUBLISHED.with_name("puppets-replicate")
"""Results of the run that tests these claims again."""


def build(run_dir: Path, out_dir: Path | None = None, against: str | None = None) -> Path:
    """Write leaderboard.{md,csv,tex,html}, claims.csv, figures/, frames/, contact_sheet.png, and long tables.

    They go to `out_dir`, by default `run_dir/report`; others are compared with `against`, by default the one that
    leads.

    Returns:
        Path to the page.

    Raises:
        ValueError: If the run cannot be reported (reports.run_folder.RunError).
        OSError: If the report cannot be written.
    """
    from reports.run_folder import load_run

    run = load_run(Path(run_dir))
    out_dir = Path(out_dir) if out_dir is not None else Path(run_dir) / "report"
    with Staging(out_dir, _optional()) as staging:
        _write(run, against, staging, out_dir)
    return out_dir / "leaderboard.html"


def publish(run_dir: Path, publish_dir: Path, against: str | None = None) -> Path:
    """Write the small set to commit: the report without videos, a smaller contact sheet, and run.json; return the page.

    Raises:
        ValueError: If the run cannot be reported, or the set is larger than PUBLISHED_LIMIT_BYTES.
        OSError: If the set cannot be written.
    """
    from reports.run_folder import RunError, load_run

    run_dir, publish_dir = Path(run_dir), Path(publish_dir)
    if publish_dir.resolve() == run_dir.resolve():
        raise RunError(f"{publish_dir}: is the run itself; publish to another folder")
    run = load_run(run_dir)
    with Staging(publish_dir, _optional()) as staging:
        _write(run, against, staging, publish_dir, published=True)
        shutil.copyfile(run_dir / "run.json", staging / "run.json")
        size = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file())
        if size > PUBLISHED_LIMIT_BYTES:
            raise RunError(f"{publish_dir}: the set to publish takes {size / 1e6:.1f} MB, more than 5 MB")
    return publish_dir / "leaderboard.html"


def update_readme(readme: Path) -> Path:
    """Write the published results between the markers of a README.

    Raises:
        ValueError: If the README lacks its markers, or the published results lack a metric.
        OSError: If a file cannot be read or written.
    """
    from reports.readme import results, with_results

    text = with_results(readme.read_text(encoding="utf-8"), results(PUBLISHED, REPLICATED))
    readme.write_text(text, encoding="utf-8")
    return readme


def _write(run: StoredRun, against: str | None, folder: Path, final: Path, published: bool = False) -> None:
    """Write a report to a folder; its page links the run's videos from its final place, unless it is published."""
    from reports.page.document import Beside, render
    from reports.page.frames import Gallery, write_frames
    from reports.pictures.contact_sheet import Sheet, write_contact_sheet
    from reports.pictures.figures import write_figures
    from reports.results import measure
    from reports.tables import formats

    results, sheet, gallery = measure(run, against), Sheet(), Gallery()
    if published:
        sheet, gallery = Sheet(max_cases=PUBLISHED_CASES, colours=256), Gallery(cases=PUBLISHED_FRAMES, quality=75)
    figures = write_figures(results, folder / "figures")
    sheet_cases = write_contact_sheet(results, folder / "contact_sheet.png", sheet)
    frames = write_frames(results, folder, gallery)
    page = render(results, Beside(final, figures, frames, sheet_cases, linked=not published))
    for name, text in (
        ("leaderboard.md", formats.markdown(results, {f"figures/{name}.svg": text for name, text in figures.items()})),
        ("leaderboard.csv", formats.csv(results)),
        ("leaderboard.tex", formats.latex(results)),
        ("leaderboard.html", page),
        *formats.long_tables(results).items(),
        *([(formats.CLAIMS, formats.claims_csv(results.claims))] if results.claims else []),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _optional() -> tuple[str, ...]:
    """Patterns of the files that not every report has."""
    from reports.pictures.figures import FIGURES
    from reports.tables.formats import CASES, CLAIMS, FAULTS

    figures = (f"figures/{name}{end}.svg" for name, *_ in FIGURES for end in ("", "-dark"))
    return (CASES, FAULTS, CLAIMS, "frames/[0-9][0-9][0-9].webp", *figures)


class Staging:
    """A temporary folder next to `final`; on success its files move to `final`, otherwise they are removed.

    Files in `final` that match a pattern of `optional` and that the new files do not replace are removed on success.
    """

    def __init__(self, final: Path, optional: Sequence[str] = ()) -> None:
        self._final, self._optional = final, optional

    def __enter__(self) -> Path:
        # The folder is made first, so that an unwritable place is found before anything is computed.
        self._is_new = not self._final.exists()
        self._final.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".report-", dir=self._final.parent))
        return self._folder

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                former = {path for pattern in self._optional for path in self._final.glob(pattern) if path.is_file()}
                for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
                    place = self._final / path.relative_to(self._folder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, place)
                    former.discard(place)
                for path in former:
                    path.unlink()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            if kind is not None and self._is_new:
                shutil.rmtree(self._final, ignore_errors=True)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(
        prog="python -m reports.build",
        description="Make the report of a run: leaderboard.{md,csv,tex,html}, figures and a contact sheet.",
    )
    p.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory, with run.json and its two tables")
    p.add_argument("--out", type=Path, metavar="DIR", help="where to write the report (default: RUN/report)")
    p.add_argument(
        "--publish", type=Path, metavar="DIR", help="also write the small set to commit there: no videos, below 5 MB"
    )
    p.add_argument("--against", metavar="METHOD", help="compare others with this one (default: the one that leads)")
    p.add_argument(
        "--readme", type=Path, metavar="FILE", help="write the published results between the markers of this file"
    )
    return p


def _build(options: argparse.Namespace) -> None:
    given = any(option is not None for option in (options.out, options.publish, options.against))
    if options.run is None and (options.readme is None or given):
        raise ValueError("RUN is missing: only --readme alone needs none")
    if options.run is not None:
        print(build(options.run, options.out, options.against))
    if options.publish is not None:
        print(publish(options.run, options.publish, options.against))
    if options.readme is not None:
        print(update_readme(options.readme))


main = command(parser, _build)

if __name__ == "__main__":
    sys.exit(main())
