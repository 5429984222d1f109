"""The page's own part, with a recorder in gradio's place: what is handed to the page is called as the page would."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from flexiact.media.image import write_png
from flexiact.media.video import read_video, write_preview
from flexiact.one_video.make import Setup
from flexiact.one_video.web import serve
from flexiact.task import Video
from tests.support.backbones import random_frames, save_tiny_folder, tiny_backbone


class Shown(Exception):
    """In the place of gradio.Error, which the page shows."""


@pytest.fixture
def transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the page calls for its five inputs; the files of the page lie in a folder of the test."""
    served = []

    def interface(function: Callable[..., str], inputs: list, output: object, title: str) -> SimpleNamespace:
        assert len(inputs) == 5 and title
        return SimpleNamespace(launch=lambda: served.append(function))

    parts = {name: lambda **_: None for name in ("Image", "Video", "Textbox", "Number")}
    parts["Video"] = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(Error=Shown, Interface=interface, **parts))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = save_tiny_folder(tmp_path / "tiny", tiny_backbone())
    serve(Setup(str(model), "none", None, "cpu", steps=2, fit_steps=2, cache=tmp_path / "caches"))
    (function,) = served
    return function


def test_the_page_makes_a_video_and_says_what_is_wrong(transfer: Callable[..., str], tmp_path: Path) -> None:
    image, reference = tmp_path / "cat.png", tmp_path / "dance.mp4"
    write_png(image, random_frames(2, 1, 40, 30)[0])
    write_preview(reference, Video(random_frames(1, 12, 20, 30), 12.0))
    out = transfer(str(image), str(reference), "a red bird jumps", "a blue dog jumps", None)
    assert len(read_video(out).frames) == 9
    with pytest.raises(Shown, match="An image and a reference video are needed"):
        transfer(None, str(reference), "", "", 0)
    with pytest.raises(Shown, match="seed: expected 0 &lt;= seed"):
        transfer(str(image), str(reference), "a red bird jumps", "a blue dog jumps", -1)
    with pytest.raises(Shown, match="/&lt;img src=x&gt;.png"):
        transfer(str(tmp_path / "<img src=x>.png"), str(reference), "", "", 0)
