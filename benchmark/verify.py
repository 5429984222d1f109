"""Check all digests of a run, and run a sample of its cells again: `python -m benchmark.verify RUN [--cells N]`.

Nothing in the run directory is changed, unless --remove removes what is damaged, so that the run's command makes it
again. Exit codes: 0 all is as it was; 1 a file is damaged, or a cell gave other frames; 2 it could not be checked.
"""

import argparse
import json
import random
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.options import networks_of, open_suite
from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.workers.load import set_threads
from flexiact.terminal.cli import OneLineParser, command

if TYPE_CHECKING:
    from benchmark.planning.plan import Cell
    from benchmark.stages.execute import Executor
    from benchmark.store.audit import Checked
    from benchmark.store.schema.rows import SampleRow
    from benchmark.suites.case import Case
    from flexiact.task import Video

_COMMANDS = {"benchmark.run": "benchmark.run", "benchmark.ablate": "benchmark.ablate.__main__"}  # and their modules
_LISTED = 20
_WORDS = {"summary", "extra_supervision"}  # change no number
_OF_A_CASE = ("caption", "prompt", "digests", "wrong_action")  # on which its videos depend


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.verify", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("run", type=Path, metavar="RUN", help="run directory")
    p.add_argument("--cells", type=int, default=0, metavar="N", help="number of cells to run again (%(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of their choice (%(default)s)")
    p.add_argument("--remove", action="store_true", help="remove damaged files, so that they are made again")
    return p


def _verify(options: argparse.Namespace) -> int:
    from benchmark.store.schema.run_json import sessions_of

    if options.cells < 0:
        raise UsageError(f"cells: expected 0 or more, got {options.cells}")
    folder = RunFolder(options.run)
    info = folder.described()
    faults = _files(folder, info)
    for fault in faults if options.remove else ():
        fault.path.unlink(missing_ok=True)
    if faults:
        commands = dict.fromkeys(session["command"] for session in sessions_of(info))
        print(f"{'removed; ' if options.remove else ''}this makes them again: {'; '.join(commands)}")
    found = _cells(folder, info, options.cells, options.seed) if options.cells else []
    return int(bool(faults) or not all(item.most == 0 for item in found))


def _files(folder: RunFolder, info: dict[str, Any]) -> "list[Checked]":
    """Check all files and print the result; return the damaged ones."""
    counts, faults = Counter[str](), []
    for item in _checked(folder, info):
        counts[item.kind] += 1
        faults += [item] if item.fault else []
    print(f"checked: {', '.join(f'{count} {kind}' for kind, count in counts.items())}")
    for fault in faults[:_LISTED]:
        print(f"damaged: {folder.relative(fault.path)}: {fault.fault}")
    if len(faults) > _LISTED:
        print(f"damaged: {len(faults) - _LISTED} more")
    print(f"damaged files: {len(faults)}")
    return faults


def _checked(folder: RunFolder, info: dict[str, Any]) -> "Iterator[Checked]":
    from benchmark.store.audit import audit, audit_tables
    from benchmark.store.lock import holders

    yield from audit(folder)
    at_work = [str(holder) for holder in holders(folder.path).values() if holder.lives]
    if at_work:
        print(f"tables are not checked: {at_work[0]} is at work")
    else:
        yield from audit_tables(folder, info)


@dataclass(frozen=True)
class Difference:
    """Distance of a second video from the stored one, over all channels of all pixels, 0..255.

    Attributes:
        most: Largest absolute difference; None if there is no second video, or of another size.
        share: Share of values that differ, 0..1.
        error: One line saying why there is no second video.
    """

    most: int | None
    mean: float = 0.0
    share: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        if self.most is None:
            return self.error
        if self.most == 0:
            return "equal bit by bit"
        return f"differs by at most {self.most} of 255 (mean {self.mean:.3g}, {self.share:.1%} of values)"


def difference(stored: "Video", again: "Video") -> Difference:
    """Compare two videos."""
    import numpy as np

    if stored.frames.shape != again.frames.shape:
        return Difference(None, error=f"has shape {again.frames.shape}, not {stored.frames.shape}")
    apart = np.abs(stored.frames.astype(np.int16) - again.frames)
    return Difference(int(apart.max()), float(apart.mean()), float((apart > 0).mean()))


def _cells(folder: RunFolder, info: dict[str, Any], count: int, seed: int) -> list[Difference]:
    """Run a sample of cells again in a temporary folder, fits included, and print how far each is from its video."""
    from benchmark.planning.plan import plan
    from benchmark.store.gather import sample_rows

    cells = plan(info)
    ok = {row.key for row in sample_rows(folder, cells) if row.status == "ok"}
    made = [cell for cell in cells if cell.key in ok and cell.kind != "submission"]  # which nobody here can make
    if not made:
        raise UsageError("cells: the run has no video that could be made again, only submitted or failed ones")
    chosen = {cell.key for cell in random.Random(seed).sample(made, min(count, len(made)))}
    chosen_cells = [cell for cell in made if cell.key in chosen]  # in the plan's order: cells of a fit are neighbours
    with tempfile.TemporaryDirectory() as place:
        scratch = RunFolder(Path(place))
        with scratch.opened():
            executor = _executor(scratch, info, {cell.method for cell in chosen_cells}, chosen_cells)
            rows = sample_rows(folder, chosen_cells)
            return compare(folder, executor, scratch, zip(chosen_cells, rows, strict=True))


def compare(
    folder: RunFolder, executor: "Executor", scratch: RunFolder, pairs: "Iterable[tuple[Cell, SampleRow]]"
) -> list[Difference]:
    """Run cells again by the executor of a scratch folder; print how far each video is from that of its stored row."""
    from benchmark.planning.plan import said_seed
    from benchmark.store.videos import DamagedVideo, read_stored

    found = []
    for cell, row in pairs:
        again = executor.execute(cell)
        try:
            if again.video is None or row.video is None:
                item = Difference(None, error=f"failed: {again.error}")
            else:
                stored = read_stored(folder.path / row.video, row)
                item = difference(stored, read_stored(scratch.path / again.video, again))
        except DamagedVideo as error:
            item = Difference(None, error=str(error))
        found.append(item)
        print(f"{cell.method} on {cell.case_id}, {said_seed(cell.seed, cell.fit_seed)}: {item}", flush=True)
    same = sum(item.most == 0 for item in found)
    print(f"run again: {len(found)}, equal bit by bit: {same}")
    return found


def _executor(folder: RunFolder, info: dict[str, Any], names: set[str], cells: "Sequence[Cell]") -> "Executor":
    """Executor on the run's networks, methods and cases; refuses code or material that is not the run's.

    Raises:
        UsageError: If the backbone, a method, a bound or a case is not what the run was made with.
    """
    from benchmark.planning.methods import TRUE_KEYPOINTS
    from benchmark.planning.variants import build_methods, entry_of
    from benchmark.stages.describe import describe_backbone, describe_bounds, describe_method
    from benchmark.stages.execute import Executor

    args = _options(info["command"])
    args.suite = args.suite or info["suite"]
    suite = open_suite(args)
    cases = {case.case_id: case for case in suite.chosen(sorted({cell.case_id for cell in cells}))}
    _same_cases(info["cases"], cases, {cell.case_id for cell in cells})
    set_threads(args.threads or 1)
    backbone, _ = networks_of(args, suite, all(case.truth_known for case in cases.values())).load(args.device)
    _same("backbone", info["backbone"], describe_backbone(backbone))
    wanted = [name for name in info["methods"] if name in names and info["methods"][name]["kind"] == "method"]
    methods = build_methods(wanted, backbone)
    for name, method in methods.items():
        _same(f"method {name}", info["methods"][name], describe_method(name, method, backbone))
    bounds = describe_bounds(truth_known=True)
    for name in sorted(names - set(methods)):
        _same(f"bound {name}", info["methods"][name], bounds.get(name, {}))
    told = [name for name in methods if TRUE_KEYPOINTS in entry_of(name).needs]
    return Executor(folder, backbone, methods, cases, told)


def _same_cases(stored: Mapping[str, Any], here: "Mapping[str, Case]", names: set[str]) -> None:
    """Refuse cases that have gone, whose material has changed, or whose texts or digests are not those of the run."""
    for name in sorted(names):
        if name in here:
            here[name].check()
        said = {field: stored[name][field] for field in _OF_A_CASE if field in stored[name]}
        _same(f"case {name}", said, here[name].describe() if name in here else {})


def _same(what: str, stored: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    here = json.loads(json.dumps(here))  # tuples become lists, as in run.json
    for field, value in stored.items():
        if field not in _WORDS and here.get(field) != value:
            raise UsageError(f"{what}: the run was made with {field} {value!r}, here it is {here.get(field)!r}")


def _options(said: str) -> argparse.Namespace:
    """The options of the run's first command."""
    words = shlex.split(said)
    if words[:2] != ["python", "-m"] or len(words) < 3 or words[2] not in _COMMANDS:
        raise UsageError(f"cells: only runs of {' and '.join(_COMMANDS)} can be run again, not '{said[:60]}'")
    parsed: argparse.Namespace = import_module(_COMMANDS[words[2]]).parser().parse_args(words[3:])
    return parsed


main = command(parser, _verify)

if __name__ == "__main__":
    sys.exit(main())
