"""Say how far a run is, also while it runs: `python -m benchmark.status RUN`. Nothing is written.

Times are of one process: the sum of what fits and transfers took. The time left is what the missing pieces of each
method will take at the mean of its finished ones, shared among the processes of the last session and its shards.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from benchmark.planning.plan import Cell
    from benchmark.store.folder import RunFolder

_NAME_WIDTH = 32
_MEASURED = re.compile(r"^\S+  measured .*, (\d+\.\d+) s$", re.MULTILINE)


@dataclass(frozen=True)
class State:
    """State of one method or bound.

    Attributes:
        done: Number of videos made, or skipped because there can be none.
        unmeasured: Number of videos that lack a metric of this suite, those not made yet included. What other tools
            measured, a run does not.
        fit_s: Time that its fits took; one that methods share counts for the first of them.
        transfer_s: Time that its transfers took.
        left_s: Time that fits and transfers will take; None if none of them was measured yet.
    """

    name: str
    done: int
    failed: int
    left: int
    unmeasured: int
    fit_s: float
    transfer_s: float
    left_s: float | None


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.status", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="run directory")
    return p


def status_page(path: Path) -> str:
    """The status of a run in lines of at most 80 characters.

    Raises:
        UsageError: If there is no run, or run.json cannot be read.
    """
    from benchmark.planning.plan import plan
    from benchmark.store.folder import RunFolder
    from benchmark.store.log import LOG

    folder = RunFolder(path)
    info = folder.described()
    cells = plan(info)
    found = states(folder, info, cells)
    log = path / LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    failed, left = sum(state.failed for state in found), sum(state.left for state in found)
    lines = [
        f"suite {info['suite']}, backbone {info['backbone']['name']}",
        f"{len(cells)} videos: {sum(state.done for state in found)} done, {failed} failed, {left} left",
        "",
        *_table(found),
        "",
        *_at_work(path, bool(left)),
        *_times(found, info, path, text),
    ]
    damaged = text.count("  damaged ")
    lines += [f"damaged files so far: {damaged}, made again"] if damaged else []
    lines += [f"last: {text.splitlines()[-1]}"] if text else []
    return "\n".join(_cut(line, 80) for line in lines)


@dataclass
class _Sums:
    """Sums over the stored rows of one method, which are read one after the other.

    Attributes:
        counts: Number of videos by status; those not made yet are "missing".
        measured: Number of videos with all metrics.
        costs: Number of videos whose cost was measured.
        fit_s: Time of the fits of these videos; a shared fit counts for each of them.
        transfer_s: Time of their transfers.
        fits: Time of each of these fits by key.
        fitted: Keys of the fits of all videos that are made.
        unmade: Keys of the fits of videos not made yet.
    """

    counts: Counter[str] = field(default_factory=Counter)
    measured: int = 0
    costs: int = 0
    fit_s: float = 0.0
    transfer_s: float = 0.0
    fits: dict[str | None, float] = field(default_factory=dict)
    fitted: set[str | None] = field(default_factory=set)
    unmade: set[str | None] = field(default_factory=set)


def _sums(folder: "RunFolder", metrics: Mapping[str, Any], cells: "Iterable[Cell]") -> _Sums:
    from benchmark.store.gather import sample_row, score_rows

    sums = _Sums()
    for cell in cells:
        row = sample_row(folder, cell)
        sums.counts[row.status if row else "missing"] += 1
        if row is None:
            sums.unmade.add(cell.fit_key)
            continue
        sums.measured += len(score_rows(folder, metrics, row)) == len(metrics)
        if row.status != "ok":
            continue
        sums.fitted.add(row.fit_key)
        if row.transfer_s is not None:
            sums.costs += 1
            sums.fit_s += row.fit_s or 0.0
            sums.transfer_s += row.transfer_s
            sums.fits[row.fit_key] = row.fit_s or 0.0
    return sums


def states(folder: "RunFolder", info: Mapping[str, Any], cells: "Sequence[Cell]") -> list[State]:
    """State of every method and bound of a run, in run.json's order."""
    from metrics import METRICS

    methods, own = info["methods"], {name: entry for name, entry in info["metrics"].items() if name in METRICS}
    sums = {name: _sums(folder, own, (cell for cell in cells if cell.method == name)) for name in methods}
    fitted = set[str | None]([None]).union(*(one.fitted for one in sums.values()))
    counted: set[str | None] = set()
    found = []
    for name, one in sums.items():
        failed, left = one.counts["failed"], one.counts["missing"]
        left_s: float | None = None
        if one.costs:
            left_s = left * one.transfer_s / one.costs + len(one.unmade - fitted) * one.fit_s / one.costs
        elif not left or methods[name]["kind"] != "method":  # whose cost nobody measures
            left_s = 0.0
        found.append(
            State(
                name=name,
                done=one.counts.total() - failed - left,
                failed=failed,
                left=left,
                unmeasured=one.counts.total() - one.measured,
                fit_s=sum(seconds for key, seconds in one.fits.items() if key not in counted),
                transfer_s=one.transfer_s,
                left_s=left_s,
            )
        )
        counted.update(one.fits)
    return found


def _table(found: Sequence[State]) -> list[str]:
    from flexiact.terminal.progress import in_words

    width = min(_NAME_WIDTH, max(6, *(len(state.name) for state in found)))
    lines = [f"{'method':{width}} {'done':>6} {'failed':>6} {'left':>6} {'to measure':>10} {'time':>12}"]
    for state in found:
        spent = in_words(state.fit_s + state.transfer_s) if state.fit_s + state.transfer_s else "-"
        name = _cut(state.name, width)
        counts = f"{state.done:6} {state.failed:6} {state.left:6} {state.unmeasured:10}"
        lines.append(f"{name:{width}} {counts} {spent:>12}")
    return lines


def _at_work(path: Path, unfinished: bool) -> list[str]:
    from benchmark.store.lock import holders

    lines = []
    for name, holder in holders(path).items():
        shard = name.removeprefix(".shard-").replace("-of-", "/") if name.startswith(".shard-") else ""
        said = "at work" if holder.lives else "ended without a word"
        lines.append(f"{said}: {holder}{f', shard {shard}' if shard else ''}")
    return lines or [f"nobody is at work here{'; the same command goes on' if unfinished else ''}"]


def _times(found: Sequence[State], info: Mapping[str, Any], path: Path, log: str) -> list[str]:
    """Cost so far and time left."""
    from benchmark.store.lock import holders
    from benchmark.store.schema.run_json import sessions_of
    from flexiact.terminal.progress import in_words

    fit_s, transfer_s = sum(state.fit_s for state in found), sum(state.transfer_s for state in found)
    seconds = [float(text) for text in _MEASURED.findall(log)]
    measuring = sum(seconds)
    spent = f"cost so far: {in_words(fit_s + transfer_s + measuring)} of one process"
    parts = f"fits {in_words(fit_s)}, transfers {in_words(transfer_s)}, measuring {in_words(measuring)}"
    waiting = sum(state.unmeasured for state in found)
    left_s = sum(state.left_s or 0.0 for state in found)
    left_s += waiting * measuring / len(seconds) if seconds else 0.0
    if not waiting and not any(state.left for state in found):
        return [spent, f"  ({parts})", "nothing is left"]
    session = sessions_of(info)[-1]
    shards = sum(holder.lives for holder in holders(path).values())
    processes = int(session["provenance"].get("workers", 1)) * max(1, shards)
    known = all(state.left_s is not None for state in found) and (seconds or not waiting)
    about = "about" if known else "more than"
    return [spent, f"  ({parts})", f"time left: {about} {in_words(left_s / processes)} for {processes} process(es)"]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


main = command(parser, lambda options: print(status_page(options.run)))

if __name__ == "__main__":
    sys.exit(main())
