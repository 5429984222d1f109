"""The README beside shipped weights is what their recipe prints, numbers aside."""

import re
from string import Formatter

import pytest

from flexiact import PUPPET_WEIGHTS as WEIGHTS
from flexiact.puppets.cards import clip_judge as judge_clip_card
from flexiact.puppets.cards import pose_judge as judge_pose_card
from flexiact.puppets.recipes import control as train_control
from flexiact.puppets.recipes import refadapter as train_refadapter
from flexiact.puppets.recipes.judges import pose_driver as driver_pose

CARDS = {
    "pose_driver": driver_pose.CARD,
    "clip": judge_clip_card.CARD,
    "pose": judge_pose_card.CARD,
    "control": train_control.CARD,
    "refadapter": train_refadapter.CARD,
}


@pytest.mark.parametrize("folder", CARDS)
def test_the_readme_of_weights_is_their_card(folder: str) -> None:
    parts = Formatter().parse(CARDS[folder])
    pattern = "".join(re.escape(text) + (".+?" if field is not None else "") for text, field, *_ in parts)
    assert re.fullmatch(pattern, (WEIGHTS / folder / "README.md").read_text(), re.DOTALL)
