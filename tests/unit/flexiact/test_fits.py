"""Fits of the command are found again by everything that they depend on, and by nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flexiact.backbone.backbone import Backbone
from flexiact.fits import FitFolder, fit_description
from flexiact.media.digests import json_digest
from flexiact.method import FlexiAct, FlexiActConfig
from flexiact.task import Video
from tests.support.backbones import random_frames

CONFIG = FlexiActConfig().changed(embedding_tokens=2, fit_steps=2)


@pytest.fixture
def given(backbone: Backbone, reference: Video) -> tuple[FlexiAct, Video, str, int]:
    return FlexiAct(backbone, CONFIG), reference, "a red dog", 0


def test_whatever_a_fit_depends_on_gives_it_another_name(given, backbone: Backbone) -> None:
    method, reference, caption, seed = given
    others = [
        (method, reference, "a red cat", seed),
        (method, reference, caption, 1),
        (method, Video(random_frames(5), reference.fps), caption, seed),
        (FlexiAct(backbone, CONFIG.changed(fit_steps=3)), reference, caption, seed),
        (FlexiAct(replace(backbone, revision="another"), CONFIG), reference, caption, seed),
        (FlexiAct(replace(backbone, max_text_tokens=3), CONFIG), reference, caption, seed),
        (FlexiAct(replace(backbone, fps=backbone.fps + 1), CONFIG), reference, caption, seed),
    ]
    names = [json_digest(fit_description(*call)) for call in (given, *others)]
    assert len(set(names)) == len(names)


def test_what_a_fit_does_not_depend_on_leaves_its_name(given, backbone: Backbone) -> None:
    method, reference, caption, seed = given
    later = FlexiAct(backbone, CONFIG.changed(num_inference_steps=7))
    again = fit_description(later, Video(reference.frames.copy(), 24.0), caption, seed)
    assert json_digest(again) == json_digest(fit_description(*given))


def test_a_kept_fit_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    folder = FitFolder(tmp_path)
    assert folder.load("name") is None
    folder.save("name", {"tokens": torch.arange(6.0)}, {"fit": "of a test"})
    action, header = folder.load("name")
    assert torch.equal(action["tokens"], torch.arange(6.0)) and header == {"fit": "of a test"}
    folder.file("name").write_bytes(b"damaged")
    assert folder.load("name") is None
