"""card.json: who made the videos, who measured them, and at what cost."""

from typing import Annotated

from pydantic import JsonValue

from benchmark.store.schema.entry import Entry, unit


class MethodCost(Entry):
    """Costs of the videos of a method."""

    videos: int
    """Number of videos that were made."""
    absent: int
    """Number of planned videos that failed, were skipped or are missing."""
    submitted: bool
    """True if the videos were made elsewhere; their costs are not known."""
    fits: int
    """Number of distinct fits; one that methods share counts for the first of them."""
    fit_s: Annotated[float, unit("s")]
    """Wall time of these fits together."""
    transfer_s: Annotated[float, unit("s")]
    """Wall time of all transfers together."""
    peak_memory_gib: Annotated[float | None, unit("GiB")]
    """Largest peak of a fit or transfer; `null` where it was not measured."""


class CardPart(Entry):
    """One run, as it was when its card was written or when it was merged into this one."""

    sampled_by: str
    """Who made the videos, as they say, or `not stated`."""
    scored_by: str
    """Who measured them, as they say, or `not stated`."""
    sessions: list[dict[str, JsonValue]]
    """Sessions of the run, as its run.json describes them."""
    methods: dict[str, MethodCost]
    """Methods and bounds by name."""
    evaluators: dict[str, str]
    """Evaluator of each metric, and the version of the metric."""


class Card(Entry):
    """card.json: who made the videos, who measured them, and at what cost."""

    parts: list[CardPart]
    """One part for each run that was merged, in their order; one for a run that was not."""
