"""Every file, key and column of a run is described, and everything described is in a run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, ValidationError

from benchmark.stages.describe import describe_run
from benchmark.stages.session import RunRequest, run_session
from benchmark.store import contract
from benchmark.store.card import read_card, write_card
from benchmark.store.folder import SCHEMA_VERSION, RunFolder
from benchmark.store.provenance import provenance
from benchmark.store.schema import cases, rows, run_json
from benchmark.store.schema.entry import Entry
from benchmark.store.schema.rows import SampleRow, ScoreRow, StoredScores, columns_of
from benchmark.store.schema.run_files import FILES
from benchmark.store.schema.run_json import Description, Run
from benchmark.submissions.submission import Submission
from benchmark.suites import puppets
from benchmark.suites.folder import folder_suite
from reports import run_folder
from tests.support.harness import CASES, METRICS, quick_flexiact, small_perception
from tests.support.real_material import plain
from tests.support.tiny_methods import new_backbone

DOCS = Path(__file__).parents[4] / "docs"
UNKNOWN = {"UnknownTruth", "FileCaseEntry", "CaseFiles", "ClipEntry", "FileEntry", "FileDigests"}
_KEY = "[0-9a-f]{32}"
NAMES = {"XX": "[0-9a-f]{2}", "FIT_KEY": _KEY, "FEATURES_KEY": _KEY, "KEY": _KEY, "CASE_ID": r"[\w.-]+"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one case in three sessions, the last one with a submission."""
    folder = tmp_path_factory.mktemp("contract")
    out, backbone = folder / "run", new_backbone(folder)
    request = {"suite": "small", "cases": CASES[:1], "metrics": METRICS, "out": out, "headline": METRICS[0]}
    origin = provenance(backbone.device, [backbone.refadapter])
    with pytest.MonkeyPatch.context() as patch:
        quick_flexiact(patch)
        for methods in (("flexiact",), ("i2v",)):
            asked = RunRequest(methods=methods, seeds=(0,), command=f"make {methods}", **request)
            run_session(asked, backbone, small_perception(), origin)
    nothing = Submission("mine", {(CASES[0].case_id, 0): None}, "submitted", "not stated")
    asked = RunRequest(methods=(), seeds=(0,), command="score", submissions=(nothing,), **request)
    run_session(asked, backbone, small_perception(), origin)
    write_card(RunFolder(out), "a group", None)
    return out


def load(path: Path) -> dict[str, Any]:
    """A JSON object without its seal, which all of them have."""
    content: dict[str, Any] = json.loads(path.read_bytes())
    assert content.pop("seal")
    return content


def entries(value: Any) -> set[str]:
    """Names of the kinds of objects in a checked one; all keys of a kind are required, so all of them are there."""
    if isinstance(value, BaseModel):
        return {type(value).__name__}.union(*(entries(part) for _, part in value))
    if isinstance(value, dict | list | tuple):
        return set().union(*(entries(part) for part in (value.values() if isinstance(value, dict) else value)))
    return set()


def kinds(kind: type[BaseModel] = Entry) -> set[type[BaseModel]]:
    return set(kind.__subclasses__()).union(*(kinds(inner) for inner in kind.__subclasses__()))


def test_run_json_and_its_description_name_the_same_keys(run: Path, backbone, tmp_path: Path) -> None:
    seen = entries(Run.model_validate(load(run / "run.json"))) | entries(read_card(RunFolder(run)))
    suite = {"suite": "folder", "suite_version": None, "suite_digest": None}
    shutil.copy(plain(tmp_path) / "images/cat.png", tmp_path / "images/same.png")
    (tmp_path / "images/same.txt").write_text("a cat sits")
    of_files = describe_run(suite, folder_suite(str(tmp_path)).cases, [0], backbone, {}, {})
    unknown = entries(Description.model_validate(of_files))
    assert not seen & UNKNOWN and UNKNOWN <= unknown
    never_alone = {"CaseEntry", "Description"} | {"StoredScore", "StoredScores"}
    described = {kind.__name__ for kind in kinds()}
    assert described - never_alone == (seen | unknown) - never_alone - {"Flags"}
    optional = {name for kind in kinds() for name, field in kind.model_fields.items() if not field.is_required()}
    assert optional == {"fit_seeds"}  # older runs lack it


def test_every_file_of_a_run_is_described_and_the_other_way_round(run: Path) -> None:
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and p.name[0] != "."}
    found = set()
    for file in FILES:
        pattern = re.sub("|".join(NAMES), lambda name: NAMES[name[0]], file.path)
        mine = {name for name in files if re.fullmatch(pattern, name)}
        assert mine, file.path
        found |= mine
        for path in mine if file.path.endswith(".json") else ():
            content = load(run / path)
            assert file.content is not None and file.content(**content)
            assert set(content) == set(columns_of(file.content))
    assert found == files


@pytest.mark.parametrize(("name", "row"), [("samples", SampleRow), ("scores", ScoreRow)])
def test_columns_carry_meaning_and_unit(run: Path, name: str, row: type) -> None:
    table = pq.read_table(run / f"{name}.parquet")
    said = {field.name: {k.decode(): v.decode() for k, v in field.metadata.items()} for field in table.schema}
    described = columns_of(row)
    assert list(said) == list(described)
    for column, about in said.items():
        assert about == {word: described[column][word] for word in ("description", "unit") if word in described[column]}
    assert said["key"]["description"].startswith("Names the video")
    assert [row(**line) for line in table.to_pylist()] != []


def test_the_page_and_the_json_schema_are_those_of_the_description() -> None:
    assert (DOCS / contract.PAGE).read_text(encoding="utf-8") == contract.page()
    assert json.loads((DOCS / contract.SCHEMA).read_text(encoding="utf-8")) == contract.json_schema()
    keys = {key for kind in (*kinds(), run_json.Flags) for key in kind.model_fields}
    keys |= {key for row in (SampleRow, ScoreRow) for key in columns_of(row)}
    assert set(re.findall(r"^- `(\w+)` \(", contract.page(), re.MULTILINE)) == keys


@pytest.mark.parametrize("change", [{"surprise": 1}, {"seeds": ["zero"]}, {"suite_digest": "short"}])
def test_a_description_that_breaks_the_contract_is_refused(run: Path, change: dict) -> None:
    plain_run = load(run / "run.json")
    with pytest.raises(ValidationError, match=next(iter(change))):
        Run.model_validate(plain_run | change)


def test_reports_and_suites_name_what_is_described() -> None:
    assert run_folder.SCHEMA_VERSION == SCHEMA_VERSION
    assert run_folder.AXES == puppets.AXES == get_args(cases.Axis)
    assert run_folder.TERCILES == puppets.TERCILES == get_args(cases.Tercile)
    assert run_folder.STATUSES == get_args(rows.SampleStatus)
    for read, described in (
        (run_folder.SAMPLE_COLUMNS, columns_of(SampleRow)),
        (run_folder.SCORE_COLUMNS, columns_of(ScoreRow)),
        (run_folder._RUN_FIELDS, Run.model_fields),
        (run_folder._BACKBONE_FIELDS, run_json.BackboneEntry.model_fields),
        (run_folder._METHOD_FIELDS, run_json.MethodEntry.model_fields),
        (run_folder._METHOD_FIELDS, run_json.BoundEntry.model_fields),
        (run_folder._METRIC_FIELDS, run_json.MetricEntry.model_fields),
        (run_folder._CASE_FIELDS, cases.PuppetCaseEntry.model_fields),
        (run_folder._CASE_FIELDS, cases.FileCaseEntry.model_fields),
    ):
        assert set(read) <= set(described)


def test_scores_of_another_layout_are_not_taken_for_scores() -> None:
    with pytest.raises(ValidationError, match="features_version"):
        StoredScores(video_digest=None, metrics={})
