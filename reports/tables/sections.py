"""The tables of a report, as numbers; `reports.tables.formats` writes them as text, the page as HTML."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.analysis.belief import needs_truth
from reports.analysis.claims import ENOUGH_REFERENCES, Claim, family, margin
from reports.analysis.statistics import MIN_SEEDS
from reports.results import Results
from reports.run_folder import TERCILES, StoredRun, score_backends
from reports.tables import paper_numbers as published
from reports.tables.cells import Cell, Interval, Number, Share, Table
from reports.wording import (
    NOTHING,
    Write,
    arrow,
    count,
    gib,
    heading,
    label,
    mib,
    number,
    probability,
    seconds,
    signed,
)


def claims_table(claims: tuple[Claim, ...], run: StoredRun, place: str = "") -> Table:
    """The pairs of methods that are tested, with verdicts; the title ends with `place`."""
    columns = (
        "first", "second", "verdict, first against second", "first − second", "95% interval", "p, corrected",
        "p of equality", "could have been seen", "references", "seeds",
    )  # fmt: skip
    rows = []
    for claim in claims:
        item = claim.comparison
        said = f"{claim.verdict} {item.second}" if claim.better else claim.verdict
        found, reach = item.estimate, Number(claim.detectable, write=number)
        ends = Interval(found.low, found.high, signed)
        tests = (Number(claim.p, write=probability), Number(claim.p_equal, write=probability))
        figures = (Number(found.mean, write=signed), ends, *tests, reach)
        rows.append((item.first, item.second, said, *figures, found.references, item.seeds))
    note = (
        f"These pairs were fixed beforehand (reports/analysis/claims.toml, {len(family())} in all). Two-sided "
        "sign-flip test over references; p is corrected by Holm for all of the pairs. A claim needs p below .05, "
        f"{MIN_SEEDS} seeds, and enough references for p to get there; with fewer than {ENOUGH_REFERENCES} it is "
        f"exploratory. {_equality(run.headline)}Nothing is claimed for a method that lacks videos which the other has. "
        "Could have been seen: the smallest true difference that a paired t-test finds four times in five, uncorrected."
    )
    return Table(f"Claims: {label(run.headline)}{place}", columns, tuple(rows), note)


def _equality(metric: str) -> str:
    """The rule by which two methods are called equal; nothing for a metric without a margin."""
    least = margin(metric)
    if least is None:
        return ""
    return (
        f"Equal within {least:g}: no difference is shown, and the larger p of two one-sided t-tests, corrected by Holm "
        f"too, puts it below this margin with {ENOUGH_REFERENCES} references or more. The margin was set after a "
        "preliminary run with one seed. "
    )


def tercile_tables(results: Results) -> list[Table]:
    """The headline in each tercile of the distance between reference and target, a table for each axis."""
    cells = results.terciles.set_index(["method", "axis", "tercile"])
    made = []
    for axis in results.run.axes:
        rows: list[tuple[Cell, ...]] = []
        for name in results.order + results.bound_order:
            places = [(name, axis, tercile) for tercile in TERCILES]
            rows.append((name, *(mean_cell(cells.loc[place]) if place in cells.index else NOTHING for place in places)))
        note = (
            f"Terciles of how far apart reference and target are in {axis}, by the formula of the suite. The axes are "
            "not varied one at a time, so a difference along one may be due to another. Cases near / middle / far: "
            f"{_sizes(results, axis)}."
        )
        title = f"{label(results.run.headline).capitalize()}, apart in {axis}"
        made.append(Table(title, ("name", *TERCILES), tuple(rows), note))
    return made


def mean_cell(row: Mapping[Any, Any] | pd.Series, write: Write = number) -> Number:
    """A mean with its interval, from the fields of `reports.analysis.statistics.Estimate`."""
    return Number(row["mean"], row["low"], row["high"], write)


def _sizes(results: Results, axis: str) -> str:
    """Numbers of near, middle and far cases, and of cases without a tercile."""
    said = [case["terciles"].get(axis) for case in results.run.info["cases"].values()]
    unknown = said.count(None)
    sizes = " / ".join(str(said.count(tercile)) for tercile in TERCILES)
    if unknown == len(said):
        return "not known"
    return f"{sizes}, not known {unknown}" if unknown else sizes


def cost_table(results: Results) -> Table:
    """The costs of a fit, a transfer and a stored action."""
    rows = []
    for name in results.order:
        if name in results.run.submissions:
            continue
        row = results.costs.loc[name]
        fits = NOTHING if pd.isna(row["fits"]) else int(row["fits"])
        times = [Number(row[column], write=seconds) for column in ("fit_s", "transfer_s")]
        sizes = [Number(row[column], write=mib) for column in ("action_mib", "adapter_mib")]
        rows.append((name, times[0], fits, times[1], Number(row["peak_memory_gib"], write=gib), *sizes))
    columns = (
        "name", "fit (once a reference)", "fits", "transfer (each video)", "peak memory", "stored action",
        "adapter trained beforehand",
    )  # fmt: skip
    note = (
        "Medians, on one machine; of fits over distinct fits, since methods that differ only at transfer share one. "
        "A stored action is learned anew for each reference; an adapter trained beforehand is shared by all of them, "
        "and what it was trained on is the method's extra supervision."
    )
    return Table("Costs", columns, tuple(rows), note)


def belief_table(results: Results) -> Table:
    """The agreement of each metric that needs no truth with the headline."""
    columns = (
        "metric",
        "over videos (Spearman)",
        "95% interval",
        "inside a case",
        "inside a method",
        f"over {count(len(results.order), 'method mean')}",
        "prefers the truth",
        "videos",
    )
    rows = [
        (
            heading(results.run, row["metric"]),
            Number(row["rho"], write=signed),
            Interval(row["low"], row["high"], signed),
            *(Number(row[name], write=signed) for name in ("within_case", "within_method", "over_methods")),
            Share(row["truth_preferred"], row["duels"]),
            row["videos"],
        )
        for row in results.belief.to_dict("records")
    ]
    title = "How far each truth-free metric can be believed"
    if not rows:
        blind = needs_truth(results.run.info["metrics"][results.run.headline]) is False
        why = f"{label(results.run.headline)} reads no right answer either" if blind else "all metrics read the truth"
        return Table(title, columns, (), f"Nothing to compare: {why}.")
    note = (
        f"Rank correlation with {label(results.run.headline)} over the videos of the methods, turned so that + means "
        "agreement; 1 follows the truth, 0 knows nothing of it, below 0 rewards the wrong videos. Prefers the truth: "
        "share of duels on one case that the true video (through the codec) wins against still, copied and "
        "wrong-action ones, ties as half. Metrics without a better side are correlated as they are. The yardstick is "
        "motion: a metric of appearance is not bad for measuring something else, but it cannot stand in for motion."
    )
    return Table(title, columns, tuple(rows), note)


def metrics_table(results: Results) -> Table:
    """A description of each metric, and the backend that measured it."""
    backends = score_backends(results.run)
    truth = {True: "yes", False: "no", None: "not stored"}
    rows = []
    for name in results.run.metrics:
        entry = results.run.info["metrics"][name]
        ends = " to ".join(f"{end:g}" if isinstance(end, int | float) else "∞" for end in entry["bounds"])
        mixed = " (mixed: not comparable)" if len(backends[name]) > 1 else ""
        rows.append(
            (
                label(name),
                arrow(entry["higher_is_better"]) or "no better side",
                "" if entry["unit"] in ("1", "", None) else str(entry["unit"]),
                ends,
                ", ".join(backends[name]) + mixed,
                truth[needs_truth(entry)],
                int(entry["version"]),
                str(entry["summary"]),
            )
        )
    columns = ("metric", "better", "unit", "range", "measured by", "reads the truth", "version", "what it is")
    return Table("Metrics", columns, tuple(rows))


def faults_table(results: Results) -> Table:
    """Every video and score that failed or was skipped, equal ones together; "all" if every video is concerned."""
    run = results.run
    unmade = run.samples["status"] != "ok"
    samples = run.samples[unmade & (run.samples["status"] != "missing")].assign(what="video")
    scores = run.scores[run.scores["status"] != "ok"].rename(columns={"metric": "what"})
    if "error" not in scores:
        scores = scores.assign(error="")
    # A video that was not made has no scores either; one row is enough.
    scores = scores[~scores["key"].isin(run.samples.loc[unmade, "key"])]
    scores = scores.merge(run.samples[["key", "fit_seed"]], on="key")
    columns = ["method", "what", "status", "error", "case_id", "seed", "fit_seed"]
    faults = pd.concat([samples[columns], scores[columns]]).fillna({"error": ""})
    made = (~unmade).sum()
    nowhere = faults["what"].ne("video") & (faults.groupby(columns[1:4])["method"].transform("size") == made)
    faults.loc[nowhere, "method"] = "all"  # one row for a metric that no video has
    rows = []
    for (method, what, status, error), group in faults.groupby(columns[:4], sort=True):
        videos = group[["case_id", "seed", "fit_seed"]].itertuples(index=False)
        cells = [f"{case} ({seed}{f', fit {fit}' * (fit != seed)})" for case, seed, fit in videos]
        listed = ", ".join(cells[:6]) + (f" and {len(cells) - 6} more" if len(cells) > 6 else "")
        reason = re.sub(r"\s+", " ", str(error)).strip() or NOTHING
        rows.append((str(method), label(str(what)), str(status), len(group), reason, listed))
    return Table("Failed and skipped", ("name", "what", "status", "count", "reason", "case (seed)"), tuple(rows))


def card_table(run: StoredRun) -> Table | None:
    """The makers and measurers of each part of a run, and the costs; None for a run without a card."""
    if not run.card:
        return None
    rows: list[tuple[Cell, ...]] = []
    for number_of, part in enumerate(run.card, start=1):
        costs = part["methods"].values()
        made, absent, fits = (sum(cost[field] for cost in costs) for field in ("videos", "absent", "fits"))
        times = (Number(sum(cost[field] for cost in costs), write=seconds) for field in ("fit_s", "transfer_s"))
        elsewhere = sum(cost["videos"] for cost in costs if cost["submitted"])
        said = str(part["sampled_by"]), str(part["scored_by"])
        rows.append((number_of, *said, made, elsewhere, absent, fits, *times, len(part["evaluators"])))
    columns = (
        "part", "made by", "measured by", "videos", "of them submitted", "absent", "fits", "fits took",
        "transfers took", "metrics",
    )  # fmt: skip
    note = (
        "Parts are the runs that were merged, as they were then. Who made and measured is what they say of themselves. "
        "Times are sums on their own machines; those of submitted videos are not known."
    )
    return Table("Who made and measured the videos", columns, tuple(rows), note)


def published_table() -> Table:
    """Table 1 of the paper, for the page's appendix only."""
    rows: list[tuple[Cell, ...]] = []
    for name, values in published.TABLE_1.items():
        votes = published.PREFERENCE_OVER_BASE.get(name)
        share = f"{votes[0]:g} / {votes[1]:g}" if votes else NOTHING
        rows.append((name, *(Number(value, write="{:.4f}".format) for value in values), share, published.PROVENANCE))
    columns = ("method", *published.COLUMNS, "preferred over Base, %: motion / appearance", "provenance")
    note = f"Measured by the paper's authors: {published.SETTING}. Nothing here was measured by this suite."
    return Table("Published, other data, not comparable", columns, tuple(rows), note)
