"""Figures of runs whose methods have the long names of variants."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from reports.pictures.figures import FIGURES
from reports.pictures.themes import LIGHT, save_themed
from reports.results import Results, measure
from reports.run_folder import load_run
from reports.wording import broken, row_height

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]
LONG = "[guidance_scale=1.0,guidance_weight=40000.0,guided_share=0.55,reference_timestep=400]"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    """A made-up run, all of whose methods are variants of four settings."""
    folder = make_run(tmp_path_factory.mktemp("run"), videos=False)
    info = json.loads((folder / "run.json").read_text())
    names = {name: name + LONG for name, entry in info["methods"].items() if entry["kind"] != "bound"}
    info["methods"] = {names.get(name, name): entry for name, entry in info["methods"].items()}
    (folder / "run.json").write_text(json.dumps(info))
    for table in ("samples", "scores"):
        rows = pd.read_parquet(folder / f"{table}.parquet")
        rows.assign(method=rows["method"].replace(names)).to_parquet(folder / f"{table}.parquet")
    return measure(load_run(folder))


def test_a_long_name_has_a_line_for_each_setting():
    assert broken("flexiact[schedule.alpha=2]") == "flexiact[schedule.alpha=2]"
    assert broken("smm" + LONG).split("\n")[:2] == ["smm[", "guidance_scale=1.0,"]
    assert row_height(["smm"], 0.36) == 0.36 < row_height(["smm", broken("smm" + LONG)], 0.36)


@pytest.mark.parametrize("name", ["headline", "differences", "difficulty", "cost", "pareto"])
def test_panels_keep_half_of_the_width(results: Results, tmp_path: Path, name: str):
    (draw,) = (draw for known, draw, _ in FIGURES if known == name)
    drawn = []
    save_themed(
        name, lambda theme: drawn.append(draw(results, theme)) or drawn[-1] if theme is LIGHT else None, tmp_path
    )
    panels = [axes.get_position() for axes in drawn[0].axes]
    assert max(panel.x1 for panel in panels) - min(panel.x0 for panel in panels) > 0.5
    assert min(panel.height for panel in panels) > 0.4
