"""What guided methods' signals know: nothing is left for the reference itself, and tables count what they say."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmark.guiding import signals as guiding
from benchmark.guiding.__main__ import main
from benchmark.planning.methods import METHODS
from flexiact.backbone.backbone import Backbone
from flexiact.task import Video
from tests.support.backbones import random_frames
from tests.support.harness import CASES, session

CAPTION = "a dog jumps"


@pytest.mark.parametrize("name", guiding.SIGNALS)
def test_a_signal_is_0_for_the_reference_and_for_no_other_clip(name: str, backbone: Backbone, reference: Video):
    built = METHODS[name].build(backbone)
    # DiTFlow holds soft flows to the strongest ones: the two are the same in the limit of a hard softmax.
    limit = {"temperature": 1e6} if name == "ditflow" else {}
    method = type(built).from_preset(backbone, **limit)
    action = method.fit(reference, CAPTION, seed=0)
    loss = guiding.SIGNALS[name]
    assert loss(method, reference, action, CAPTION) == pytest.approx(0, abs=1e-5)
    assert loss(method, Video(random_frames(5), 8.0), action, CAPTION) > 1e-3


def test_losses_are_of_the_videos_of_a_run(tmp_path: Path, backbone: Backbone):
    session(tmp_path / "run", backbone, methods=("ditflow", "motion_clone", "i2v"))
    cases = {case.case_id: case for case in CASES}
    found = guiding.losses(tmp_path / "run", cases, backbone, ["ditflow", "motion_clone"], every_block=False)
    assert len(found) == 2 * len(CASES) * (len(guiding.COMPARED) + 1) and (found["loss"] >= 0).all()
    blocks = guiding.losses(tmp_path / "run", cases, backbone, ["ditflow"], every_block=True)
    assert sorted(set(blocks["block"])) == list(range(backbone.transformer.config.num_layers))
    own = METHODS["ditflow"].build(backbone).block
    whole = found[found["method"] == "ditflow"].set_index(["case_id", "video"])["loss"]
    same = blocks[blocks["block"] == own].set_index(["case_id", "video"])["loss"]
    pd.testing.assert_series_equal(same, whole.loc[same.index])
    assert guiding.block_table(blocks).count("\n") == 2


def test_a_run_that_lacks_videos_or_is_of_another_backbone_is_refused(tmp_path: Path, backbone: Backbone):
    session(tmp_path / "run", backbone, methods=("motion_clone",))
    cases = {case.case_id: case for case in CASES}
    with pytest.raises(ValueError, match="lacks videos of i2v with seed 0"):
        guiding.losses(tmp_path / "run", cases, backbone, ["motion_clone"], every_block=False)
    with pytest.raises(ValueError, match="made by another backbone"):
        other = replace(backbone, revision="other")
        guiding.losses(tmp_path / "run", cases, other, ["motion_clone"], every_block=False)


def test_videos_that_were_made_with_other_settings_are_refused(tmp_path: Path, backbone: Backbone):
    session(tmp_path / "run", backbone, methods=("motion_clone", "i2v"))
    cases = {case.case_id: case for case in CASES}
    other = replace(backbone, num_inference_steps=backbone.num_inference_steps + 1)
    with pytest.raises(ValueError, match="its videos of motion_clone were made with other settings"):
        guiding.losses(tmp_path / "run", cases, other, ["motion_clone"], every_block=False)


def test_tables_compare_means_and_count_cases():
    rows = {"oracle": (1, 5), "wrong-action": (2, 3), "still": (2, 4), "i2v": (6, 6), "own": (3, 3)}
    found = pd.DataFrame(
        [("m", 0, case, video, loss) for video, pair in rows.items() for case, loss in zip("ab", pair, strict=True)],
        columns=["method", "block", "case_id", "video", "loss"],
    )
    assert guiding.table(found).splitlines()[2] == "| m | 1.000 | 0.833 | 1.000 | 2.000 | 1.000 | 1 of 2 | 1 of 2 |"
    assert guiding.block_table(found).splitlines()[2] == "| m | 1.000 (1) |"


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--methods", "ditflo"], "did you mean 'ditflow'?"), ([], "no such run directory")]
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("benchmark.workers.load.set_threads", lambda threads: None)  # of the process, which tests share
    assert main([str(tmp_path / "none"), *arguments, "--out", str(tmp_path / "page.md")]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and said in shown and shown.count("\n") == 1
    assert not (tmp_path / "page.md").exists()
