"""The harness: cases x methods x seeds -> videos -> scores. Each step is a file on disk that is never made twice.

Modules: `suites` and `curate` (cases), `methods` and `bounds` (competitors), `plan`, `execute`, `scoring`, `store`
(stages), `run` (the command). Importing the package loads nothing.
"""
