"""Join the sessions of an ablation, each of which ran with another RefAdapter."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from reports.run_folder import StoredRun


@dataclass(frozen=True, eq=False)
class Session:
    """A run directory as a session left it: its methods may also be those of other sessions.

    Attributes:
        adapter: Name of the RefAdapter of the session; "" for the backbone's own.
        run: Run as stored then.
        asked: Names of the session's methods and variants.
    """

    adapter: str
    run: StoredRun
    asked: tuple[str, ...]


def joined(sessions: Sequence[Session]) -> StoredRun:
    """The last session, of the backbone's own RefAdapter, with the methods of the others as `NAME (ADAPTER)`."""
    last, methods = sessions[-1], dict[str, Any]()
    samples, scores = list[pd.DataFrame](), list[pd.DataFrame]()
    for session in (last, *sessions[:-1]):
        known = session.run.info["methods"]
        kept = [*session.asked, *(session.run.bounds if session is last else ())]
        names = {name: with_adapter(name, session.adapter) for name in known if name in kept}
        methods |= {new: known[old] for old, new in names.items()}
        for parts, table in ((samples, session.run.samples), (scores, session.run.scores)):
            mine = table[table["method"].isin(list(names))]
            parts.append(mine.assign(method=mine["method"].map(names)))
    tables = {"samples": pd.concat(samples, ignore_index=True), "scores": pd.concat(scores, ignore_index=True)}
    return replace(last.run, info={**last.run.info, "methods": methods}, **tables)


def with_adapter(name: str, adapter: str) -> str:
    """Name of a method with an adapter in a joined run."""
    return f"{name} ({adapter})" if adapter else name
