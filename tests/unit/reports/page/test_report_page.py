"""The built report as a person gets it: files, page, pictures, and what is published."""

import base64
import hashlib
import json
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports import build as build_module
from reports.build import build, main, publish
from reports.run_folder import load_run
from reports.videos import inside, pictures, read_frames

GOLDEN = Path(__file__).parents[3] / "golden" / "report"
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
    monkeypatch.setattr("reports.pictures.figures.write_figures", lambda results, folder: {})


def test_all_files_are_there(run, page_file):
    assert page_file == run / "report" / "leaderboard.html"
    names = {path.relative_to(run / "report").as_posix() for path in (run / "report").rglob("*") if path.is_file()}
    plots = [f"figures/{name}{theme}.svg" for name in PLOTS for theme in ("", "-dark")]
    texts = [f"leaderboard.{suffix}" for suffix in ("md", "csv", "tex", "html")]
    frames = [f"frames/{number:03d}.webp" for number in range(1, 9)]
    assert names == {*plots, *texts, *frames, "claims.csv", "contact_sheet.png"}
    assert not list(run.glob(".report-*"))


def test_long_tables_are_files_beside_the_page(run, tmp_path, monkeypatch, no_figures):
    monkeypatch.setattr("reports.tables.cells.MOST_ROWS", 3)
    text = build(run, tmp_path / "report").read_text(encoding="utf-8")
    assert "The first 3 of 8 rows; all of them are in cases.csv." in text
    assert len((tmp_path / "report" / "cases.csv").read_text(encoding="utf-8").splitlines()) == 1 + 8
    cases = list(json.loads((run / "run.json").read_text(encoding="utf-8"))["cases"])
    board = text[text.index('<section id="cases">') : text.index('<section id="differences">')]
    assert [name in board for name in cases] == [True] * 3 + [False] * 5


PLOTS = ("headline", "differences", "pareto", "difficulty", "cost", "belief", "belief-scatter")


def test_page_is_well_formed(page):
    assert not page.faults
    assert not page.open


def test_page_needs_nothing_but_what_lies_beside_it(page, page_file):
    sources = [a["src"] for tag in ("img", "video", "source", "script") for a in page.all(tag) if "src" in a]
    sources += [a["srcset"] for a in page.all("source")] + [a["href"] for a in page.all("a")]
    assert not page.all("link")
    assert len({source for source in sources if "/previews/" in source}) > 60
    for source in sources:
        assert "://" not in source
        if not source.startswith("#"):
            assert (page_file.parent / unquote(source)).resolve().is_file(), source
    anchors = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}


def test_every_video_has_its_frames_and_pictures_have_words(page, page_file):
    shown = [a for a in page.all("canvas")]
    strip = 2 + 1 + 3  # reference, target, truth, the best three
    assert len(shown) == strip + 8 * 12 - 2 - 2 - 1  # two skipped, two failed, one not run
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in shown)
    assert all(image.get("alt") for image in page.all("img"))
    for frames in (a for a in page.all("div") if a.get("class") == "frames"):
        width, height, moments = (int(frames[f"data-{name}"]) for name in ("width", "height", "moments"))
        with Image.open(page_file.parent / frames["data-sheet"]) as sheet:
            assert (width, height, moments) == (64, 64, 9)
            assert sheet.width == width * moments and sheet.height % height == 0


def test_frames_on_the_sheet_are_the_videos(page, page_file, run):
    gallery = [a for a in page.all("div") if a.get("class") == "frames"][1]
    rows = {a["aria-label"]: int(a["data-row"]) for a in page.all("canvas")}
    case = next(iter(json.loads((run / "run.json").read_text())["cases"]))
    with Image.open(page_file.parent / gallery["data-sheet"]) as sheet:
        drawn = np.asarray(sheet.convert("RGB"), float)
    stored = pd.read_parquet(run / "samples.parquet").set_index(["method", "case_id"])
    frames = read_frames(run / stored.loc[("flexiact", case), "video"])
    top = 64 * rows[f"flexiact on {case}"]
    for moment in range(len(frames)):
        part = drawn[top : top + 64, 64 * moment : 64 * (moment + 1)]
        errors = np.abs(part - frames).mean(axis=(1, 2, 3))
        assert errors[moment] < errors.min() + 0.01 and errors[moment] < errors.max() - 1


def test_the_policy_allows_the_script_and_style_of_the_page_alone(page, page_file):
    text = page_file.read_text(encoding="utf-8")
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


def test_the_first_screen_answers_and_says_how_sure(page_file):
    text = page_file.read_text(encoding="utf-8")
    first = text.split('<section id="first">')[1].split("</section>")[0]
    assert re.search(r"flexiact, with a motion agreement of 0\.\d+ \[", first)
    assert "too few references" in first and "Nothing. Of 5 pairs" in first
    assert (
        text.index('<section id="first">') < text.index('<section id="leaderboard">') < text.index("Before believing")
    )


def test_no_table_is_wider_than_ten_columns(page_file):
    heads = re.findall(r"<thead>(.*?)</thead>", page_file.read_text(encoding="utf-8"), re.DOTALL)
    assert len(heads) > 8 and max(head.count("<th ") for head in heads) <= 10


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
    assert {path.suffix for path in files} == {".md", ".csv", ".tex", ".html", ".svg", ".png", ".webp", ".json"}
    assert json.loads((place / "run.json").read_text()) == json.loads((run / "run.json").read_text())
    page = Page((place / "leaderboard.html").read_text(encoding="utf-8"))
    assert len([a for a in page.all("details") if a.get("class") == "case"]) == build_module.PUBLISHED_FRAMES
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

    monkeypatch.setattr("reports.pictures.figures.write_figures", broken)
    assert main([str(run)]) == 2
    assert page_file.read_bytes() == before
    assert not list(run.glob(".report-*"))


def test_nothing_of_a_former_report_stays_but_files_of_others_do(tmp_path, no_figures):
    run = make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False)
    former = ["figures/pareto.svg", "figures/pareto-dark.svg", "frames/007.webp", "cases.csv", "faults.csv"]
    others = ["figures/mine.svg", "frames/mine.webp", "cases/cases.csv", "power.md"]
    for write in (build, publish):
        place = tmp_path / write.__name__
        for name in (*former, *others):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("")
        write(run, place)
        assert (place / "leaderboard.html").is_file()
        assert [name for name in (*former, *others) if (place / name).exists()] == others


def test_an_unwritable_place_is_one_line_and_2(run, tmp_path, capsys, no_figures):
    (tmp_path / "file").write_text("")
    assert main([str(run), "--out", str(tmp_path / "file" / "report")]) == 2
    assert main([str(run), "--out", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_paths_out_of_the_run_are_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    run = load_run(make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False))
    assert inside(run, "../secret.png") is None
    assert inside(run, str(tmp_path / "secret.png")) is None
    assert inside(run, None) is None
    assert inside(run, "run.json") is not None


def test_damaged_pictures_and_videos_are_named_and_stop_nothing(tmp_path):
    run = load_run(make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False))
    places, case = np.linspace(0, 1, 3), next(iter(run.info["cases"]))
    target, video = run.folder / f"inputs/{case}/target.png", run.folder / "videos/a.mkv"
    for path in (target, video):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(target)
    whole = target.read_bytes()
    assert pictures(run, {}, case, "target", places).shape == (1, 8, 8, 3)
    at = whole.index(b"IDAT")
    for damaged in (whole[: at + 6], whole[:at] + b"\0DAT" + whole[at + 4 :], b"no picture"):
        target.write_bytes(damaged)
        assert pictures(run, {}, case, "target", places) == "damaged"
    video.write_bytes(b"no video")
    sample = {("i2v", case): {"status": "ok", "video": "videos/a.mkv"}}
    assert pictures(run, sample, case, "i2v", places) == "damaged"
    target.unlink()
    assert pictures(run, {}, case, "target", places) == "no file"


def test_a_run_without_videos_still_has_a_report(tmp_path, no_figures):
    page_file = build(make_run(tmp_path / "run", references=1, targets=1, seeds=(0,), videos=False), tmp_path / "out")
    assert not (tmp_path / "out" / "contact_sheet.png").exists()
    page = Page(page_file.read_text(encoding="utf-8"))
    assert not page.faults
    assert not page.all("canvas") and not page.all("video")


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
