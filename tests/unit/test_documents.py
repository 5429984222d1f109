"""The documents hold what they promise: links lead somewhere, commands exist, the README's method runs."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexiact.backbone.backbone import Backbone
from flexiact.backbone.specs import PUPPET_WEIGHTS
from flexiact.media.image import write_png
from flexiact.media.video import write_preview
from flexiact.task import ActionTransfer, Request, Video
from tests.support.backbones import random_frames

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:python|launch|2) -m ([\w.]+)")
NOT_OURS = {"pytest"}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def anchors(text: str) -> set[str]:
    """What a page can be entered at: its headings as the usual renderers name them."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def leads_nowhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    place = (document.parent / path).resolve() if path else document
    return not place.exists() or bool(anchor and anchor not in anchors(place.read_text()))


def test_every_relative_link_leads_somewhere() -> None:
    links = [(document, link) for document in DOCUMENTS for link in LINK.findall(document.read_text())]
    assert [(d.name, link) for d, link in links if "://" not in link and leads_nowhere(d, link)] == []


def test_a_broken_anchor_would_be_seen() -> None:
    assert anchors("# A `b` (c)?\n\n```\n# no heading\n```\n## What else it needs\n") == {"a-b-c", "what-else-it-needs"}


def can_be_run(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    return spec is not None and '__name__ == "__main__"' in Path(spec.origin or "").read_text()


def test_every_command_is_a_module_that_can_be_run() -> None:
    named = {module for document in DOCUMENTS for module in COMMAND.findall(document.read_text())}
    assert {module for module in named - NOT_OURS if not can_be_run(module)} == set()


def test_imports_in_code_blocks_exist() -> None:
    for document in DOCUMENTS:
        for block in python_blocks(document):
            imports = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, type_ignores=[]), str(document), "exec"), {})


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall((ROOT / "README.md").read_text())}
    pages = set(names(sorted((ROOT / "docs").glob("*.md"))))
    assert pages - linked == set()


def test_the_readme_takes_two_minutes() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 120] == []


@pytest.fixture
def method(backbone: Backbone) -> ActionTransfer:
    """The README's method on the tiny backbone."""
    (block,) = python_blocks(ROOT / "README.md")
    namespace: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), namespace)
    made: ActionTransfer = namespace["NoiseShift"](backbone)
    return made


def test_the_method_of_the_readme_transfers(method: ActionTransfer, backbone: Backbone, reference: Video) -> None:
    assert isinstance(method, ActionTransfer)
    request = Request(random_frames(2, 1)[0], "a blue bird", 0)
    others = Video(random_frames(5), 8.0)
    actions = [method.fit(video, "a red dog jumps", seed=0) for video in (reference, others)]
    first, again, other = (method.transfer(action, request).frames for action in (actions[0], *actions))
    np.testing.assert_array_equal(first, again)
    assert first.shape == reference.frames.shape
    assert (first != other).any()


def test_the_method_of_the_readme_refuses_what_every_method_refuses(method: ActionTransfer, reference: Video) -> None:
    request = Request(random_frames(2, 1)[0], "a blue bird", 0)
    with pytest.raises(ValueError, match="action"):
        method.transfer({}, request)
    with pytest.raises(ValueError, match="reference"):
        method.fit(Video(reference.frames[:5], 8.0), "a red dog jumps", seed=0)


def test_the_code_that_scores_videos_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = python_blocks(ROOT / "docs" / "score-videos.md")
    write_preview(tmp_path / "mine.mp4", Video(random_frames(1, 9, 64, 64), 8.0))
    write_preview(tmp_path / "reference.mp4", Video(random_frames(2, 14, 48, 80), 12.0))  # no two real videos are alike
    write_png(tmp_path / "target.png", random_frames(3, 1, 64, 64)[0])
    monkeypatch.chdir(tmp_path)
    shipped = block.replace('"ViT-B-32"', repr(str(PUPPET_WEIGHTS / "clip")))  # the one thing that needs network
    assert shipped != block
    exec(compile(shipped, "score-videos.md", "exec"), {})
    printed = dict(line.split(" ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["motion_agreement"].startswith("None missing")
    assert "frames" not in printed["motion_fidelity"]
    assert -1 <= float(printed["appearance_consistency"]) <= 1
