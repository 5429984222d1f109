"""The split of variance: against pairs counted one by one, a simulation with known parts, and a run."""

import itertools
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports.analysis.statistics import tidy
from reports.analysis.variance import FACTORS, block, components, deviation_of_difference
from reports.power import power_page
from reports.run_folder import load_run

fake = runpy.run_path(str(Path(__file__).parents[3] / "golden" / "report" / "fake_run.py"))
EFFECTS = [
    effect
    for size in range(1, len(FACTORS) + 1)
    for effect in itertools.combinations(FACTORS, size)
    if "target" not in effect or "reference" in effect
]


def slow_components(values: np.ndarray) -> dict[tuple[str, ...], float]:
    """From squared differences of every two scores, by what they share (U-statistics).

    Half of the mean squared difference of two scores is the sum of the variances of all effects that they do not share.
    """
    sums: dict[tuple[str, ...], list[float]] = {}
    for one, other in itertools.permutations(np.ndindex(values.shape), 2):
        same = [a == b for a, b in zip(one, other, strict=True)]
        same[2] = same[2] and same[1]  # the first target of two references is not the same one
        shared = tuple(name for name, alike in zip(FACTORS, same, strict=True) if alike)
        sums.setdefault(shared, []).append((values[one] - values[other]) ** 2 / 2)
    # Cells by what they share: half a squared difference = sum of the components of all effects not inside it.
    keys = list(sums)
    matrix = np.array([[not set(effect) <= set(shared) for effect in EFFECTS] for shared in keys], float)
    solved = np.linalg.lstsq(matrix, np.array([np.mean(sums[key]) for key in keys]), rcond=None)
    assert solved[2] == len(EFFECTS)
    return dict(zip(EFFECTS, solved[0], strict=True))


def test_components_are_those_of_all_pairs_of_scores():
    values = np.random.default_rng(0).normal(size=(3, 4, 2, 2, 2)) + np.arange(4)[None, :, None, None, None]
    found, expected = components(values), slow_components(values)
    assert list(found) == EFFECTS
    assert found == pytest.approx(expected)


def drawn(generator: np.random.Generator, truth: dict, shape: tuple[int, ...]) -> np.ndarray:
    values = np.zeros(shape)
    for effect, variance in truth.items():
        sizes = [count if name in effect else 1 for name, count in zip(FACTORS, shape, strict=True)]
        values = values + generator.normal(scale=variance**0.5, size=sizes)
    return values


def test_known_parts_are_found_on_average():
    truth = {effect: 0.5 + number for number, effect in enumerate(EFFECTS)}
    generator = np.random.default_rng(1)
    found = [components(drawn(generator, truth, (4, 12, 2, 3, 2))) for _ in range(1_000)]
    for effect, variance in truth.items():
        values = [one[effect] for one in found]
        assert abs(np.mean(values) - variance) < 4 * np.std(values) / np.sqrt(len(values)), effect


def test_one_seed_or_one_target_has_no_part_of_its_own():
    values = np.random.default_rng(2).normal(size=(3, 4, 1, 1, 1))
    assert list(components(values)) == [("method",), ("reference",), ("method", "reference")]
    with pytest.raises(ValueError, match="two or more"):
        components(values[:, :1])


def test_the_deviation_of_a_difference_is_what_a_larger_design_has():
    truth = {("method", "reference"): 0.02, ("method", "reference", "target"): 0.05}
    truth |= {
        ("method", "reference", "target", "seed"): 0.09,
        ("method", "reference", "fit seed"): 0.16,
        ("reference",): 5.0,
        ("seed",): 3.0,
        ("method", "seed"): 1.0,
    }
    values = drawn(np.random.default_rng(3), truth, (2, 20_000, 4, 3, 2))
    differences = (values[0] - values[1]).mean(axis=(1, 2, 3))
    assert deviation_of_difference(truth, 4, 3, 2) == pytest.approx(differences.std(ddof=1), rel=0.03)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The last case of base-embedding is missing, and one video of flexiact-no-schedule failed."""
    return load_run(fake["make_run"](tmp_path_factory.mktemp("run"), targets=4, seeds=(0, 1), videos=False))


def test_the_block_has_no_gaps_and_says_what_it_lacks(run):
    rows, names = tidy(run), ["flexiact", "base-embedding", "i2v"]
    found = block(rows, run.headline, names)
    assert found.values.shape == (3, 5, 4, 2, 1) and not found.apart and np.isfinite(found.values).all()
    assert found.left_out == 4  # the one with the gap, and with it its reference, which has fewer than the others
    mine = rows[(rows["metric"] == run.headline) & (rows["method"] == "i2v") & (rows["seed"] == 1)]
    first = mine[mine["reference_id"] == "ref-bow"].sort_values("case_id")["value"].iloc[0]
    assert found.values[2, 0, 0, 1, 0] == first


def test_power_says_what_more_would_buy(run):
    page = power_page(run.folder, [0.1])
    assert "| reference × target | " in page and "twice the targets" in page
    split = page.split("## ")[2]
    shares = [int(share) for share in re.findall(r"(\d+)% \|$", split, re.MULTILINE)]
    assert len(shares) == sum("fit seed" not in effect for effect in EFFECTS) and 97 <= sum(shares) <= 103
    assert max(map(len, [line for line in page.splitlines() if line.startswith("|")])) <= 120


def test_fits_with_seeds_of_their_own_have_parts_of_their_own(tmp_path):
    """A made-up run whose scores hang on the seed of the fit and hardly on that of the video."""
    folder = fake["make_run"](tmp_path / "run", targets=4, seeds=(0, 1, 2, 3), videos=False)
    seeds_of_fits(folder)
    run = load_run(folder)
    found = block(tidy(run), run.headline, ["flexiact", "i2v"])
    assert found.apart and found.values.shape[3:] == (2, 2)
    parts = components(found.values)
    assert parts["method", "reference", "fit seed"] > 20 * max(abs(parts["method", "reference", "seed"]), 0.001)
    page = power_page(folder, [0.1])
    assert "| method × reference × fit seed | " in page and "| twice the fit seeds | " in page
    assert "2 seeds and 2 fit seeds" in page and "at once" not in page


def seeds_of_fits(folder):
    """Take four seeds as two of videos x two of fits, and let the fits of methods move the scores."""
    shifts = np.random.default_rng(5).normal(size=1000)
    for name in ("samples", "scores"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        fit_seed = table["seed"] % 2
        if name == "samples":
            table["fit_seed"] = fit_seed
        else:
            place = table["method"].map(len) * 7 + table["case_id"].str.split("-").str[0].map(len) * 31 + fit_seed * 400
            table["value"] += shifts[place]
        table["seed"] //= 2
        table.to_parquet(folder / f"{name}.parquet")
    info = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(info | {"seeds": [0, 1], "fit_seeds": [0, 1]}))
