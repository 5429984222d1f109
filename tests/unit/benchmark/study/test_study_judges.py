"""A judge is calibrated on corrupted videos whose names say nothing; what it answers stands beside the metrics."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark.planning.selection import UsageError
from benchmark.study import judges
from benchmark.study.__main__ import main
from benchmark.study.corruptions import CORRUPTIONS, VERSION
from benchmark.study.judge_answers import Answer, Scale
from benchmark.study.judges import answered, export, exported_seed
from benchmark.suites.puppets import PuppetSuite, load_suite
from flexiact.media.video import read_video
from reports.studies.metric_study import belief_of, study_table

SUITE = "puppets-smoke"
SCALE = Scale("a judge 1", True, (0.0, 1.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "NAMES", ("frozen", "mirrored", "wrong-prompt"))
        export(load_suite(SUITE), folder, seed=3)
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "NAMES", ("frozen", "mirrored", "wrong-prompt"))


def test_names_and_table_say_nothing_of_the_answer(made: Path) -> None:
    rows = list(csv.DictReader((made / judges.TABLE).read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["video", "reference", "target", "prompt"]
    for row in rows:
        assert all((made / row[name]).is_file() for name in ("video", "reference", "target"))
    assert "frozen" not in (made / judges.TABLE).read_text() and len(rows) == len(list(made.glob("0*.mkv")))
    prompts = [row["prompt"] for row in rows]
    assert len(rows) == 13 and len(set(prompts[:9])) == len(set(prompts[9:])) == 1 and prompts[0] != prompts[9]
    truth, frozen, mirrored = (read_video(made / f"{name}.mkv").frames for name in ("00000", "00004", "00008"))
    assert (frozen == truth[:1]).all() and (mirrored == truth[:, :, ::-1]).all()


def test_videos_of_an_export_that_was_stopped_are_not_those_of_the_former_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    shutil.copy(made / judges.MADE, tmp_path)
    suite = load_suite(SUITE)
    assert exported_seed(suite, tmp_path) == 3
    with monkeypatch.context() as patch:
        patch.setattr(judges, "GRADES", (0.5, 1.0))
        with pytest.raises(UsageError, match="holds videos of grades"):
            exported_seed(suite, tmp_path)
    monkeypatch.setattr(judges, "write_lossless", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(suite, tmp_path, seed=4)
    with pytest.raises(UsageError, match="does not say what the videos were made from"):
        exported_seed(suite, tmp_path)


def test_a_suite_of_one_prompt_has_no_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = PuppetSuite.chosen
    monkeypatch.setattr(PuppetSuite, "chosen", lambda suite, names: chosen(suite, names)[:1])
    with pytest.raises(UsageError, match="puppets-smoke has one prompt"):
        export(load_suite(SUITE), tmp_path / "videos", seed=0)
    assert not list(tmp_path.iterdir())


def all_answers(made: Path, say) -> list[Answer]:
    return [Answer(path.name, f"/somewhere/{path.name}", "judge", say(path), SCALE) for path in made.glob("0*.mkv")]


def test_a_judge_of_movement_is_found_blind_to_what_it_does_not_see(made: Path) -> None:
    def moves(path: Path) -> float:
        frames = read_video(path).frames.astype(float)
        return float(np.abs(np.diff(frames, axis=0)).mean() / 255)

    values = answered(load_suite(SUITE), all_answers(made, moves))
    noticed, blind = belief_of(study_table(values, {"judge": True}))
    assert noticed == ["frozen"] and "wrong-prompt" in blind


def test_a_judge_who_leaves_videos_out_is_not_believed(made: Path) -> None:
    suite, answers = load_suite(SUITE), all_answers(made, lambda path: 0.5)
    with pytest.raises(UsageError, match="judge: 1 video of the study has no answer"):
        answered(suite, answers[1:])
    with pytest.raises(UsageError, match="has a value of judge already"):
        answered(suite, [*answers, answers[0]])
    with pytest.raises(UsageError, match="x.mkv is no video of this study"):
        answered(suite, [Answer("f: 1", "x.mkv", "judge", 0.5, SCALE)])


def test_the_page_has_the_judge_beside_the_metrics(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    monkeypatch.setattr("benchmark.study.corrupted.CORRUPTIONS", {"frozen": CORRUPTIONS["frozen"]})
    monkeypatch.setattr(
        "reports.studies.metric_study.save_themed", lambda *_: True
    )  # the figure is looked at elsewhere
    rows = [["video", "metric", "value", "evaluator", "better", "low", "high"]]
    # Whoever says yes to the first video alone, the true answer, notices everything.
    rows += [[p.name, "judge", int(p.stem == "00000"), "a judge 1", "higher", 0, 1] for p in made.glob("0*.mkv")]
    with (tmp_path / "judge.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    options = ["--suite", SUITE, "--judge", str(made), "--features", str(tmp_path / "f")]
    options += ["--answers", str(tmp_path / "judge.csv")]
    assert main(["metrics", "--publish", str(tmp_path / "out"), *options]) == 0
    page = (tmp_path / "out" / "metric-study.md").read_text(encoding="utf-8")
    assert "| judge | frozen, mirrored, wrong-prompt | none |" in page and "- judge: a judge 1" in page
    assert f"- corruptions: version {VERSION}, seed 3\n" in page and " --seed 3 " in page  # that of the export
    assert "| mirrored | place |" in page
    other = tmp_path / "other.csv"
    other.write_text((tmp_path / "judge.csv").read_text(encoding="utf-8").replace("a judge 1", "a judge 2"))
    assert main(["metrics", "--publish", str(tmp_path / "out"), *options, str(other)]) == 2
    assert "is measured by a judge 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge", "videos", "--publish", "out"], "publish: --judge alone writes videos and no page"),
        (["--publish", "out", "--evaluator", "vbench 1"], "evaluator: says who wrote --answers"),
        (["--judge", "videos", "--seed", str(2**63)], "seed: expected 0 <= seed < 2**63"),
    ],
)
def test_options_that_cannot_be_or_would_do_nothing_are_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    monkeypatch.chdir(tmp_path)
    assert main(["metrics", "--suite", SUITE, *words]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "judge: give the folder of the videos"),
        (["--judge", "{made}", "--seed", "4"], "were made with 3, not 4"),
        (["--judge", "{empty}"], "study.json does not say what the videos were made from"),
        (["--judge", "{other}"], "holds videos of corruptions_version 0"),
    ],
)
def test_answers_are_not_joined_with_other_videos(
    made: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(made / judges.MADE, other)
    facts = json.loads((other / judges.MADE).read_text())
    (other / judges.MADE).write_text(json.dumps(facts | {"corruptions_version": 0}))
    (tmp_path / "judge.csv").write_text(
        "video,metric,value,evaluator,better,low,high\n00000,j,1,a judge 1,higher,0,1\n"
    )
    places = {"made": made, "empty": tmp_path, "other": other}
    options = [word.format(**places) for word in words] + ["--answers", str(tmp_path / "judge.csv")]
    assert main(["metrics", "--suite", SUITE, "--publish", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
