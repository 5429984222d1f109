"""The card of a run: who made the videos, who measured them, and at what cost; a merged run keeps one part a run."""

from collections.abc import Iterable, Sequence

from benchmark.planning.plan import Cell, plan
from benchmark.planning.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows
from benchmark.store.schema.card_json import Card, CardPart, MethodCost
from benchmark.store.schema.run_json import sessions_of

NOT_STATED = "not stated"
CARD = "card"
"""Name of the file, without its suffix."""


def read_card(folder: RunFolder) -> Card | None:
    """The stored card of a run; None if it has none.

    Raises:
        UsageError: If the file is damaged.
    """
    content = folder.read_json("", CARD)
    if content is None:
        if (folder.path / f"{CARD}.json").exists():
            raise UsageError(f"{folder.path / CARD}.json: is damaged; remove it and state again who made the videos")
        return None
    try:
        return Card.model_validate(content)
    except ValueError as error:
        raise UsageError(f"{folder.path / CARD}.json: is no card of a run") from error


def parts_of(folder: RunFolder) -> list[CardPart]:
    """Parts of a run's card as the run is now. A merged run keeps the parts that it was merged of.

    Raises:
        UsageError: If there is no run, or its card is damaged.
    """
    stored = read_card(folder)
    if stored and len(stored.parts) > 1:
        return list(stored.parts)
    said = (stored.parts[0].sampled_by, stored.parts[0].scored_by) if stored else (NOT_STATED, NOT_STATED)
    return [_part(folder, *said)]


def write_card(folder: RunFolder, sampled_by: str | None, scored_by: str | None) -> Card:
    """Write the card of a run, with what is stated; None leaves what the card says.

    Raises:
        UsageError: If there is no run, or it was merged of several, whose cards say who made them.
    """
    parts = parts_of(folder)
    if len(parts) > 1 and (sampled_by or scored_by):
        raise UsageError(f"{folder.path}: was merged of {len(parts)} runs; state it in their cards, then merge again")
    changes = {name: text for name, text in (("sampled_by", sampled_by), ("scored_by", scored_by)) if text}
    card = Card(parts=[part.model_copy(update=changes) for part in parts])
    store_card(folder, card.parts)
    return card


def store_card(folder: RunFolder, parts: Iterable[CardPart]) -> None:
    """Write parts as the card of a run."""
    folder.write_json("", CARD, Card(parts=list(parts)).model_dump())


def _part(folder: RunFolder, sampled_by: str, scored_by: str) -> CardPart:
    run = folder.described()
    planned: dict[str, list[Cell]] = {name: [] for name in run["methods"]}
    for cell in plan(run):
        planned[cell.method].append(cell)
    counted: set[str] = set()
    return CardPart(
        sampled_by=sampled_by,
        scored_by=scored_by,
        sessions=sessions_of(run),
        methods={name: _cost(folder, run["methods"][name]["kind"], cells, counted) for name, cells in planned.items()},
        evaluators={name: f"{entry['backend']}, version {entry['version']}" for name, entry in run["metrics"].items()},
    )


def _cost(folder: RunFolder, kind: str, cells: Sequence[Cell], counted: set[str]) -> MethodCost:
    """Sums over the videos of a method; a fit counts once, however many videos and methods share it.

    The keys of the fits that count here are added to those of earlier methods in `counted`.
    """
    videos, transfer_s, fits = 0, 0.0, dict[str, float]()
    peak: float | None = None
    for row in sample_rows(folder, cells):
        if row.status != "ok":
            continue
        videos += 1
        transfer_s += row.transfer_s or 0.0
        if row.fit_key and row.fit_s is not None and row.fit_key not in counted:
            fits[row.fit_key] = row.fit_s
        if row.peak_memory_gib is not None:
            peak = max(peak or 0.0, row.peak_memory_gib)
    counted.update(fits)
    return MethodCost(
        videos=videos,
        absent=len(cells) - videos,
        submitted=kind == "submission",
        fits=len(fits),
        fit_s=sum(fits.values()),
        transfer_s=transfer_s,
        peak_memory_gib=peak,
    )


def card_text(card: Card) -> str:
    """A card for people: lines of up to 80 columns, unless a stated text or a name is longer."""
    lines = []
    for number, part in enumerate(card.parts, start=1):
        costs = part.methods.values()
        lines += [
            f"part {number} of {len(card.parts)}",
            f"  made by      {part.sampled_by}",
            f"  measured by  {part.scored_by}",
            f"  videos       {sum(c.videos for c in costs)}, of them "
            f"{sum(c.videos for c in costs if c.submitted)} submitted; "
            f"{sum(c.absent for c in costs)} absent",
            f"  cost         fits {sum(c.fit_s for c in costs):.0f} s, "
            f"transfers {sum(c.transfer_s for c in costs):.0f} s",
            f"  evaluators   {len(set(part.evaluators.values()))} of {len(part.evaluators)} metrics",
        ]
    return "\n".join(lines)
