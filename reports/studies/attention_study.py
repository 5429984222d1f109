"""Page, tables and figures of a study of attention: does the observation hold that FlexiAct's schedule rests on.

The observation is the paper's Figure 2: videos attend to the embedding where things move, and early; low frequencies
settle before high ones. It is tested on paired differences, one a reference, in videos sampled with the fitted
embedding at bias 0. Two more samplings stand beside it and decide nothing: with the schedule, whose bias is itself
larger early; and with the unfitted tokens that a fit starts from, since any token may get more attention somewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reports.analysis.claims import MIN_REFERENCES
from reports.analysis.statistics import Estimate, estimate
from reports.pictures.themes import Theme, save_themed
from reports.tables.cells import Cell, Number, Table
from reports.tables.formats import markdown_table
from reports.wording import count, signed

PAGE, SHARES, SETTLED, COURSES = "attention", "attention-shares", "attention-settled", "attention-courses"
EARLY, LATE = 2 / 3, 1 / 3
"""Early steps are in the highest third of the timesteps, late ones in the lowest; the paper shows 800, 500 and 200."""

EMBEDDINGS = {"fitted": "bias 0", "scheduled": "schedule", "unfitted": "unfitted, bias 0"}
"""Words for the samplings; the first is the observation."""
DRAWN = ("fitted", "scheduled")
"""Samplings in the figures."""

HOLDS, REVERSED, OPEN, FEW = "holds", "reversed", "open", "too few references"


@dataclass(frozen=True)
class Question:
    """One paired difference.

    Attributes:
        values: Function from the means with one embedding to the difference of every case.
        part: True if it is a part of the observation.
    """

    name: str
    difference: str
    values: Callable[["Measured"], pd.Series]
    part: bool = False


@dataclass(frozen=True, eq=False)
class Measured:
    """Means of every case with one embedding.

    Attributes:
        shares: Mean share over blocks and over steps, by case; columns (region, "early", "middle" or "late").
        settled: Mean settled share over steps, by case; columns (content, band).
    """

    shares: pd.DataFrame
    settled: pd.DataFrame


def _share(region: str, third: str) -> Callable[[Measured], pd.Series]:
    return lambda found: found.shares[region, third]


def _gap(third: str, region: str = "outside") -> Callable[[Measured], pd.Series]:
    return lambda found: found.shares["inside", third] - found.shares[region, third]


def _lead(content: str) -> Callable[[Measured], pd.Series]:
    return lambda found: found.settled[content, "low"] - found.settled[content, "high"]


def _fall(values: Callable[[str], Callable[[Measured], pd.Series]]) -> Callable[[Measured], pd.Series]:
    return lambda found: values("early")(found) - values("late")(found)


QUESTIONS = (
    Question("Attention is on what moves", "early share, inside minus outside", _gap("early"), part=True),
    Question(
        "Attention is early", "share inside, early minus late", _fall(lambda third: _share("inside", third)), part=True
    ),
    Question("Low frequencies settle first", "settled, low minus high frequencies over time", _lead("time"), part=True),
    Question("It is on what moves early more than late", "inside minus outside, early minus late", _fall(_gap)),
    Question("It is on what moves, not on the figure", "early share, inside minus still parts", _gap("early", "still")),
    Question("Coarse movement settles before fine", "settled, low minus high frequencies in space", _lead("space")),
)
"""The parts of the observation first, then what helps to read them."""


def publish(shares: pd.DataFrame, settled: pd.DataFrame, study: dict[str, Any], folder: Path) -> Path:
    """Write the study as Markdown, CSV and figures; return the page.

    Args:
        shares: Columns case_id, reference_id, embedding (a key of `EMBEDDINGS`), step, timestep, block, region
            ("inside", "outside" or "still"), share.
        settled: Columns case_id, reference_id, embedding, step, timestep, content ("time" or "space"), band ("low" or
            "high"), settled.
        study: Facts of the study: `backbone`, `suite`, `command`, `timesteps` (number of the model's timesteps),
            `equal_share` (share of attention with equal logits and bias 0), `definitions` and `facts` (texts by name).
        folder: Folder to write to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in ((SHARES, shares), (SETTLED, settled)):
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.5f", lineterminator="\n")
    save_themed(SHARES, lambda theme: draw_shares(shares, theme), folder)
    save_themed(COURSES, lambda theme: draw_courses(shares, settled, study["equal_share"], theme), folder)
    page = folder / f"{PAGE}.md"
    page.write_text(_page(shares, settled, study), encoding="utf-8")
    return page


def answers(shares: pd.DataFrame, settled: pd.DataFrame, embedding: str, timesteps: int) -> list[Estimate]:
    """Paired difference of each of `QUESTIONS` with one embedding: mean over references with Student's interval."""
    shares, settled = (table[table["embedding"] == embedding] for table in (shares, settled))
    found = _measured(shares, settled, timesteps)
    return [
        estimate(question.values(found).rename("value").reset_index()[["reference_id", "case_id", "value"]])
        for question in QUESTIONS
    ]


def verdict(found: Estimate) -> str:
    """The verdict on one difference: it holds, or is reversed, if the interval is on one side of 0.

    With fewer than `MIN_REFERENCES` references there is none.
    """
    if found.references < MIN_REFERENCES:
        return FEW
    return HOLDS if found.low > 0 else REVERSED if found.high < 0 else OPEN


def conclusion(verdicts: list[str], backbone: str) -> str:
    """One sentence on the whole observation, from the verdicts on its parts."""
    held, turned, left = (verdicts.count(name) for name in (HOLDS, REVERSED, OPEN))
    if FEW in verdicts:
        return f"Whether the observation holds on {backbone} cannot be said: fewer than {MIN_REFERENCES} references."
    if held == len(verdicts):
        return f"The observation holds on {backbone}, in all of its {held} parts."
    says = "does not hold" if turned else "is not shown"
    parts = f"{held} of its {len(verdicts)} parts hold, {turned} are reversed, {left} open"
    return f"The observation {says} on {backbone}: {parts}."


def _measured(shares: pd.DataFrame, settled: pd.DataFrame, timesteps: int) -> Measured:
    """Means over steps have the same weight for every step, and those over blocks for every block."""
    bins, labels = [-1.0, LATE * timesteps, EARLY * timesteps, float(timesteps)], ["late", "middle", "early"]
    third = pd.cut(shares["timestep"], bins, right=False, labels=labels).astype(str).rename("third")
    case = ["reference_id", "case_id"]
    return Measured(
        shares.groupby([*case, "region", third])["share"].mean().unstack(["region", "third"]),
        settled.groupby([*case, "content", "band"])["settled"].mean().unstack(["content", "band"]),
    )


def _page(shares: pd.DataFrame, settled: pd.DataFrame, study: dict[str, Any]) -> str:
    found = [answers(shares, settled, embedding, study["timesteps"]) for embedding in EMBEDDINGS]
    verdicts = [verdict(item) for item in found[0]]
    parts = [said for said, question in zip(verdicts, QUESTIONS, strict=True) if question.part]
    rows: list[tuple[Cell, ...]] = []
    for question, said, *items in zip(QUESTIONS, verdicts, *found, strict=True):
        numbers = (_cell(item, shares["case_id"].nunique()) for item in items)
        rows.append((question.name + " *" * question.part, question.difference, *numbers, said))
    table = Table(
        "What was found",
        ("question", "difference", *EMBEDDINGS.values(), "verdict on the first"),
        tuple(rows),
        f"*: part of the observation. Means over references with Student's 95% intervals, in brackets the number of "
        f"cases if some have no such token. {HOLDS}: the interval is above 0; {REVERSED}: below; below "
        f"{MIN_REFERENCES} references there is no verdict. The observation holds only if all of its parts do, so it "
        "needs no correction for their number. The other verdicts are exploratory, each for itself.",
    )
    amount = f"{count(shares['case_id'].nunique(), 'case')} of {count(shares['reference_id'].nunique(), 'reference')}"
    words = [f"- **{name}**: {text}" for name, text in study["definitions"].items()]
    facts = [f"- {name}: {text}" for name, text in study["facts"].items()]
    head = [
        "# Attention to the action, and when content settles",
        f"**{conclusion(parts, study['backbone'])}**",
        f"{amount}, suite {study['suite']}, backbone {study['backbone']}. Made by `{study['command']}`.",
        (__doc__ or "").split("\n\n", 1)[1].strip().replace("\n", " "),
        markdown_table(table),
        f"![Share of attention on the embedding by timestep and block]({SHARES}.svg)",
        f"![Share of attention and settled energy over the timesteps]({COURSES}.svg)",
    ]
    return "\n\n".join([*head, "## Words", "\n".join(words), "## Made with", "\n".join(facts)]) + "\n"


def _cell(found: Estimate, cases: int) -> Number:
    videos = found.cases if found.cases < cases else None
    return Number(found.mean, found.low, found.high, write=signed, videos=videos)


def draw_shares(shares: pd.DataFrame, theme: Theme) -> Figure:
    """Heat maps, timestep by block: the share inside moving parts, and how much more it is than outside."""
    by = ["embedding", "region", "block", "step"]
    means = shares.groupby([*by, "reference_id"])["share"].mean().groupby(by).mean()
    inside = {name: means[name, "inside"].unstack("step") for name in DRAWN}
    gaps = {name: inside[name] - means[name, "outside"].unstack("step") for name in DRAWN}
    timesteps = shares.groupby("step")["timestep"].first().tolist()
    signed_colours = LinearSegmentedColormap.from_list("signed", [theme.second, theme.paper, theme.accent])
    colours = LinearSegmentedColormap.from_list("share", [theme.paper, theme.accent])
    figure = Figure(figsize=(9.0, 5.6))
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, maps, colour, title in (
        (panels[0], inside, colours, "Share inside moving parts"),
        (panels[1], gaps, signed_colours, "Inside minus outside"),
    ):
        largest = max(float(values.abs().max().max()) for values in maps.values())
        lowest = 0.0 if colour is colours else -largest
        for axes, (name, values) in zip(row, maps.items(), strict=True):
            image = axes.imshow(values, cmap=colour, vmin=lowest, vmax=largest, aspect="auto", origin="lower")
            axes.set_title(f"{title}, {EMBEDDINGS[name]}")
            axes.tick_params(length=0)
        row[0].set_ylabel("block")
        row[0].set_yticks(range(len(values)), values.index)
        figure.colorbar(image, ax=list(row), shrink=0.8)
    shown = range(0, len(timesteps), max(1, len(timesteps) // 6))
    for axes in panels[1]:
        axes.set_xticks(shown, [timesteps[step] for step in shown])
        axes.set_xlabel("timestep")
    return figure


def draw_courses(shares: pd.DataFrame, settled: pd.DataFrame, equal_share: float, theme: Theme) -> Figure:
    """Curves over timesteps: share of attention by region, settled energy over time and in space; 95% intervals."""
    figure = Figure(figsize=(8.0, 9.0))
    panels = figure.subplots(3, 1, sharex=True)
    shares = shares.rename(columns={"share": "value"})
    settled = settled.rename(columns={"settled": "value"})
    _courses(panels[0], shares[shares["region"] != "still"], "region", ("inside", "outside"), theme)
    panels[0].axhline(equal_share, color=theme.faint, linewidth=1.2, linestyle=(0, (1, 2)), label="equal logits")
    panels[0].set_title("Share of attention on the embedding, mean over blocks, with 95% interval at bias 0")
    for panel, content, title in (
        (panels[1], "time", "Settled change, low and high frequencies over time"),
        (panels[2], "space", "Settled change, low and high frequencies in space"),
    ):
        _courses(panel, settled[settled["content"] == content], "band", ("low", "high"), theme)
        panel.set_title(title)
    panels[0].set_ylim(bottom=0)  # no share is below
    for panel in panels[1:]:
        panel.set_ylim(bottom=max(-0.5, panel.get_ylim()[0]), top=1.05)  # no settled share is above 1
    for panel in panels:
        panel.grid()
        panel.legend(ncols=2)
    panels[0].invert_xaxis()
    panels[-1].set_xlabel("timestep")
    return figure


def _courses(panel: Any, rows: pd.DataFrame, column: str, names: tuple[str, str], theme: Theme) -> None:
    """Mean over references at every timestep; dashed with the schedule, and without its interval."""
    for name, colour in zip(names, (theme.accent, theme.second), strict=True):
        for embedding, line in zip(DRAWN, ("-", "--"), strict=True):
            mine = rows[(rows[column] == name) & (rows["embedding"] == embedding)]
            points = {timestep: estimate(group) for timestep, group in mine.groupby("timestep")}
            places = list(points)
            means, lows, highs = ([getattr(point, end) for point in points.values()] for end in ("mean", "low", "high"))
            panel.plot(places, means, line, color=colour, label=f"{name}, {EMBEDDINGS[embedding]}", linewidth=1.6)
            if line == "-":
                panel.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)
