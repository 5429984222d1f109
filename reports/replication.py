"""Tell which claims hold again on other references: `python -m reports.replication FIRST AGAIN --publish DIR`.

FIRST and AGAIN are folders that `reports.build --publish` wrote, of runs of two suites with other seeds. A claim holds
again if the second run makes it by the same rules: the same pairs, with tests and a correction of its own.
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

_COMPARED = ("method_id", "version", "fit_config", "transfer_config")
_COLUMNS = ("name", "minus", "mean", "low", "high", "p", "p_equal", "verdict")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; parsing loads no table library."""
    what = "Tell which claims of a published run hold again in one of other references and seeds."
    p = OneLineParser(prog="python -m reports.replication", description=what)
    for name, text in (("first", "published run with claims"), ("again", "published run on other references")):
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
    """A heading that counts the claims which hold again, and a table of all pairs, as Markdown.

    Raises:
        ValueError: If a folder holds no claims, or the runs differ in more than cases and seeds (RunError).
    """
    from reports.analysis.outcomes import share_held, side_by_side
    from reports.run_folder import load_info
    from reports.tables.cells import Table
    from reports.tables.formats import markdown_table
    from reports.wording import count, label

    before, after = (load_info(folder / "run.json") for folder in (first, again))
    claims, repeated = _claims_of(first), _claims_of(again)
    _check_alike(before, after, {name for pair in claims.index for name in pair})
    _check_pairs(first, again, set(claims.index), set(repeated.index))
    both = side_by_side(claims, repeated)
    rows = tuple(_cells(pair, row) for pair, row in both.iterrows())
    held, claimed = share_held(both["outcome"])
    columns = ("pair", "verdict", "difference", "difference again", "p again, corrected", "verdict again", "outcome")
    suites = [f"{run['suite']} ({str(run.get('suite_digest'))[:12]}), seeds {run['seeds']}" for run in (before, after)]
    note = (
        f"First: {suites[0]}. Again: {suites[1]}. They share no reference and no seed. Differences are of "
        f"{label(_headline(before)[0])}, with Student's 95% interval over references. p is that of equality where "
        "equality was claimed. Each run is tested and corrected by itself. docs/statistics.md defines the outcomes."
    )
    return markdown_table(Table(f"{held} of {count(claimed, 'claim')} hold again", columns, rows, note))


def _cells(pair: Any, row: "pd.Series[Any]") -> tuple["Cell", ...]:
    from reports.analysis.claims import EQUAL
    from reports.tables.cells import Number
    from reports.wording import probability, signed

    first, second = (Number(row[f"mean{x}"], row[f"low{x}"], row[f"high{x}"], signed) for x in ("", "_again"))
    p = Number(row["p_equal_again" if row["verdict"].startswith(EQUAL) else "p_again"], write=probability)
    return f"{pair[0]} − {pair[1]}", row["verdict"], first, second, p, row["verdict_again"], row["outcome"]


def _claims_of(folder: Path) -> "pd.DataFrame":
    import pandas as pd

    from reports.run_folder import RunError
    from reports.tables.formats import CLAIMS

    try:
        found = pd.read_csv(folder / CLAIMS)
    except FileNotFoundError:
        raise RunError(f"{folder}: has no {CLAIMS}; publish a run whose methods claims name") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / CLAIMS}: cannot be read ({error})") from error
    if missing := [name for name in _COLUMNS if name not in found]:
        raise RunError(f"{folder / CLAIMS}: lacks {', '.join(missing)}")
    return found[list(_COLUMNS)].set_index(["name", "minus"])


def _headline(run: dict[str, Any]) -> tuple[str, Any, Any]:
    """Name, version and backend of the metric that claims are about."""
    from reports.run_folder import RunError

    found = next(((name, m["version"], m["backend"]) for name, m in run["metrics"].items() if m["headline"]), None)
    if found is None:
        raise RunError(f"the run of {run['suite']} lacks its headline, which claims are about")
    return found


def _check_alike(first: dict[str, Any], again: dict[str, Any], methods: set[str]) -> None:
    """Refuse two runs between which more than cases and seeds differs, or which share one of these."""
    from reports.run_folder import RunError

    same = {name: first.get(name) == again.get(name) for name in ("backbone", "truth")}
    same["number of seeds"] = len(first["seeds"]) == len(again["seeds"])
    same["seeds of fits"] = bool(first.get("fit_seeds")) == bool(again.get("fit_seeds"))
    same["headline"] = _headline(first) == _headline(again)
    for name in sorted(methods):
        one, other = (run["methods"].get(name, {}) for run in (first, again))
        same[f"settings of {name}"] = all(one.get(field) == other.get(field) for field in _COMPARED)
    different = [name for name, is_same in same.items() if not is_same]
    if different:
        raise RunError(f"the runs differ in {', '.join(different)}, so the second one repeats no claim of the first")
    references = [{case["digests"].get("reference") for case in run["cases"].values()} for run in (first, again)]
    shared = {"references": references[0] & references[1], "seeds": set(first["seeds"]) & set(again["seeds"])}
    if any(shared.values()):
        said = " and ".join(name for name, both in shared.items() if both)
        raise RunError(f"the runs share {said}, so the second one is no replication of the first")


def _check_pairs(first: Path, again: Path, tested: set[Any], repeated: set[Any]) -> None:
    """Refuse runs with other pairs: a claim that is not tested again would look as if it had not been made."""
    from reports.run_folder import RunError

    for folder, lacking in ((again, tested - repeated), (first, repeated - tested)):
        if lacking:
            raise RunError(f"{folder}: lacks {len(lacking)} of the pairs, such as {' and '.join(sorted(lacking)[0])}")


main = command(parser, _print)

if __name__ == "__main__":
    sys.exit(main())
