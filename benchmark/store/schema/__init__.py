"""The run directory as a contract: every file, every key of run.json and of the small JSON files, every column.

Types, units and meanings stand only here. The harness refuses to write a description that breaks them. The two tables
take their columns from them. `python -m benchmark.store.contract` generates docs/run-directory.md and its JSON Schema
from them. Pydantic checks both JSON and rows. A library for tables would add a dependency and no further check, since
the tables have two dozen columns of plain types.

Every described key is present, unless its default is named. `null` means that there is no such thing, that it is not
known, or that it failed. A missing key means that the entry is of another kind.
"""
