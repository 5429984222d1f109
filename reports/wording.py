"""Words and number formats that the tables, the figures and the page share."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reports.run_folder import StoredRun

Write = Callable[[float], str]
"""A number format."""

NOTHING = "–"
"""The text of a missing number, so that nobody reads it as 0."""

NO_MODEL = "none"
"""Name of the backbone of a run in which no model has a part: all of its videos were submitted."""

SHOWN_DIGITS = 8
"""Number of digits of a suite's digest in a heading: enough to tell two editions apart; run.json has all digits."""


ONE_LINE = 32
"""Largest number of characters of a name that figures write in one line."""


def listed(names: Sequence[str]) -> str:
    """Names with commas, and "and" before the last."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def broken(name: str) -> str:
    """A method's name for figures: that of a long variant has a line for each setting."""
    return re.sub(r"(?<=[\[,])", "\n", name) if len(name) > ONE_LINE else name


def row_height(labels: Iterable[str], least: float) -> float:
    """Inches that a row of a figure needs for its label, `least` or more."""
    return max([least, *(0.17 * (1 + text.count("\n")) + 0.06 for text in labels)])


def number(value: float) -> str:
    """Three decimals below 10, one above; a dash when there is no number."""
    return signed(value).removeprefix("+")


def signed(value: float) -> str:
    """A number with its sign, for differences and correlations."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:+.3f}" if abs(value) < 10 else f"{value:+.1f}"
    if float(text) == 0:
        text = "+" + text[1:]  # no minus zero
    return text.replace("-", "−")


def probability(value: float) -> str:
    """A p-value with three decimals; none is 0."""
    return "<0.001" if value < 0.0005 else number(value)


def interval(low: float, high: float, write: Write = number) -> str:
    """`[low, high]`; empty if there is no interval."""
    return f"[{write(low)}, {write(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def seconds(value: float) -> str:
    """A duration in seconds or minutes."""
    if not math.isfinite(value):
        return NOTHING
    if 0 < value < 10:
        return f"{value:.2f} s"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def duration(value_s: float) -> str:
    """A duration as in `seconds`, or in milliseconds with three digits if it is below a second."""
    return f"{1000 * value_s:.3g} ms" if 0 < value_s < 0.9995 else seconds(value_s)


def mib(value: float) -> str:
    """A size in MiB, two decimals below 100."""
    return _amount(value, "MiB")


def gib(value: float) -> str:
    """A size in GiB, two decimals below 100."""
    return _amount(value, "GiB")


def _amount(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.2f} {unit}" if 0 < value < 100 else f"{value:.0f} {unit}"


def percent(value: float) -> str:
    """A share in whole per cent."""
    return f"{100 * value:.0f}%" if math.isfinite(value) else NOTHING


def count(number_of: int, noun: str, plural: str | None = None) -> str:
    """`1 case`, `30 cases`."""
    return f"{number_of} {noun if number_of == 1 else plural or noun + 's'}"


def parameters(number_of: float) -> str:
    """`2.5 M parameters`."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number_of >= size:
            return f"{number_of / size:.3g} {letter} parameters"
    return count(int(number_of), "parameter")


def label(name: str) -> str:
    """The stored name of a metric or axis as words; `_upstream` marks the formula of the paper's released code."""
    words = name.removesuffix("_upstream").replace("_", " ")
    return f"{words} (released formula)" if name.endswith("_upstream") else words


def is_variant(name: str, others: Iterable[str]) -> bool:
    """True if the name goes on from another one with `-` or `+`, as those of variants of a method do."""
    return any(name.startswith((f"{other}-", f"{other}+")) for other in others)


def arrow(higher_is_better: bool | None) -> str:
    """The better direction; empty if there is none."""
    return {True: "↑", False: "↓", None: ""}[higher_is_better]


def heading(run: StoredRun, metric: str) -> str:
    """The column heading of a metric."""
    return f"{label(metric)} {arrow(run.info['metrics'][metric]['higher_is_better'])}".strip()


def backbone_size(backbone: dict[str, Any]) -> str:
    """`2.5 M parameters, 9 frames of 64 x 64 pixels at 8 fps`; without the first if no model is part of the run."""
    if backbone["name"] == NO_MODEL:
        return video_size(backbone)
    return f"{parameters(backbone['num_parameters'])}, {video_size(backbone)}"


def video_size(backbone: dict[str, Any]) -> str:
    """`9 frames of 64 x 64 pixels at 8 fps`."""
    size = f"{backbone['num_frames']} frames of {backbone['width']} × {backbone['height']} pixels"
    return f"{size} at {backbone['fps']:g} fps"


def title(run: StoredRun) -> str:
    """A title with the suite and the backbone's size, or the videos' size, without which no number is valid."""
    backbone = run.info["backbone"]
    if made_elsewhere(run):
        return f"{subject(run)} as {video_size(backbone)}, suite {suite_name(run)}"
    return f"{subject(run)} ({backbone_size(backbone)}), suite {suite_name(run)}"


def subject(run: StoredRun) -> str:
    """`Action transfer on puppets`, or `Submitted videos` if all methods were submitted."""
    return "Submitted videos" if made_elsewhere(run) else f"Action transfer on {run.info['backbone']['name']}"


def made_elsewhere(run: StoredRun) -> bool:
    """True if the videos of all methods were made elsewhere."""
    return bool(run.methods) and run.methods == run.submissions


def suite_name(run: StoredRun) -> str:
    """`puppets version 2 (1a2b3c4d)`; only the name for a folder of material, which has no version."""
    version, digest = run.info.get("suite_version"), run.info.get("suite_digest")
    return run.info["suite"] if not digest else f"{run.info['suite']} version {version} ({digest[:SHOWN_DIGITS]})"


def scope(run: StoredRun) -> str:
    """A sentence on the limits of the numbers."""
    footage = "real footage" if run.truth_known else "other footage"
    if made_elsewhere(run):
        return (
            f"All numbers are of the submitted videos as {video_size(run.info['backbone'])}; "
            f"they say nothing about other resolutions or {footage}."
        )
    return (
        f"All numbers {'but those of submitted videos ' * bool(run.submissions)}are of the backbone "
        f"{run.info['backbone']['name']} as described here; "
        f"they say nothing about larger backbones, other resolutions or {footage}."
    )


def measured(run: StoredRun, planned: int, made: int) -> str:
    """One sentence on the amount of measurements."""
    cases = run.info["cases"].values()
    references = len({case["reference_id"] for case in cases})
    seeds = count(len(run.seeds), "seed") + f" and {count(len(run.fit_seeds), 'fit seed')}" * bool(run.fit_seeds)
    return (
        f"{count(len(run.methods), 'method')} and {count(len(run.bounds), 'bound')} on "
        f"{count(len(cases), 'case')} from {count(references, 'reference video')}, {seeds}: "
        f"{made} of {count(planned, 'planned video')} made."
    )
