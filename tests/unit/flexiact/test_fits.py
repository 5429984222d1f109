"""Fits of the command are found again by everything that they depend on, and by nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flexiact.backbone.backbone import Backbone
from flexiact.fits import FitFolder, fit_description
from flexiact.method import FlexiAct, FlexiActConfig
from flexiact.task import Video
from tests.support.backbones import random_frames

CONFIG = FlexiActConfig().changed(embedding_tokens=2, fit_steps=2)


@pytest.fixture
def given(backbone: Backbone, reference: Video) -> tuple[FlexiAct, Video, str, int]:
    return FlexiAct(backbone, CONFIG), reference, "a red dog", 0


def test_whatever_a_fit_depends_on_gives_it_another_file(given, backbone: Backbone, tmp_path: Path) -> None:
    method, reference, caption, seed = given
    others = [
        (method, reference, "a red cat", seed),
        (method, reference, caption, 1),
        (method, Video(random_frames(5), reference.fps), caption, seed),
        (FlexiAct(backbone, CONFIG.changed(fit_steps=3)), reference, caption, seed),
        (FlexiAct(replace(backbone, revision="another"), CONFIG), reference, caption, seed),
        (FlexiAct(replace(backbone, max_text_tokens=3), CONFIG), reference, caption, seed),
    ]
    files = [FitFolder(tmp_path).file(fit_description(*call)) for call in (given, *others)]
    assert len(set(files)) == len(files)


def test_what_a_fit_does_not_depend_on_leaves_its_file(given, backbone: Backbone, tmp_path: Path) -> None:
    method, reference, caption, seed = given
    later = FlexiAct(backbone, CONFIG.changed(num_inference_steps=7))
    again = fit_description(later, Video(reference.frames.copy(), 24.0), caption, seed)
    assert FitFolder(tmp_path).file(again) == FitFolder(tmp_path).file(fit_description(*given))


def test_a_kept_fit_comes_back_and_a_damaged_one_does_not(given, tmp_path: Path) -> None:
    folder, about = FitFolder(tmp_path), fit_description(*given)
    assert folder.load(about) is None
    folder.save(about, {"tokens": torch.arange(6.0)})
    assert torch.equal(folder.load(about)["tokens"], torch.arange(6.0))
    folder.file(about).write_bytes(b"damaged")
    assert folder.load(about) is None
