"""The built report as a person gets it: files, page, pictures, and what is published."""

import json
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from reports import build as build_module
from reports.build import build, main, publish

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
make_run = runpy.run_path(str(GOLDEN / "fake_run.py"))["make_run"]
VOID = {"meta", "img", "br", "source", "link", "input", "hr"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.faults = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("a run") / "run", references=2, targets=4, seeds=(1,))


@pytest.fixture(scope="module")
def page_file(run):
    return build(run)


@pytest.fixture(scope="module")
def page(page_file):
    return Page(page_file.read_text(encoding="utf-8"))


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes most of a build's time; these tests look at something else."""
    monkeypatch.setattr("reports.figures.write_figures", lambda results, folder: {})


def test_all_files_are_there(run, page_file):
    assert page_file == run / "report" / "leaderboard.html"
    names = {path.relative_to(run / "report").as_posix() for path in (run / "report").rglob("*") if path.is_file()}
    plots = [f"figures/{name}{theme}.svg" for name in PLOTS for theme in ("", "-dark")]
    texts = [f"leaderboard.{suffix}" for suffix in ("md", "csv", "tex", "html")]
    assert names == {*plots, *texts, "contact_sheet.png"}
    assert not list(run.glob(".report-*"))


PLOTS = ("headline", "differences", "difficulty", "cost", "belief", "belief-scatter")


def test_page_is_well_formed(page):
    assert not page.faults
    assert not page.open


def test_page_needs_nothing_but_what_lies_beside_it(page, page_file):
    sources = [a["src"] for tag in ("img", "video", "source", "script") for a in page.all(tag) if "src" in a]
    sources += [a["srcset"] for a in page.all("source")] + [a["href"] for a in page.all("a")]
    assert not page.all("link")
    for source in sources:
        assert "://" not in source
        if not source.startswith("#"):
            assert (page_file.parent / unquote(source)).resolve().is_file(), source
    anchors = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}


def test_videos_play_by_themselves_and_pictures_have_words(page):
    videos = page.all("video")
    assert len(videos) == 8 * 11 - 2 - 2 - 1  # a reference and ten videos a case; two skipped, two failed, one not run
    for video in videos:
        assert {"loop", "muted", "autoplay", "playsinline"} <= set(video)
        assert video["aria-label"]
    assert all(image.get("alt") for image in page.all("img"))


def test_stored_text_is_escaped(page_file):
    text = page_file.read_text(encoding="utf-8")
    assert "made up: &lt;b&gt;not&lt;/b&gt; measured" in text
    assert "latents became &lt;NaN&gt; at step 17" in text
    assert "<in the" not in text
    assert "<NaN>" not in text


def test_the_page_lists_costs_beside_results(page_file):
    text = page_file.read_text(encoding="utf-8")
    for column in ("extra supervision", "fit", "transfer", "peak memory", "stored action"):
        assert f'<th scope="col">{column}</th>' in text


def test_published_numbers_stand_in_the_appendix_alone(page_file):
    text = page_file.read_text(encoding="utf-8")
    before, after = text.split('<section id="appendix">')
    assert "MD-I2V" not in before
    assert "Published, other data, not comparable" in after
    assert after.count("arXiv 2505.03730, Table 1") == 5


def test_contact_sheet_has_a_column_a_case_and_a_row_a_name(run, page_file):
    with Image.open(run / "report" / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 8 * 3 * 64
        assert sheet.size[1] > 12 * 64


def test_published_set_is_small_and_has_no_videos(run, tmp_path):
    place = publish(run, tmp_path / "kept").parent
    files = [path for path in place.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < build_module.PUBLISHED_LIMIT_BYTES
    assert {path.suffix for path in files} == {".md", ".csv", ".tex", ".html", ".svg", ".png", ".json"}
    assert json.loads((place / "run.json").read_text()) == json.loads((run / "run.json").read_text())
    page = Page((place / "leaderboard.html").read_text(encoding="utf-8"))
    assert not page.all("video")
    assert "../" not in (place / "leaderboard.html").read_text(encoding="utf-8")


def test_a_set_too_large_is_not_published(run, tmp_path, monkeypatch, capsys, no_figures):
    monkeypatch.setattr(build_module, "PUBLISHED_LIMIT_BYTES", 1000)
    monkeypatch.setattr(build_module, "build", lambda *_: "page")
    assert main([str(run), "--publish", str(tmp_path / "kept")]) == 2
    assert "more than" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_the_former_report(run, page_file, monkeypatch):
    before = page_file.read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("reports.figures.write_figures", broken)
    assert main([str(run)]) == 2
    assert page_file.read_bytes() == before
    assert not list(run.glob(".report-*"))


def test_an_unwritable_place_is_one_line_and_2(run, tmp_path, capsys, no_figures):
    (tmp_path / "file").write_text("")
    assert main([str(run), "--out", str(tmp_path / "file" / "report")]) == 2
    assert main([str(run), "--out", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_paths_out_of_the_run_are_not_followed(tmp_path):
    from reports.contact_sheet import inside
    from reports.run_folder import load_run

    (tmp_path / "secret.png").write_bytes(b"x")
    run = load_run(make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False))
    assert inside(run, "../secret.png") is None
    assert inside(run, str(tmp_path / "secret.png")) is None
    assert inside(run, None) is None
    assert inside(run, "run.json") is not None


def test_a_run_without_videos_still_has_a_report(tmp_path, no_figures):
    page_file = build(make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False), tmp_path / "out")
    assert not (tmp_path / "out" / "contact_sheet.png").exists()
    page = Page(page_file.read_text(encoding="utf-8"))
    assert not page.faults
    assert not page.all("video")


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    folders = [build(run, tmp_path / name / "report").parent for name in ("one", "two")]
    for path in folders[0].rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (folders[1] / path.relative_to(folders[0])).read_bytes(), path.name


def python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=GOLDEN.parents[2])


def test_no_report_module_loads_torch_or_diffusers():
    root = Path(build_module.__file__).parents[1]
    names = [
        path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in (root / "reports").rglob("*.py")
    ]
    imports = "; ".join(f"import {name}" for name in sorted(names) if not name.endswith("__"))
    done = python(f"import sys; {imports}; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers')))")
    assert done.returncode == 0, done.stderr
