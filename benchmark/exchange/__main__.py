"""Exchange with other tools: `python -m benchmark.exchange export|import|features|card RUN`.

`export` writes the scores of a run in VBench's layout. `import` puts scores of other tools, such as VBench or a judge,
into a run; they stand in its tables under the tool's name and version. `features` measures a run by point tracks,
keypoints, masks or embeddings of another tool. `card` writes who made and who measured the videos, and at what cost;
`python -m benchmark.merge` keeps the cards of the runs that it joins.
"""

import argparse
import sys
from pathlib import Path

from flexiact.terminal.cli import OneLineParser, command


def parser() -> argparse.ArgumentParser:
    """Parser of the command line; it loads no network library."""
    p = OneLineParser(prog="python -m benchmark.exchange", description=(__doc__ or "").split("\n\n")[0])
    works = p.add_subparsers(dest="work", required=True, metavar="export|import|features|card")
    for name, work, text in (
        ("export", _export, "write the scores of a run as VBench does"),
        ("import", _import, "put scores of other tools into a run"),
        ("features", _features, "measure a run by tracks, keypoints, masks or embeddings of another tool"),
        ("card", _card, "say who made and who measured the videos"),
    ):
        one = works.add_parser(name, help=text, description=text)
        one.add_argument("run", type=Path, metavar="RUN", help="run directory")
        one.set_defaults(does=work)
    one = works.choices["export"]
    one.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write a file for each method")
    one = works.choices["import"]
    one.add_argument("files", type=Path, nargs="+", metavar="FILE", help="VBench's JSON, or a table (CSV, Parquet)")
    one.add_argument("--evaluator", metavar="TEXT", help="who wrote the JSON files, such as 'vbench 0.1.5'")
    one.add_argument("--replace", action="store_true", help="drop what another evaluator said under the same name")
    one = works.choices["features"]
    files = "folder of videos/XX/KEY.npz and inputs/CASE_ID/*.npz, or a Parquet table"
    one.add_argument("features", type=Path, metavar="PATH", help=files)
    one.add_argument("--replace", action="store_true", help="drop what was measured under the same name")
    one = works.choices["card"]
    one.add_argument("--sampled-by", metavar="TEXT", help="who made the videos, such as a group or a paper")
    one.add_argument("--scored-by", metavar="TEXT", help="who measured them")
    return p


def _export(options: argparse.Namespace) -> None:
    from benchmark.exchange.exports import export_results
    from benchmark.store.folder import RunFolder

    paths, absent = export_results(RunFolder(options.run), options.out)
    print(f"{len(paths)} files in {options.out}, each with plain means over the videos of a method")
    if absent:
        print(f"{absent} planned videos have no value and are in no file")


def _import(options: argparse.Namespace) -> None:
    from benchmark.exchange.imports import import_answers
    from benchmark.store.folder import RunFolder
    from benchmark.study.judge_answers import read_answers
    from reports.build import build

    RunFolder(options.run).described()
    answers = [answer for path in options.files for answer in read_answers(path, options.evaluator)]
    for name, videos in import_answers(RunFolder(options.run), answers, options.replace).items():
        print(f"{name}: {videos} videos")
    print(f"report: {build(options.run)}")


def _features(options: argparse.Namespace) -> None:
    from benchmark.exchange.feature_files import FeatureFolder
    from benchmark.exchange.imports import store_scores
    from benchmark.exchange.measured import entries_of, scores_of
    from benchmark.store.folder import RunFolder
    from reports.build import build

    run, given = RunFolder(options.run), FeatureFolder(options.features)
    for name, videos in store_scores(run, entries_of(given), scores_of(run, given), options.replace).items():
        print(f"{name}: {videos} videos")
    print(f"report: {build(options.run)}")


def _card(options: argparse.Namespace) -> None:
    from benchmark.store.card import card_text, write_card
    from benchmark.store.folder import RunFolder

    print(card_text(write_card(RunFolder(options.run), options.sampled_by, options.scored_by)))


main = command(parser, lambda options: options.does(options))

if __name__ == "__main__":
    sys.exit(main())
