"""The backbone's judgement: errors are zero for the truth, and a verdict needs an interval that excludes zero."""

import numpy as np
import pytest
import torch

from flexiact.puppets.cards.backbone import (
    CANDIDATES,
    DEVELOPMENT_ACTIONS,
    LARGE_ACTIONS,
    OTHER_ACTIONS,
    Judgement,
    _draw,
    _errors,
    as_markdown,
)
from flexiact.puppets.world.clip import render_clip
from flexiact.puppets.world.rigs import RIGS
from flexiact.puppets.world.scene import backdrop_split, skin_split


class TruePose:
    """Answers with given keypoints: an estimator without error."""

    name, keypoint_names, score_threshold = "true", (), 0.0

    def __init__(self, keypoints):
        self.keypoints = keypoints

    def estimate(self, frames):
        return self.keypoints, np.ones(self.keypoints.shape[:2], np.float32)


def test_errors_of_the_truth_are_zero_and_of_a_still_are_not():
    scene, action, _ = _draw(torch.Generator().manual_seed(0), LARGE_ACTIONS, 1, "test")
    truth = render_clip(scene, action)
    pixel, keypoint, motion = _errors(truth.video.frames, truth, TruePose(truth.keypoints))
    assert (pixel, keypoint) == (0, 0)
    assert motion == pytest.approx(1)
    still = np.repeat(truth.video.frames[:1], 9, 0)
    pixel, keypoint, motion = _errors(still, truth, TruePose(np.repeat(truth.keypoints[:1], 9, 0)))
    assert pixel > 1 and keypoint > 0.5 and motion == 0


@pytest.mark.parametrize(
    ("actions", "split"),
    [(LARGE_ACTIONS, "test"), (OTHER_ACTIONS, "test"), (DEVELOPMENT_ACTIONS, "dev")],
    ids=["large", "others", "development"],
)
def test_worlds_ask_only_for_what_a_body_can_do(actions, split):
    for index in range(8):
        scene, action, other = _draw(torch.Generator().manual_seed(index), actions, index, split)
        assert action != other
        assert skin_split(scene.skin) == backdrop_split(scene.backdrop) == split
        assert {action, other} <= set(actions.values())
        assert all(m.channel in RIGS[scene.rig].channels for m in (*action, *other))


@pytest.mark.parametrize(("gain", "words"), [(1.0, "generated is better than"), (0.0, "not shown to be better")])
def test_a_verdict_needs_an_interval_without_zero(gain, words):
    field = np.random.default_rng(0).normal(10, 0.2, (30, len(CANDIDATES)))
    field[:, 0] -= gain
    text = as_markdown(Judgement(field, field, field))
    assert text.count(words) == 4
    assert "30 worlds" in text
