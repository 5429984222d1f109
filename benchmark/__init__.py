"""The harness: cases x methods x seeds -> videos -> scores, each step a file on disk that is never made twice.

Modules: `cases` and `curate` (what is run), `methods` and `bounds` (who runs), `plan`, `execute`, `score`, `store`
(how), `run` (the command). Importing the package loads nothing.
"""
