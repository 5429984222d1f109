"""Difficulty over several runs, from tables made by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.analysis.strengths import CROSSED, EASY, factor_of, strength_of, together
from reports.difficulty import curves as difficulty
from reports.difficulty.__main__ import main
from reports.run_folder import AXES, SCHEMA_VERSION, RunError, load_run
from reports.tables.formats import cell_text

NEAR_TO_FAR = ("near", "middle", "far")
DISTANCE = {"layout": 0.1, "viewpoint": 10.0, "skeleton": 0.2, "pose": 0.1}
KINDS = {"flexiact": "method", "i2v": "method", "still": "bound"}


def case(reference: str, strength: int, varied: tuple[str, ...]) -> dict:
    return {
        "reference_id": reference,
        "target_id": f"{reference}-{strength}",
        "axes": {axis: DISTANCE[axis] * strength if axis in varied else 0.0 for axis in AXES},
        "terciles": {axis: NEAR_TO_FAR[max(strength, 1) - 1] if axis in varied else "near" for axis in AXES},
    }


def description(cases: dict, seeds: list[int], suite: str = "by hand") -> dict:
    backbone = {"name": "tiny", "num_parameters": 1_500_000, "num_frames": 9, "height": 32, "width": 48, "fps": 8.0}
    metric = {"version": 1, "unit": "", "higher_is_better": True, "bounds": [-1, 1], "headline": True}
    texts = {"summary": "made by hand", "extra_supervision": "none"}
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite,
        "seeds": seeds,
        "backbone": backbone | {"revision": "r1"},
        "methods": {name: {"kind": kind, "version": 1, **texts, "fit_config": {}} for name, kind in KINDS.items()},
        "metrics": {"motion_agreement": metric | {"summary": "likeness of movement", "backend": "pose-a"}},
        "cases": cases,
    }


def write(folder: Path, info: dict, value) -> Path:
    """A run whose headline is `value(method, reference number, strength, seed)`, None for a failed video."""
    samples, scores = [], []
    for name, entry in info["methods"].items():
        for case_id, one in info["cases"].items():
            for seed in info["seeds"] if entry["kind"] == "method" else info["seeds"][:1]:
                number, strength = int(one["reference_id"][1:]), int(one["target_id"].rpartition("-")[2])
                found = value(name, number, strength, seed)
                row = {"key": f"{name}{case_id}{seed}", "method": name, "case_id": case_id, "seed": seed}
                status = "failed" if found is None else "ok"
                cost = dict.fromkeys(("fit_s", "transfer_s", "peak_memory_gib", "action_mib"), 1.0)
                texts = {"error": None, "video": None, "fit_key": "f", "method_version": 1}
                samples.append(row | texts | cost | {"status": status})
                score = {"metric": "motion_agreement", "metric_version": 1, "backend": "pose-a"}
                scores.append(row | score | {"status": status, "value": found})
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(info))
    pd.DataFrame(samples).to_parquet(folder / "samples.parquet")
    pd.DataFrame(scores).to_parquet(folder / "scores.parquet")
    return folder


def easy_run(folder: Path, value, references: int = 12, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    cases = {f"r{r}-{look}": case(f"r{r}", 0, ()) for r in range(references) for look in (1, 2)}
    return write(folder, description(cases, list(seeds)), value)


def graded_run(folder: Path, varied: tuple[str, ...], value, references: int = 3) -> Path:
    cases = {f"r{r}-{s}": case(f"r{r}", s, varied) for r in range(references) for s in (1, 2, 3)}
    return write(folder, description(cases, [0]), value)


def falling(method: str, reference: int, strength: int, seed: int) -> float | None:
    """`flexiact` falls by 0.1 a strength, from 0.6, 0.7, 0.8 ... by reference; the others stand where they are."""
    if method == "flexiact":
        return 0.6 + 0.1 * (reference % 3) - 0.1 * strength
    return {"i2v": 0.1 + 0.01 * seed, "still": 0.0}[method]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    made = [easy_run(tmp_path / "easy", falling)]
    made += [graded_run(tmp_path / axis, (axis,), falling) for axis in AXES]
    return [*made, graded_run(tmp_path / "crossed", AXES, falling)]


def loaded(paths) -> list:
    return [load_run(path) for path in paths]


def texts(table) -> list[tuple[str, ...]]:
    return [tuple(map(cell_text, row)) for row in table.rows]


def cell(found, factor: str, strength: int, method: str) -> pd.Series:
    table = found.curves
    chosen = table[(table["factor"] == factor) & (table["strength"] == strength) & (table["method"] == method)]
    (row,) = [row for _, row in chosen.iterrows()]
    return row


def test_factor_and_strength_are_read_from_the_cases(runs) -> None:
    assert [factor_of(run) for run in loaded(runs)] == [EASY, *AXES, CROSSED]
    assert [strength_of(case("r0", s, ("layout",)), "layout") for s in (1, 2, 3)] == [1, 2, 3]
    assert [strength_of(case("r0", s, AXES), CROSSED) for s in (1, 2, 3)] == [1, 2, 3]
    assert strength_of(case("r0", 0, ()), EASY) == 0


def test_curves_are_the_means_worked_out_by_hand(runs) -> None:
    found = together(loaded(runs))
    assert found.factors == (*AXES, CROSSED)
    assert found.order == ("flexiact", "i2v", "still")
    for factor in found.factors:
        # References give 0.6, 0.7, 0.8, mean 0.7; 0.1 less a strength.
        assert [cell(found, factor, s, "flexiact")["mean"] for s in range(4)] == pytest.approx([0.7, 0.6, 0.5, 0.4])
        assert [cell(found, factor, s, "i2v")["mean"] for s in range(4)] == pytest.approx([0.11, 0.1, 0.1, 0.1])
        assert [cell(found, factor, s, "flexiact")["cases"] for s in range(4)] == [24, 3, 3, 3]
    # Student's 97.5% point of two degrees of freedom is 4.303; the references spread by 0.1.
    row = cell(found, "viewpoint", 2, "flexiact")
    assert (row["low"], row["high"]) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-4)
    assert cell(found, "viewpoint", 2, "flexiact")["distance"] == pytest.approx(20)
    assert np.isnan(cell(found, CROSSED, 2, "flexiact")["distance"])


def test_a_failed_video_is_left_out_of_its_strength_and_no_other(tmp_path) -> None:
    def failing(method: str, reference: int, strength: int, seed: int) -> float | None:
        return (
            None if (method, reference, strength) == ("flexiact", 2, 3) else falling(method, reference, strength, seed)
        )

    found = together(loaded([graded_run(tmp_path / "run", ("layout",), failing)]))
    assert cell(found, "layout", 3, "flexiact")["mean"] == pytest.approx(0.35)
    assert cell(found, "layout", 3, "flexiact")["cases"] == 2
    assert cell(found, "layout", 2, "flexiact")["mean"] == pytest.approx(0.5)


def test_what_a_suite_lacks_is_said(runs, tmp_path) -> None:
    def failing(method: str, reference: int, strength: int, seed: int) -> float | None:
        return None if (method, reference) == ("flexiact", 2) else falling(method, reference, strength, seed)

    lacking = graded_run(tmp_path / "lacking", ("layout",), failing)
    samples = pd.read_parquet(lacking / "samples.parquet")
    (lacking / "samples.parquet").unlink()
    older = (samples["method"] == "still") & (samples["case_id"] == "r0-1")
    samples.assign(method_version=samples["method_version"].where(~older, 0)).to_parquet(lacking / "samples.parquet")
    page = difficulty.publish([lacking, runs[0]], tmp_path / "out").read_text()
    assert "| layout | of 27 values 3 failed, 1 missing |" in page
    assert "| layout | 1 rows of another method version were left out (still). |" in page
    assert "What is not there" not in difficulty.publish(runs[:2], tmp_path / "whole").read_text()


def test_claims_and_gains_are_paired_and_rest_on_references(runs, tmp_path) -> None:
    found = together(loaded(runs))
    ((against_baseline, against_still),) = found.gains
    assert (against_baseline.first, against_baseline.second, against_still.second) == ("flexiact", "i2v", "still")
    # 0.7 less the mean over seeds of 0.10, 0.11, 0.12.
    assert against_baseline.estimate.mean == pytest.approx(0.59)
    assert against_still.estimate.mean == pytest.approx(0.7)
    assert (against_baseline.estimate.cases, against_baseline.estimate.references) == (24, 12)
    assert 0.49 < against_baseline.estimate.low < 0.59 < against_baseline.estimate.high < 0.69
    (claim,) = found.claims
    assert (claim.comparison.first, claim.comparison.second, claim.verdict) == ("flexiact", "i2v", "beats")
    (few,) = together(loaded([easy_run(tmp_path / "few", falling, seeds=(0,))])).claims
    assert few.verdict == "not claimed: 1 seed"


def test_without_an_easy_run_curves_begin_at_1_and_nothing_is_claimed(runs) -> None:
    found = together(loaded(runs[1:2]))
    assert found.claims == ()
    assert sorted(set(found.curves["strength"])) == [1, 2, 3]
    table = difficulty.curve_table(found, "layout")
    assert table.columns == ("name", "1 (0.10)", "2 (0.20)", "3 (0.30)")
    assert texts(table)[0] == ("flexiact", "0.600 [0.352, 0.848]", "0.500 [0.252, 0.748]", "0.400 [0.152, 0.648]")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["backbone"].update(revision="r2"), "backbone: not the one of"),
        (lambda info: info.update(truth={"truth_version": 0}), "truth: not judged by that of"),
        (lambda info: info["methods"]["flexiact"].update(fit_config={"steps": 3}), "methods.flexiact: not as in"),
        (lambda info: info["methods"]["flexiact"].update(method_id="Other"), "methods.flexiact: not as in"),
        (lambda info: info["metrics"]["motion_agreement"].update(backend="pose-b"), "not measured as in"),
        (lambda info: info["cases"]["r0-1"]["axes"].update(skeleton=0.3), "does not vary one axis"),
        (lambda info: info["cases"]["r0-1"].pop("axes"), "case r0-1 does not say how far apart"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, tmp_path, change, message) -> None:
    info = json.loads((runs[1] / "run.json").read_text())
    change(info)
    other = write(tmp_path / "changed", info, falling)
    with pytest.raises(RunError, match=message):
        together(loaded([runs[0], other]))


def test_crossed_strengths_must_agree_and_a_factor_comes_once(runs, tmp_path) -> None:
    info = json.loads((runs[-1] / "run.json").read_text())
    info["cases"]["r0-1"]["terciles"]["layout"] = "far"
    with pytest.raises(RunError, match="at graded strengths"):
        together(loaded([write(tmp_path / "mixed", info, falling)]))
    with pytest.raises(RunError, match="the factor layout is already that of"):
        together(loaded([runs[1], runs[1]]))


def test_published_files_say_the_same(runs, tmp_path, capsys) -> None:
    folder = tmp_path / "out"
    assert main([*map(str, runs), "--publish", str(folder)]) == 0
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    plots = {f"figures/difficulty-curves{theme}.svg" for theme in ("", "-dark")}
    assert names == {"difficulty.md", "difficulty.csv", "difficulty.tex", "claims.csv", *plots}
    text = (folder / "difficulty.md").read_text()
    assert "(figures/difficulty-curves.svg)" in text
    assert "| name | 0 | 1 (10°) | 2 (20°) | 3 (30°) |" in text
    assert "| name | 0 | 1 | 2 | 3 |" in text
    assert "0: 24 cases of 12 references x 3 seeds, 1: 3 cases of 3 references x 1 seed, 2:" in text
    assert "| flexiact | +0.590 \\[" in text
    assert "say nothing about larger backbones" in text
    table = pd.read_csv(folder / "difficulty.csv")
    assert len(table) == 5 * 4 * 3
    far = table[(table["factor"] == "skeleton") & (table["strength"] == 3) & (table["name"] == "flexiact")]
    assert far["mean"].item() == pytest.approx(0.4)
    claims = pd.read_csv(folder / "claims.csv")
    assert list(zip(claims["name"], claims["minus"], claims["verdict"], strict=True)) == [("flexiact", "i2v", "beats")]
    tex = (folder / "difficulty.tex").read_text()
    assert tex.isascii()
    assert tex.count(r"\begin{") == tex.count(r"\end{")
    assert capsys.readouterr().out.strip() == str(folder / "difficulty.md")


def test_the_easy_suite_is_shown_by_reference(runs) -> None:
    table = difficulty.reference_table(together(loaded(runs[:1])))
    assert table.columns[:4] == ("name", "r0", "r1", "r10")
    assert [row[:4] for row in texts(table)] == [
        ("flexiact", "0.600", "0.700", "0.700"),
        ("i2v", "0.110", "0.110", "0.110"),
        ("still", "0.000", "0.000", "0.000"),
    ]


def test_falls_are_paired_by_reference(runs, tmp_path) -> None:
    """Strength 3 has three of the references, whose easy means are .6, .7 and .8; all of them fall by .3."""
    found = together(loaded(runs))
    good = found.falls[found.falls["method"] == "flexiact"]
    assert list(good["factor"]) == [*AXES, CROSSED]
    assert good[["mean", "low", "high"]].to_numpy() == pytest.approx(np.full((5, 3), -0.3))
    assert set(good["references"]) == {3}
    table = difficulty.fall_table(found)
    assert table.columns == ("name", *AXES, CROSSED)
    assert ("flexiact", *["−0.300 [−0.300, −0.300]"] * 5) in texts(table)


def test_cases_of_the_same_name_stay_apart(tmp_path) -> None:
    """Pooled under one name, two suites would give the mean of their means."""
    easy = write(tmp_path / "easy", description({"same": case("r0", 0, ()), "b": case("r1", 0, ())}, [0]), falling)
    far = {"same": case("r0", 3, AXES), "b": case("r1", 3, AXES), "c": case("r2", 3, AXES)}
    found = together(loaded([easy, write(tmp_path / "far", description(far, [0]), falling)]))
    assert found.rows["case_id"].nunique() == 5


def test_the_easy_run_alone_has_claims_and_no_curves(runs, tmp_path) -> None:
    figures = tmp_path / "out" / "figures"
    figures.mkdir(parents=True)
    (figures / "difficulty-curves.svg").write_text("of a former report")
    text = difficulty.publish(runs[:1], tmp_path / "out").read_text()
    assert "on the easy suite" in text
    assert "over strength" not in text
    assert not list(figures.iterdir())


def test_the_gains_say_what_a_copy_of_the_reference_would_score(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(KINDS, "copy-reference", "bound")
    run = easy_run(
        tmp_path / "easy", lambda method, *rest: 0.8 if method == "copy-reference" else falling(method, *rest)
    )
    assert "The reference itself scores 0.800 here" in difficulty.gain_table(together(loaded([run]))).note


def test_the_same_runs_give_the_same_bytes_in_any_order(runs, tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    difficulty.publish(runs, first)
    difficulty.publish(runs[::-1], second)
    for path in sorted(path for path in first.rglob("*") if path.is_file()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name


def test_a_wrong_run_is_one_line_and_leaves_nothing(tmp_path, capsys) -> None:
    folder = tmp_path / "out"
    assert main([str(tmp_path / "none"), "--publish", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not folder.exists()
