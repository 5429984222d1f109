"""The plot of movement against appearance: who is on the front, and what the plot says."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.pictures.pareto import LOOKS, draw_pareto, front, looks_of, text_of_pareto, unbeaten
from reports.pictures.themes import LIGHT
from reports.results import measure
from reports.run_folder import StoredRun, load_run

fake = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return measure(load_run(fake["make_run"](tmp_path_factory.mktemp("run"), targets=2, seeds=(0,), videos=False)))


def slow_front(values: np.ndarray) -> list[bool]:
    known = [place for place, pair in enumerate(values) if np.isfinite(pair).all()]

    def beats(one, other):
        return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

    return [p in known and not any(beats(values[q], values[p]) for q in known) for p in range(len(values))]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_beats_in_both(seed):
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 6, (20, 2)).astype(float)  # with ties
    values[generator.integers(0, 20, 2), generator.integers(0, 2, 2)] = np.nan
    assert unbeaten(values).tolist() == slow_front(values)


def test_a_lower_error_is_better(results):
    assert looks_of(results) == "true_appearance_error"
    table = results.summary.pivot(index="method", columns="metric", values="mean").loc[list(results.order)]
    values = np.column_stack([-table["true_appearance_error"], table["motion_agreement"]])
    expected = [name for name, on in zip(results.order, slow_front(values), strict=True) if on]
    # i2v moves little and looks best; whoever leads in movement cannot be beaten either.
    assert front(results) == expected and {results.order[0], "i2v"} <= set(expected) < set(results.order)
    assert ", ".join(expected) in text_of_pareto(results)


def test_the_plot_shows_every_method_with_both_intervals_and_better_to_the_right(results):
    figure = draw_pareto(results, LIGHT)
    assert figure is not None
    (axes,) = figure.axes
    shown = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    assert [str(line.get_label()).removesuffix(" *") for line in shown] == list(results.order)
    assert axes.xaxis_inverted() and not axes.yaxis_inverted()
    cell = results.summary.set_index(["method", "metric"]).loc[(results.order[0], "motion_agreement")]
    assert [cell["low"], cell["high"]] in [list(line.get_ydata()) for line in axes.lines]


def test_a_measure_without_values_gives_its_place_to_the_next(results):
    summary = results.summary.copy()
    summary.loc[summary["metric"] == "true_appearance_error", "mean"] = np.nan
    others = [name for name in LOOKS[1:] if name in set(summary["metric"])]
    assert looks_of(replace(results, summary=summary)) == (others[0] if others else None)


def test_without_a_measure_of_appearance_there_is_no_plot(results):
    run = results.run
    metrics = {name: entry for name, entry in run.info["metrics"].items() if name in ("motion_agreement", "pck")}
    scores = run.scores[run.scores["metric"].isin(metrics)]
    bare = StoredRun(run.folder, run.info | {"metrics": metrics}, run.samples, scores, ())
    assert draw_pareto(measure(bare), LIGHT) is None
