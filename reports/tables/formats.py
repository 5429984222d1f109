"""Write tables as Markdown, LaTeX and CSV."""

import csv as comma_separated
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from reports.analysis.claims import Claim
from reports.results import Results, cautions, checks
from reports.run_folder import score_backends
from reports.tables.boards import bounds_table, cases_table, methods_table, metric_tables
from reports.tables.cells import Cell, Interval, Number, Share, Table, shortened
from reports.tables.sections import (
    belief_table,
    card_table,
    claims_table,
    cost_table,
    faults_table,
    metrics_table,
    tercile_tables,
)
from reports.wording import NOTHING, interval, made_elsewhere, measured, scope, title

CASES, FAULTS = "cases.csv", "faults.csv"
"""Files of the tables that are too long for the page."""
CLAIMS = "claims.csv"
"""File of the tested pairs, for programs (`claims_csv`); a run without such a pair has none."""

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "°": r"$^{\circ}$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--", "×": r"$\times$",
    "∞": r"$\infty$",
}  # fmt: skip


def cell_text(cell: Cell) -> str:
    """A cell as readers see it."""
    return " ".join(filter(None, halves(cell)))


def halves(cell: Cell) -> tuple[str, str]:
    """A number, and its interval and number of videos; the second half of any other cell is empty."""
    match cell:
        case Number():
            videos = "" if cell.videos is None else f"({cell.videos})"
            return cell.write(cell.value), f"{interval(cell.low, cell.high, cell.write)} {videos}".strip()
        case Interval():
            return interval(cell.low, cell.high, cell.write), ""
        case Share():
            return f"{cell.write(cell.value)} of {cell.of}" if cell.of else NOTHING, ""
        case tuple():
            return " + ".join(map(cell_text, cell)), ""
        case _:
            return str(cell), ""


def markdown(results: Results, figures: dict[str, str]) -> str:
    """The whole leaderboard as Markdown, with the figures at these relative paths and their alternative texts."""
    counts = results.counts
    parts = [
        f"# {_md(title(results.run))}",
        _md(measured(results.run, int(counts["planned"].sum()), int(counts["ok"].sum()))),
        f"**{_md(scope(results.run))}**",
        "\n".join(f"- {_md(line)}" for line in checks(results) + cautions(results)),
    ]
    pictures = [f"![{_md(text)}]({path})" for path, text in figures.items()]
    tables = [methods_table(results), bounds_table(results)]
    tables += [claims_table(results.claims, results.run)] * bool(results.claims) + metric_tables(results)
    tables += [belief_table(results), *tercile_tables(results)]
    tables += [cost_table(results)] * (not made_elsewhere(results.run)) + [metrics_table(results)]
    faults, card = shortened(faults_table(results), FAULTS), card_table(results.run)
    tables += [faults] * bool(faults.rows) + ([card] if card else [])
    parts += [markdown_table(table) for table in tables]
    return "\n\n".join(parts + pictures) + "\n"


def markdown_table(table: Table) -> str:
    """A heading, the table and its note."""
    rows = [[_md(cell_text(cell)) for cell in row] for row in table.rows]
    lines = [f"## {_md(table.title)}", "", markdown_rows([_md(column) for column in table.columns], rows)]
    return "\n".join(lines + (["", _md(table.note)] if table.note else []))


def markdown_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table alone; the text of its cells is Markdown already."""
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def _md(text: str) -> str:
    """Escape markup, and keep a cell on one line."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def latex(results: Results) -> str:
    """The leaderboard as booktabs tables (needs booktabs and graphicx)."""
    methods = methods_table(results)
    about = replace(methods, note=f"{title(results.run)}. {scope(results.run)} {methods.note}")
    costs = [cost_table(results)] * (not made_elsewhere(results.run))
    return "\n".join(map(latex_table, [about, bounds_table(results), *metric_tables(results), *costs]))


def latex_table(table: Table) -> str:
    """One table as a booktabs table (needs booktabs and graphicx)."""
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_tex(f'{table.title}. {table.note}'.strip())}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
        r"\toprule",
        _tex_row(table.columns),
        r"\midrule",
        *(_tex_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _tex_row(cells: tuple[Cell, ...]) -> str:
    return " & ".join(_tex(cell_text(cell)) for cell in cells) + r" \\"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def csv(results: Results) -> str:
    """One row per method and metric, numbers with six decimals, empty where there is none.

    Columns are backbone, suite, name, kind (method, submission or bound), extra_supervision, metric, unit,
    higher_is_better, headline, mean, low, high, cases, references, ok, failed, skipped, missing, backend, the method's
    median costs: fit_s, transfer_s, peak_memory_gib, action_mib, adapter_mib, and its rank by the headline: rank,
    rank_low, rank_high, comes_first. Costs and ranks are the same in all rows of a method.
    """
    run = results.run
    order = {name: index for index, name in enumerate(results.order + results.bound_order)}
    table = results.summary.rename(columns={"method": "name"})
    table = table.sort_values("name", key=lambda names: names.map(order), kind="stable")
    metrics, methods = run.info["metrics"], run.info["methods"]
    table["kind"] = table["name"].map(lambda name: methods[name]["kind"])
    table.insert(0, "suite", run.info["suite"])
    table.insert(0, "backbone", run.info["backbone"]["name"])
    table.insert(4, "extra_supervision", table["name"].map(lambda name: methods[name]["extra_supervision"] or "none"))
    for place, field in ((6, "unit"), (7, "higher_is_better"), (8, "headline")):
        table.insert(place, field, table["metric"].map(lambda name, field=field: metrics[name][field]))
    table["backend"] = table["metric"].map({name: " + ".join(found) for name, found in score_backends(run).items()})
    for field in ("fit_s", "transfer_s", "peak_memory_gib", "action_mib", "adapter_mib"):
        table[field] = table["name"].map(results.costs[field])
    for field, column in (("rank", "rank"), ("rank_low", "low"), ("rank_high", "high"), ("comes_first", "first")):
        table[field] = table["name"].map(results.ranks[column])
    return str(table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def claims_csv(claims: Iterable[Claim]) -> str:
    """The claims: columns name, minus, mean, low, high, cases, references, seeds, p, p_equal, detectable, verdict."""
    records = [
        {"name": item.first, "minus": item.second, **vars(item.estimate), "seeds": item.seeds}
        | {"p": claim.p, "p_equal": claim.p_equal, "detectable": claim.detectable, "verdict": claim.verdict}
        for claim in claims
        for item in (claim.comparison,)
    ]
    return str(pd.DataFrame.from_records(records).to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def long_tables(results: Results) -> dict[str, str]:
    """Text of each table that is too long for the page, by file name: cells as readers see them."""
    tables = {CASES: cases_table(results), FAULTS: faults_table(results)}
    return {file: _table_csv(table) for file, table in tables.items() if shortened(table, file) is not table}


def _table_csv(table: Table) -> str:
    text = io.StringIO()
    rows = ([cell_text(cell) for cell in row] for row in table.rows)
    comma_separated.writer(text, lineterminator="\n").writerows([table.columns, *rows])
    return text.getvalue()
