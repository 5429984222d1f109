"""Tell which claims hold again on other references: `python -m reports.replication FIRST AGAIN --publish DIR`.

Both are folders that `reports.build --publish` wrote, of runs of two suites. A claim holds again if the second run
makes it by the same rules: the same pairs, its own sign-flip tests over its own references, its own correction.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.media.files import make_folder, replacing
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:  # so that `--help` is fast
    import pandas as pd

    from reports.tables.cells import Cell

AGAIN, CONTRADICTED, TOWARDS, NOT_SHOWN = "holds again", "contradicted", "same sign, not shown", "not shown"
NEW, OPEN = "new", "open in both"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    p = OneLineParser(prog="python -m reports.replication", description=(__doc__ or "").split("\n\n")[1])
    for name, text in (
        ("first", "published run that claims come from"),
        ("again", "published run on other references"),
    ):
        p.add_argument(name, type=Path, metavar=name.upper(), help=text)
    p.add_argument("--publish", type=Path, metavar="DIR", help="write the page there, as replication.md, too")
    return p


def _print(options: argparse.Namespace) -> None:
    page = replication_page(options.first, options.again)
    print(page)
    if options.publish:
        with replacing(make_folder("publish", options.publish) / "replication.md") as partial:
            partial.write_text(f"{page}\n", encoding="utf-8")


def replication_page(first: Path, again: Path) -> str:
    """A sentence on the claims of the first run that hold again, and a table of all pairs, as Markdown.

    Raises:
        ValueError: If a folder holds no claims, or the runs differ in more than their cases (RunError).
    """
    from reports.run_folder import load_info
    from reports.tables.cells import Table
    from reports.tables.formats import markdown_table
    from reports.wording import count, label

    before, after = (load_info(folder / "run.json") for folder in (first, again))
    both = _claims_of(first).merge(_claims_of(again), on=["name", "minus"], suffixes=("", "_again"))
    _check_alike(before, after, {name for pair in both.index for name in pair})
    rows = tuple(_cells(pair, row) for pair, row in both.iterrows())
    found = [outcome(row) for _, row in both.iterrows()]
    claimed = sum(said not in (NEW, OPEN) for said in found)
    columns = ("pair", "claimed", "difference", "difference again", "p again, corrected", "claimed again", "outcome")
    note = (
        f"First: {before['suite']}; again: {after['suite']}, which shares no reference with it. Differences are of "
        f"{label(_headline(before)[0])}, with Student's 95% interval over references. Each run is tested and "
        "corrected by itself (docs/statistics.md)."
    )
    title = f"{found.count(AGAIN)} of {count(claimed, 'claim')} hold again"
    return markdown_table(Table(title, columns, rows, note))


def _cells(pair: Any, row: "pd.Series[Any]") -> tuple["Cell", ...]:
    from reports.tables.cells import Number
    from reports.wording import probability, signed

    first, second = (Number(row[f"mean{x}"], row[f"low{x}"], row[f"high{x}"], signed) for x in ("", "_again"))
    p = Number(row["p_again"], write=probability)
    name = f"{pair[0]} − {pair[1]}"
    return name, _claimed(row["verdict"]), first, second, p, _claimed(row["verdict_again"]), outcome(row)


def outcome(row: "pd.Series[Any]") -> str:
    """Outcome of a pair, from its verdicts and means in both runs."""
    before, after = _claimed(row["verdict"]), _claimed(row["verdict_again"])
    if before == "–":
        return OPEN if after == "–" else NEW
    if after != "–":
        return AGAIN if after == before else CONTRADICTED
    if before.startswith("equal"):
        return NOT_SHOWN
    return TOWARDS if row["mean"] * row["mean_again"] > 0 else NOT_SHOWN


def _claimed(verdict: str) -> str:
    """The verdict if it is a claim, otherwise a dash."""
    return verdict if verdict.startswith(("beats", "is beaten by", "equal")) else "–"


def _claims_of(folder: Path) -> "pd.DataFrame":
    import pandas as pd

    from reports.run_folder import RunError
    from reports.tables.formats import CLAIMS

    try:
        return pd.read_csv(folder / CLAIMS).set_index(["name", "minus"])
    except FileNotFoundError:
        raise RunError(f"{folder}: has no {CLAIMS}; publish a run whose methods claims name") from None
    except (ValueError, KeyError) as error:
        raise RunError(f"{folder / CLAIMS}: cannot be read ({error})") from error


def _headline(run: dict[str, Any]) -> tuple[str, int, str]:
    """Name, version and backend of the metric that claims are about."""
    return next((name, m["version"], m["backend"]) for name, m in run["metrics"].items() if m["headline"])


def _check_alike(first: dict[str, Any], again: dict[str, Any], methods: set[str]) -> None:
    """Refuse two runs between which more than the cases differs, or which share a reference."""
    from reports.run_folder import RunError

    same = {name: first.get(name) == again.get(name) for name in ("backbone", "seeds", "fit_seeds")}
    same["headline"] = _headline(first) == _headline(again)
    different = [name for name, is_same in same.items() if not is_same]
    if different:
        raise RunError(f"the runs differ in {', '.join(different)}, so the second one repeats no claim of the first")
    changed = [name for name in sorted(methods) if first["methods"][name] != again["methods"][name]]
    if changed:
        raise RunError(f"the runs differ in the settings of {', '.join(changed)}")
    references = [{case["digests"]["reference"] for case in run["cases"].values()} for run in (first, again)]
    if references[0] & references[1]:
        raise RunError("the runs share references, so the second one is no replication of the first")


main = command(parser, _print)

if __name__ == "__main__":
    sys.exit(main())
