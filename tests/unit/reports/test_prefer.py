"""Blind pairs: what is shown is balanced and names no method; votes give win rates and agreement worked out by hand."""

import random
import re
import runpy
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmark.prefer import main
from reports.prefer.analysis import agreement_table, preference_table, read_votes
from reports.prefer.pairs import plan, sheet_digest
from reports.prefer.people import rater_table, strength_table
from reports.prefer.sheet import render_sheet
from reports.results import measure
from reports.run_folder import RunError, load_run
from tests.support.browser import browser, find_browser

make_run = runpy.run_path(str(Path(__file__).parents[2] / "golden" / "report" / "fake_run.py"))["make_run"]
METHODS = ["flexiact", "base-embedding", "i2v"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(make_run(tmp_path_factory.mktemp("run"), references=3, targets=3, seeds=(0,)))


@pytest.fixture(scope="module")
def trials(run):
    return plan(run, METHODS, 18, seed=5)


def test_pairs_are_balanced_over_methods_references_and_sides(run, trials):
    asked = [trial for trial in trials if not trial.is_catch]
    pairs = Counter(frozenset((trial.left, trial.right)) for trial in asked)
    assert len(pairs) == 3 and set(pairs.values()) == {6}
    for pair in pairs:
        mine = [trial.case_id for trial in asked if {trial.left, trial.right} == pair]
        assert len(set(mine)) == 6
        assert set(Counter(run.info["cases"][case]["reference_id"] for case in mine).values()) == {2}
    assert 4 < sum(trial.left == min(trial.left, trial.right) for trial in asked) < 14
    caught = [trial for trial in trials if trial.is_catch]
    assert len(caught) == 2 and {caught[0].left, caught[0].right} == {"oracle-codec", "wrong-action"}


def test_the_seed_decides_everything(run, trials):
    assert plan(run, METHODS, 18, seed=5) == trials
    other = plan(run, METHODS, 18, seed=6)
    assert other != trials and sheet_digest(run, other) != sheet_digest(run, trials)


def test_the_sheet_names_no_method_and_needs_no_other_file(run, trials):
    text, pictures = re.subn(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", render_sheet(run, trials))
    for secret in (*METHODS, "oracle", "wrong-action", *run.samples["key"], *run.info["cases"]):
        assert secret not in text, secret
    assert pictures == len(trials)
    assert "unsafe" not in text and "img-src data:;" in text


def vote(folder: Path, run, trials, choose, name="a"):
    """A file of votes: `choose(trial)` names the side that is preferred in motion; looks are always the same."""
    lines = ["sheet,rater,trial,question,choice"]
    for number, trial in enumerate(trials, start=1):
        lines.append(f"{sheet_digest(run, trials)},{name},{number},motion,{choose(trial)}")
        lines.append(f"{sheet_digest(run, trials)},{name},{number},appearance,same")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


ORDER = ["oracle-codec", "flexiact", "base-embedding", "i2v", "wrong-action"]


def by_order(trial):
    return "left" if ORDER.index(trial.left) < ORDER.index(trial.right) else "right"


def test_win_rates_and_agreement_are_as_counted(run, trials, tmp_path):
    results = measure(run)
    votes = read_votes([vote(tmp_path, run, trials, by_order)], results, trials)
    rows = preference_table(votes, results).rows
    assert [row[0] for row in rows] == METHODS
    # Each meets both others equally often: 1 wins all, the middle one half, the last none; looks tie.
    assert [row[1].value for row in rows] == pytest.approx([1, 0.5, 0])
    assert [row[2].value for row in rows] == [0.5] * 3 and [row[3] for row in rows] == [24] * 3
    agreement = {row[0]: row for row in agreement_table(votes, results).rows}
    seen = results.rows.set_index(["metric", "method", "case_id"])["value"]["motion_agreement"]
    right = {}
    for trial in trials:
        better = "left" if seen[trial.left, trial.case_id] > seen[trial.right, trial.case_id] else "right"
        reference = run.info["cases"][trial.case_id]["reference_id"]
        right.setdefault(reference, []).append(better == by_order(trial))
    expected = sum(sum(found) / len(found) for found in right.values()) / len(right)
    assert agreement["motion agreement ↑"][1].value == pytest.approx(expected)
    assert agreement["motion agreement ↑"][3] == len(trials)  # nobody preferred a side in looks


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run with as many references as an interval takes."""
    return load_run(make_run(tmp_path_factory.mktemp("many"), references=6, targets=2, seeds=(0,), videos=False))


def test_strengths_have_intervals_over_references_and_raters(many, tmp_path):
    shown, results = plan(many, METHODS, 36, seed=1), measure(many)

    def noisy(seed):
        generator, other = random.Random(seed), {"left": "right", "right": "left"}
        errs = {trial for trial in shown if not trial.is_catch and generator.random() < 0.2}
        return lambda trial: other[by_order(trial)] if trial in errs else by_order(trial)

    files = [vote(tmp_path, many, shown, noisy(seed), f"rater{seed}") for seed in range(3)]
    found = strength_table(read_votes(files, results, shown), results)
    names, motion, looks = zip(*found.rows, strict=True)
    assert list(names) == METHODS and "draws references and raters" in found.note
    assert motion[0].low > motion[-1].high and all(one.low < one.value < one.high for one in motion)
    assert [one.value for one in looks] == pytest.approx([0, 0, 0])  # nobody saw a difference
    alone = strength_table(read_votes(files[:1], results, shown), results)
    assert "one rater votes" in alone.note
    again = strength_table(read_votes(files, results, shown), results)
    assert again == found


def test_raters_who_say_the_same_agree_and_one_alone_says_nothing(many, run, trials, tmp_path):
    shown, results = plan(many, METHODS, 36, seed=1), measure(many)
    files = [vote(tmp_path, many, shown, by_order, name) for name in ("a", "b")]
    motion, looks = rater_table(read_votes(files, results, shown)).rows
    asked = sum(not trial.is_catch for trial in shown)
    assert motion[1].value == motion[1].low == motion[1].high == 1 and motion[2:] == (2, asked)
    assert np.isnan(looks[1].value)  # all say the same of everything, so that chance is not known
    alone = rater_table(read_votes([vote(tmp_path, run, trials, by_order)], measure(run), trials)).rows
    assert np.isnan(alone[0][1].value) and alone[0][2:] == (1, 0)


def test_whoever_does_not_look_is_left_out(run, trials, tmp_path):
    results = measure(run)
    files = [vote(tmp_path, run, trials, by_order, "looks")]
    files += [vote(tmp_path, run, trials, lambda t: "left" if by_order(t) == "right" else "right", "sleeps")]
    votes = read_votes(files, results, trials)
    assert votes.notes == ("sleeps.csv was left out: right in 0% of the trials with a known answer.",)
    assert preference_table(votes, results).rows[0][1].value == 1
    with pytest.raises(RunError, match="none are left: sleeps.csv was left out"):
        read_votes(files[1:], results, trials)


def kept(path: Path, numbers: set[int]) -> Path:
    """The votes on trials of these numbers alone."""
    heading, *lines = path.read_text().splitlines()
    path.write_text("\n".join([heading, *(line for line in lines if int(line.split(",")[2]) in numbers)]) + "\n")
    return path


def test_whoever_skips_the_trials_with_a_known_answer_is_named(run, trials, tmp_path):
    results, asked = measure(run), {n for n, trial in enumerate(trials, start=1) if not trial.is_catch}
    files = [vote(tmp_path, run, trials, by_order), kept(vote(tmp_path, run, trials, by_order, "skips"), asked)]
    votes = read_votes(files, results, trials)
    said = "skips.csv has no vote on a trial with a known answer: perhaps its rater did not look."
    assert votes.notes == (said,) and votes.rows["rater"].nunique() == 2


def test_the_note_says_how_often_two_methods_met(run, trials, tmp_path):
    results, first = measure(run), {n for n, trial in enumerate(trials, start=1) if not trial.is_catch}
    whole = read_votes([vote(tmp_path, run, trials, by_order)], results, trials)
    assert "Votes on each two methods: 12 to 12." in preference_table(whole, results).note
    left_out = next(n for n in sorted(first))
    part = read_votes([kept(vote(tmp_path, run, trials, by_order), first - {left_out})], results, trials)
    assert "Votes on each two methods: 10 to 12." in preference_table(part, results).note


def test_files_without_a_vote_on_two_methods_are_refused(run, trials, tmp_path):
    caught = {n for n, trial in enumerate(trials, start=1) if trial.is_catch}
    for numbers in (set(), caught):
        with pytest.raises(RunError, match="votes: none are left"):
            read_votes([kept(vote(tmp_path, run, trials, by_order), numbers)], measure(run), trials)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("choice\n", "said\n", 1), "column choice is missing"),
        (lambda text: text.replace(",choice\n", "choice\n", 1), "no table of votes .Length of header"),
        (lambda text: text.replace(",motion,", ",beauty,", 1), "line 2: question: 'beauty' is not on the sheet"),
        (lambda text: text.replace(",1,motion,", ",99,motion,", 1), "line 2: trial: '99' is not on the sheet"),
        (lambda text: text + text.splitlines()[1] + "\n", "more than one vote on a question"),
    ],
)
def test_faulty_votes_are_refused_by_line(run, trials, tmp_path, change, message):
    path = vote(tmp_path, run, trials, by_order)
    path.write_text(change(path.read_text()))
    with pytest.raises(RunError, match=message):
        read_votes([path], measure(run), trials)


def test_votes_of_another_sheet_are_refused(run, trials, tmp_path):
    path = vote(tmp_path, run, trials, by_order)
    with pytest.raises(RunError, match="votes of another sheet"):
        read_votes([path], measure(run), plan(run, METHODS, 18, seed=6))


def test_unknown_methods_and_runs_without_videos_are_named(run, tmp_path):
    with pytest.raises(RunError, match="'none' is no method of this run"):
        plan(run, ["flexiact", "none"], 4, seed=0)
    with pytest.raises(RunError, match="methods: one is there twice"):
        plan(run, ["flexiact", "i2v", "flexiact"], 4, seed=0)
    with pytest.raises(RunError, match="no case has videos of two of the methods"):
        plan(run, ["flexiact"], 4, seed=0)


def test_the_command_writes_the_sheet_and_the_tables(run, trials, tmp_path, capsys):
    options = [str(run.folder), "--methods", *METHODS, "--pairs", "18", "--seed", "5", "--out", str(tmp_path / "out")]
    assert main(options) == 0
    assert sheet_digest(run, trials) in (tmp_path / "out" / "sheet.html").read_text()
    assert main([*options, "--votes", str(vote(tmp_path, run, trials, by_order))]) == 0
    assert "| flexiact | 1.000" in (tmp_path / "out" / "preferences.md").read_text()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / n) for n in ("sheet.html", "preferences.md")]


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason="no chromium or google-chrome is on the PATH")
def test_people_can_vote_by_keyboard_alone(run, trials, tmp_path):
    page = tmp_path / "sheet.html"
    page.write_text(render_sheet(run, trials), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page)
        tab.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        tab.wait("document.querySelector('.trial:not([hidden]) .frames').dataset.drawn")
        tab.run("document.getElementById('rater').focus()")
        tab.press(".", ".")
        assert tab.run("document.getElementById('rater').value") == "."
        assert tab.run("document.querySelector('[data-do=play]').textContent") == "Pause"  # a name steps no frame
        tab.run("document.activeElement.blur()")
        for trial in trials:
            tab.press("1" if by_order(trial) == "left" else "3", "1" if by_order(trial) == "left" else "3")
            tab.press("5", "5")
            tab.press("Enter", "\r")
        assert tab.run("document.getElementById('progress').textContent").endswith("40 of 40 questions answered.")
        tab.run("document.getElementById('rater').value = 'A \"B\", C'")
        tab.run("document.getElementById('save').click()")
        saved = tmp_path / "saved" / "votes-A-B-C.csv"
        deadline(lambda: saved.is_file() and saved.stat().st_size > 0)
        assert tab.complaints == []
        tab.run("for (const box of document.querySelectorAll('input:checked')) box.checked = false")  # nothing unsaved
    votes = read_votes([saved], measure(run), trials)
    assert len(votes.rows) == 40 and votes.rows["rater"].iloc[0] == '0-A "B", C'
    assert preference_table(votes, measure(run)).rows[0][1].value == 1


def deadline(done, seconds=30.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
