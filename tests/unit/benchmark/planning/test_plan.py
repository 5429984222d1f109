import copy
import json

import pyarrow.parquet as pq
import pytest

from benchmark.planning.keys import key
from benchmark.planning.plan import asked_of, plan
from benchmark.stages.bench import units
from benchmark.store.folder import RunFolder
from benchmark.store.gather import write_tables
from benchmark.store.schema.run_json import BackboneEntry
from flexiact.media.digests import canonical_json
from flexiact.media.digests import json_digest as digest

CASE = {
    "digests": {"reference": "r1", "target": "t1", "truth": "x1"},
    "caption": "a dog",
    "prompt": "a bird",
    "wrong_action": "bow",
}
METHOD = {
    "kind": "method",
    "method_id": "A",
    "version": 1,
    "fit_config": {"steps": 3},
    "transfer_config": {"w": 1},
}
RUN = {
    "backbone": {
        "revision": "abc",
        "num_frames": 9,
        "height": 16,
        "width": 24,
        "fps": 8.0,
        "max_text_tokens": 6,
        "dtype": "float32",
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
    },
    "methods": {
        "a": METHOD,
        "b": METHOD | {"transfer_config": {"w": 2}},
        "still": {"kind": "bound", "version": 1, "transfer_config": {}, "sampled": False},
    },
    "cases": {
        "one": CASE,
        "two": CASE | {"digests": {"reference": "r1", "target": "t2", "truth": "x2"}},
    },
    "seeds": [0, 1],
}


def changed(path: str, value: object) -> dict:
    run = copy.deepcopy(RUN)
    *parents, last = path.split(".")
    inner = run
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return run


def keys(run: dict, method: str = "a", case: str = "one", seed: int = 0) -> tuple[str, str | None]:
    return next((c.key, c.fit_key) for c in plan(run) if (c.method, c.case_id, c.seed) == (method, case, seed))


def test_plan_is_methods_by_cases_by_seeds_and_bounds_once() -> None:
    cells = plan(RUN)
    assert {(c.method, c.case_id, c.seed) for c in cells if c.kind == "method"} == {
        (m, c, s) for m in "ab" for c in ("one", "two") for s in (0, 1)
    }
    assert [(c.case_id, c.seed, c.fit_key) for c in cells if c.kind == "bound"] == [("one", 0, None), ("two", 0, None)]
    assert len({c.key for c in cells}) == len(cells)


def test_a_bound_that_is_a_sample_is_made_at_every_seed() -> None:
    cells = [cell for cell in plan(changed("methods.still.sampled", True)) if cell.kind == "bound"]
    assert {(c.case_id, c.seed) for c in cells} == {(c, s) for c in ("one", "two") for s in (0, 1)}
    assert len({cell.key for cell in cells}) == 4


def test_variants_that_differ_at_transfer_share_fits_and_stand_together() -> None:
    cells = [c for c in plan(RUN) if c.kind == "method"]
    assert {c.fit_key for c in cells if c.method == "a"} == {c.fit_key for c in cells if c.method == "b"}
    order = [c.fit_key for c in cells]
    assert sum(first != second for first, second in zip(order, order[1:], strict=False)) == len(set(order)) - 1


@pytest.mark.parametrize(
    ("path", "value", "refits"),
    [
        ("backbone.revision", "other", True),
        ("backbone.num_frames", 17, True),
        ("backbone.dtype", "bfloat16", True),
        ("backbone.height", 32, True),
        ("backbone.width", 32, True),
        ("backbone.fps", 9.0, True),
        ("backbone.max_text_tokens", 7, True),
        ("backbone.num_inference_steps", 5, False),
        ("backbone.guidance_scale", 1.0, False),
        ("methods.a.version", 2, True),
        ("methods.a.method_id", "B", True),
        ("methods.a.fit_config", {"steps": 4}, True),
        ("methods.a.transfer_config", {"w": 3}, False),
        ("cases.one.caption", "a cat", True),
        ("cases.one.prompt", "a cat", False),
        ("cases.one.digests.reference", "r9", True),
        ("cases.one.digests.target", "t9", False),
    ],
)
def test_what_a_video_depends_on_changes_its_key(path: str, value: object, refits: bool) -> None:
    before, after = keys(RUN), keys(changed(path, value))
    assert before[0] != after[0]
    assert (before[1] != after[1]) is refits


def test_a_videos_key_holds_all_that_run_json_says_of_the_backbone_but_its_name_and_size() -> None:
    assert set(BackboneEntry.model_fields) == {"name", "num_parameters", *RUN["backbone"]}


def test_fits_with_seeds_of_their_own_are_crossed_with_the_seeds_of_videos() -> None:
    cells = [cell for cell in plan(RUN | {"fit_seeds": [1, 7]}) if (cell.method, cell.case_id) == ("a", "one")]
    assert sorted((cell.seed, cell.fit_seed) for cell in cells) == [(0, 1), (0, 7), (1, 1), (1, 7)]
    assert len({cell.key for cell in cells}) == 4
    fits = {cell.fit_seed: cell.fit_key for cell in cells}
    assert len(set(fits.values())) == 2 and all(cell.fit_key == fits[cell.fit_seed] for cell in cells)
    same = next(cell for cell in cells if cell.seed == cell.fit_seed == 1)
    assert (same.key, same.fit_key) == keys(RUN, seed=1)  # nothing is made twice


def test_without_seeds_of_their_own_fits_take_those_of_their_videos() -> None:
    assert all(cell.fit_seed == cell.seed for cell in plan(RUN))
    assert [cell.key for cell in plan(RUN | {"fit_seeds": None})] == [cell.key for cell in plan(RUN)]


def test_fit_seeds_that_a_session_does_not_ask_for_are_not_its_work() -> None:
    whole, smaller = RUN | {"fit_seeds": [0, 1, 2]}, RUN | {"fit_seeds": [2], "seeds": [1]}
    assert [cell.key for cell in asked_of(plan(whole), smaller)] == [cell.key for cell in plan(smaller)] != []


def test_the_seed_is_part_of_both_keys() -> None:
    assert not set(keys(RUN, seed=0)) & set(keys(RUN, seed=1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cases.one.wrong_action", "squat"),
        ("cases.one.digests.truth", "x9"),
        ("methods.still.version", 2),
        ("backbone.height", 32),
        ("backbone.num_inference_steps", 3),
        ("methods.still.transfer_config", {"estimator": "b"}),
    ],
)
def test_what_a_bound_depends_on_changes_its_key(path: str, value: object) -> None:
    assert keys(RUN, "still")[0] != keys(changed(path, value), "still")[0]


def test_what_people_read_is_no_part_of_a_key() -> None:
    run = changed("methods.a.summary", "new words")
    assert keys(RUN) == keys(run)


def test_two_names_for_one_video_are_refused() -> None:
    run = changed("methods.b", METHOD)
    with pytest.raises(ValueError, match="a on one and b on one are the same video under two names; .* another --out"):
        plan(run)


def test_plan_survives_a_round_trip_through_json() -> None:
    assert plan(json.loads(json.dumps(RUN))) == plan(RUN)


def test_plan_leaves_its_argument_alone() -> None:
    run = copy.deepcopy(RUN)
    plan(run)
    assert run == RUN


def test_canonical_json_has_one_text_for_equal_values() -> None:
    assert canonical_json({"b": (1, 2), "a": 0.1}) == canonical_json({"a": 0.1, "b": [1, 2]}) == '{"a":0.1,"b":[1,2]}'
    assert digest({"a": 1}) != digest({"a": 1.5})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_canonical_json_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json({"x": value})


def test_kinds_of_keys_never_meet() -> None:
    assert key("fit", {"a": 1}) != key("sample", {"a": 1})
    assert len(key("fit", {})) == 32


def test_units_part_cells_by_fit_and_bounds_by_reference() -> None:
    cells = plan(RUN)
    parts = units(cells, {"one": "r", "two": "r"})
    assert sorted(cell.key for unit in parts for cell in unit) == sorted(cell.key for cell in cells)
    assert [{cell.fit_key for cell in unit} for unit in parts] == [{None}, *({f} for f in _fits(cells))]
    apart = units(cells, {"one": "r", "two": "another"})
    assert [len(unit) for unit in apart] == [1, 1, 4, 4]


@pytest.mark.parametrize(
    ("part", "entries"), [("methods", ["still"]), ("methods", ["a"]), ("cases", ["two"]), ("seeds", [1])]
)
def test_what_is_asked_of_a_run_is_what_planning_it_alone_gives(part: str, entries: list) -> None:
    smaller = copy.deepcopy(RUN)
    smaller[part] = entries if part == "seeds" else {name: RUN[part][name] for name in entries}
    asked, alone = asked_of(plan(RUN), smaller), plan(smaller)
    assert [cell.key for cell in asked] == [cell.key for cell in alone] != []


def _fits(cells: list) -> list:
    return list(dict.fromkeys(cell.fit_key for cell in cells if cell.fit_key))


def test_a_planned_video_that_was_not_made_has_a_row(tmp_path) -> None:
    run = RUN | {"backbone": RUN["backbone"] | {"name": "tiny"}, "metrics": {}}
    folder = RunFolder(tmp_path)
    with folder.opened():
        write_tables(folder, run, plan(run))
    rows = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    assert {(row["key"], row["method"], row["case_id"], row["seed"]) for row in rows} == {
        (cell.key, cell.method, cell.case_id, cell.seed) for cell in plan(RUN)
    }
    assert len(rows) == 10  # two methods at two seeds and a bound at one, on two cases
    assert {row["status"] for row in rows} == {"missing"}
