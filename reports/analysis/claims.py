"""Claims that one method beats another, by rules that are fixed before there are results.

`claims.toml` lists the tested pairs. Each pair gets a sign-flip test over references on the headline metric. Where that
shows no difference, a second test asks whether the two are equal up to the file's margin for the metric. Holm's
correction counts every pair of the file, for each kind of test, even if the run lacks one of its methods. The
difference of any other pair is exploratory: it has an interval but no verdict.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from reports.analysis.inference import ALPHA, detectable, equivalence_p, holm, sign_flip_p
from reports.analysis.statistics import MIN_SEEDS, Comparison, compare
from reports.wording import count, listed

FAMILY = Path(__file__).with_name("claims.toml")
MIN_REFERENCES = 6
"""Smallest number of references for a claim; five references allow no p-value below .05."""
ENOUGH_REFERENCES = 12
"""Smallest number of references with which a claim is not exploratory."""


BEATS, BEATEN, EQUAL, NO_DIFFERENCE = "beats", "is beaten by", "equal", "no difference shown"
"""Beginnings of verdicts; others give the reason why nothing is claimed."""


def is_claim(verdict: str) -> bool:
    """True if a verdict claims something."""
    return verdict in (BEATS, BEATEN) or verdict.startswith(EQUAL)


@dataclass(frozen=True, eq=False)
class Claim:
    """A tested pair.

    Attributes:
        comparison: Paired difference on the headline metric.
        p: p-value of the sign-flip test over references, with Holm's correction for all pairs of the family.
        p_equal: p-value of `equivalence_p` with the same correction; NaN for a metric without a margin.
        detectable: Smallest true difference that a paired t-test over as many references finds four times in five,
            without the correction; NaN with fewer than `MIN_REFERENCES`.
        verdict: "beats", "is beaten by" or "equal within" the margin for a claim, otherwise the reason why there is
            none.
    """

    comparison: Comparison
    p: float
    p_equal: float
    detectable: float
    verdict: str

    @property
    def words(self) -> tuple[str, str, str]:
        """First method, second method and verdict."""
        return self.comparison.first, self.comparison.second, self.verdict

    @property
    def better(self) -> tuple[str, str] | None:
        """The better method and the other one; None if neither is shown to be better."""
        return _better(*self.words)

    @property
    def is_equal(self) -> bool:
        """True if the two are claimed to be equal within the margin."""
        return self.verdict.startswith(EQUAL)


def _better(first: str, second: str, verdict: str) -> tuple[str, str] | None:
    """The better method and the other one; None if neither is shown to be better."""
    return (first, second) if verdict == BEATS else (second, first) if verdict == BEATEN else None


def told(verdicts: Iterable[tuple[str, str, str]]) -> list[str]:
    """The claims in words; methods that beat the same ones come together.

    Of pairs without a claim nothing is said; see `Claim.words`.
    """
    verdicts = list(verdicts)
    beaten: dict[str, list[str]] = {}
    for better, other in filter(None, (_better(*words) for words in verdicts)):
        beaten.setdefault(better, []).append(other)
    alike: dict[tuple[str, ...], list[str]] = {}
    for first, others in beaten.items():
        alike.setdefault(tuple(others), []).append(first)
    said = [f"{listed(names)} beat{'s' * (len(names) == 1)} {listed(others)}" for others, names in alike.items()]
    equal = [(first, second, verdict) for first, second, verdict in verdicts if verdict.startswith(EQUAL)]
    if equal:
        said.append(f"{equal[0][2]} are {', '.join(f'{first} and {second}' for first, second, _ in equal)}")
    return said


def family(path: Path = FAMILY) -> tuple[tuple[str, str], ...]:
    """The pairs (first, second) that are tested.

    Raises:
        ValueError: If a pair does not name two methods, or is listed twice.
    """
    pairs = tuple(tuple(pair) for pair in tomllib.loads(path.read_text(encoding="utf-8"))["pairs"])
    if any(len(set(pair)) != 2 for pair in pairs) or len({frozenset(pair) for pair in pairs}) < len(pairs):
        raise ValueError(f"{path.name}: pairs: each one has to name two methods, and no two of them twice")
    return pairs


def margin(metric: str, path: Path = FAMILY) -> float | None:
    """Largest difference of a metric that counts as none; None if the file has none for it.

    Raises:
        ValueError: If it is not above 0.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8"))["margins"].get(metric)
    if found is not None and not found > 0:
        raise ValueError(f"{path.name}: margins.{metric}: expected a number above 0, got {found}")
    return found


def smallest_p(references: int) -> float:
    """The smallest corrected p-value of the family's sign-flip tests, reached if all differences have one sign."""
    return min(1.0, len(family()) * 2 / 2**references)


def claims(
    rows: pd.DataFrame, metric: str, higher_is_better: bool | None, pairs: tuple[tuple[str, str], ...]
) -> tuple[Claim, ...]:
    """Test those pairs of a family for which the rows of `tidy` have both methods.

    Nothing is claimed of a metric without a better direction.
    """
    present = set(rows["method"])
    made = [compare(rows, metric, *pair) if present.issuperset(pair) else None for pair in pairs]
    differ = holm([sign_flip_p(item.by_reference) if item else float("nan") for item in made])
    least = margin(metric)
    equal = holm([equivalence_p(item.by_reference, least) if item and least else float("nan") for item in made])
    found = []
    for item, p, p_equal in zip(made, differ, equal, strict=True):
        if item is not None:
            enough = len(item.by_reference) >= MIN_REFERENCES
            spread = float(item.by_reference.std(ddof=1)) if enough else float("nan")
            reachable = detectable(spread, len(item.by_reference))
            said = _verdict(rows, item, p, p_equal, higher_is_better)
            found.append(Claim(item, p, p_equal, reachable, said))
    return tuple(found)


def _verdict(rows: pd.DataFrame, item: Comparison, p: float, p_equal: float, higher_is_better: bool | None) -> str:
    if not item.estimate.cases:
        return "not compared: no video in common"
    if item.estimate.references < MIN_REFERENCES:
        return f"not claimed: {count(item.estimate.references, 'reference')}"
    mine = rows[(rows["metric"] == item.metric) & rows["method"].isin((item.first, item.second))]
    if (mine["status"] == "missing").any():
        return "not claimed: the run is incomplete"
    if item.seeds < MIN_SEEDS:
        return f"not claimed: {count(item.seeds, 'seed')}"
    if higher_is_better is None:
        return "not claimed: the metric has no better side"
    if not p < ALPHA:
        return _no_difference(mine, item, p_equal)
    wins = (item.estimate.mean > 0) == higher_is_better
    winner, loser = (item.first, item.second) if wins else (item.second, item.first)
    lost = _only_first_failed(mine, winner, loser)
    if lost:
        return f"not claimed: {winner} lacks {count(lost, 'video')} that {loser} has"
    return "beats" if wins else "is beaten by"


def _no_difference(mine: pd.DataFrame, item: Comparison, p_equal: float) -> str:
    """The verdict on a pair without a shown difference.

    Equality is of methods that have the same videos. The t-test behind it is not exact for a few skewed differences.
    """
    either_way = ((item.first, item.second), (item.second, item.first))
    complete = not any(_only_first_failed(mine, *names) for names in either_way)
    if complete and p_equal < ALPHA and item.estimate.references >= ENOUGH_REFERENCES:
        return f"equal within {margin(item.metric):g}"
    return NO_DIFFERENCE


def _only_first_failed(mine: pd.DataFrame, first: str, second: str) -> int:
    """Number of videos for which the second method has a value but the first has none, from the rows of both."""
    # The share of a video's fits that gave a value.
    known = mine.assign(known=mine["value"].notna().astype(float)).pivot_table(
        index=["case_id", "seed"], columns="method", values="known", fill_value=0.0
    )
    return int((known[second] > known[first]).sum())
