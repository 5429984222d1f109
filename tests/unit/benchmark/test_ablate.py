"""Plans of ablations: what they list can be built, and a plan that is wrong says where."""

import runpy
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from benchmark.ablate import __main__
from benchmark.ablate.__main__ import parser
from benchmark.ablate.plans import ablation_of, load_plan, plan_names
from benchmark.planning.methods import METHODS
from benchmark.planning.selection import UsageError
from benchmark.planning.variants import entry_of
from benchmark.suites.puppets import suite_names
from flexiact.backbone.backbone import load_backbone
from flexiact.embedding import FrequencySchedule, matched_schedule
from metrics import METRICS
from reports.run_folder import AXES
from reports.studies.ablation import Row

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]

PLAN = """
title = "Guidance"
question = "How much?"
suite = "puppets-smoke"
baseline = "i2v"
metrics = ["pck"]

[[rows]]
label = "few tokens"
method = "base-embedding"
settings = { embedding_tokens = 4, schedule = "none" }

[[curves]]
label = "guidance"
method = "i2v"
setting = "guidance_scale"
values = [1, 2.5]
also = { num_inference_steps = [9, 3] }
"""


@pytest.mark.parametrize("name", plan_names())
def test_all_that_a_shipped_plan_names_exists_and_can_be_built(name: str) -> None:
    plan, backbone = load_plan(name), load_backbone("puppets", "cpu")
    assert plan.suite in suite_names() and set(plan.metrics) <= set(METRICS) and plan.axis in ("", *AXES)
    assert plan.baseline in METHODS
    for row in ablation_of(plan).rows:
        assert entry_of(row.name).build(backbone).method_id == METHODS[row.method].build(backbone).method_id


def test_a_plan_becomes_rows_with_the_names_of_variants(tmp_path: Path) -> None:
    path = tmp_path / "guidance.toml"
    path.write_text(PLAN)
    found = ablation_of(load_plan(str(path)))
    assert found.rows == (
        Row("i2v (baseline)", "i2v", "i2v"),
        Row("few tokens", "base-embedding", "base-embedding[embedding_tokens=4,schedule=none]"),
        Row("guidance: as set", "i2v", "i2v", "guidance", None, "guidance_scale"),
        Row("guidance: 1", "i2v", "i2v[guidance_scale=1,num_inference_steps=9]", "guidance", 1.0, "guidance_scale"),
        Row("guidance: 2.5", "i2v", "i2v[guidance_scale=2.5,num_inference_steps=3]", "guidance", 2.5, "guidance_scale"),
    )
    assert found.over == {"guidance": "setting"}


def test_each_trained_refadapter_has_a_session_and_the_backbones_own_the_last(tmp_path: Path, monkeypatch) -> None:
    path, out, asked = tmp_path / "mine.toml", tmp_path / "run", []
    other = '[[rows]]\nlabel = "other"\nmethod = "flexiact"\nadapter = "other"\n'
    path.write_text(PLAN.partition("[[rows]]")[0] + other)

    def session(args: Namespace, names: tuple[str, ...]) -> int:
        """Keep what was asked; the directory holds the methods of all sessions, as it does after a second start."""
        asked.append((args.refadapter, names))
        make_run(out, videos=False)
        return int(len(asked) == 1)

    monkeypatch.setattr(__main__, "run_methods", session)
    options = [str(path), "--out", str(out)]
    assert __main__.main([*options, "--adapters", "trained"]) == 1
    assert asked == [(Path("trained/other/refadapter"), ("flexiact",)), (None, ("i2v",))]
    page = (out / "ablation/ablation.md").read_bytes()
    assert b"2 methods and" in page
    assert __main__.main([*options, "--adapters", "trained"]) == 0
    assert (out / "ablation/ablation.md").read_bytes() == page
    shutil.rmtree(out / "ablation")
    assert __main__.main([*options, "--adapters", "trained", "--shard", "1/2"]) == 0
    assert len(asked) == 6 and not (out / "ablation").exists()
    assert __main__.main(options) == 2 and len(asked) == 6


def test_the_help_says_which_suite_and_folder_are_used() -> None:
    shown = " ".join(parser().format_help().split())
    assert "prompt) (its own)" in shown and "run directory (runs/ablate-NAME)" in shown and "None" not in shown
    options = parser().parse_args(["fae-schedule"])
    assert (options.suite, options.out) == (None, None)  # `_ablate` takes those of the plan


def test_factors_become_variants_of_the_methods_own_numbers(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(PLAN.replace("values = [1, 2.5]", 'values = [1, 2.5]\nrelative = true\nover = "fit_s"'))
    last = ablation_of(load_plan(str(path))).rows[-1]
    assert (last.label, last.name) == ("guidance: x2.5", "i2v[guidance_scale=x2.5,num_inference_steps=x3]")


def test_thresholds_of_the_schedules_plan_are_at_the_papers_ratios() -> None:
    row = next(row for row in load_plan("fae-schedule").rows if "ratios" in row.label)
    matched = matched_schedule(load_backbone("puppets", "cpu"), FrequencySchedule())
    assert row.settings == {"schedule.low": matched.low, "schedule.high": matched.high}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('label = "guidance"', "", "curves.0.label: Field required"),
        ("[9, 3]", "[9]", "also.num_inference_steps: expected 2 values, got 1"),
        ("baseline", "base line", "cannot be read"),
        ("values =", "relative = true\nvalues =", "factors can only be shown over 'fit_s'"),
        ('method = "base', 'adapter = "a/b"\nmethod = "base', "rows.0.adapter: String should match pattern"),
        ("question =", "asks =", "question: Field required"),
        ('baseline = "i2v"', 'baseline = "i3v"', r"wrong\.toml: unknown method 'i3v' \(did you mean 'i2v'\?\)"),
        ('method = "base-embedding"', 'method = "base"', r"wrong\.toml: unknown method 'base'"),
        ('"pck"', '"pkc"', r"wrong\.toml: unknown metric 'pkc' \(did you mean 'pck'\?\)"),
        ('suite = "puppets-smoke"', 'suite = "puppets-smoke"\naxis = "pause"', r"unknown axis 'pause'"),
    ],
)
def test_a_wrong_plan_says_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(PLAN.replace(old, new))
    with pytest.raises(UsageError, match=said):
        load_plan(str(path))
