"""The page in a real browser: nothing stored is executed, and people can filter, sort and step through frames."""

import json
import runpy
from pathlib import Path

import pandas as pd
import pytest

from reports.build import build
from tests.support.browser import browser, find_browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no chromium or google-chrome is on the PATH"),
]

make_run = runpy.run_path(str(Path(__file__).parents[3] / "golden" / "report" / "fake_run.py"))["make_run"]
METHOD = '"><script>document.title="taken"</script><img src=x onerror=alert(1)>'
CASE = "<img src=x onerror=alert(2)>'\"&lt;"


def renamed(folder: Path) -> Path:
    """A run whose first method and first case have names that are markup."""
    info = json.loads((folder / "run.json").read_text())
    case = next(iter(info["cases"]))
    info["methods"] = {METHOD if name == "flexiact" else name: entry for name, entry in info["methods"].items()}
    info["cases"] = {CASE if name == case else name: entry for name, entry in info["cases"].items()}
    info["cases"][CASE]["action"] = CASE
    (folder / "run.json").write_text(json.dumps(info))
    for name in ("samples.parquet", "scores.parquet"):
        table = pd.read_parquet(folder / name)
        table.replace({"method": {"flexiact": METHOD}, "case_id": {case: CASE}}).to_parquet(folder / name)
    (folder / "inputs" / case).rename(folder / "inputs" / CASE)
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "reports.pictures.figures.write_figures", lambda results, folder: {}
        )  # the plots are looked at elsewhere
        page = build(renamed(make_run(folder / "run", references=2, targets=4, seeds=(0, 1))))
    with browser(folder / "profile") as opened:
        opened.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
        opened.open(page)
        yield opened


SHOWN = "[...document.querySelectorAll('{}')].filter(e => !e.hidden).length"
COLUMN = "[...document.querySelectorAll('#leaderboard table')[0].tBodies[0].rows].map(row => row.cells[{}].textContent)"
SCRUB = (
    "(() => {{ const box = document.querySelector('#gallery > .player input'); box.value = {};"
    " box.dispatchEvent(new Event('input')); }})()"
)


def test_stored_names_stay_text_and_nothing_complains(tab):
    assert tab.run("document.title").startswith("Action transfer on puppets")
    assert METHOD in tab.run(COLUMN.format(0))
    assert tab.run(f"[...document.querySelectorAll('#filters option')].some(o => o.value === {json.dumps(CASE)})")
    assert tab.run("document.querySelectorAll('img[src=x], main script').length") == 0
    assert tab.complaints == []


def test_the_policy_refuses_scripts_that_the_page_did_not_come_with(tab):
    tab.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.mine = 1'}))")
    assert tab.run("window.mine") is None
    tab.run("1")
    assert any("Content Security Policy" in said for said in tab.complaints)
    tab.complaints.clear()


def test_a_heading_sorts_by_keyboard_in_both_directions(tab):
    before = tab.run(COLUMN.format(1))
    tab.run("document.querySelectorAll('#leaderboard thead button')[1].focus()")
    tab.press("Enter", "\r")
    assert tab.run("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending"
    assert tab.run(COLUMN.format(1)) == before
    tab.press("Enter", "\r")
    assert tab.run(COLUMN.format(1)) == before[::-1]
    tab.press("Enter", "\r")


def test_filters_hold_for_gallery_and_tables(tab):
    change = "(() => {{ const box = {}; {}; box.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    tab.run(change.format("document.querySelector('#filters select[name=action]')", f"box.value = {json.dumps(CASE)}"))
    assert (tab.run(SHOWN.format(".case")), tab.run(SHOWN.format("tr[data-case]"))) == (1, 1)
    tab.run(change.format("document.querySelector('#filters select[name=action]')", "box.value = ''"))
    tab.run(change.format("document.querySelector('#filters input[name=failed]')", "box.checked = true"))
    assert (tab.run(SHOWN.format(".case")), tab.run(SHOWN.format("tr[data-case]"))) == (2, 2)  # the two hexapods
    tab.run(change.format("document.querySelector('#filters input[name=failed]')", "box.checked = false"))
    rows = tab.run(SHOWN.format("#leaderboard tr[data-method]"))
    tab.run("document.querySelector('[data-choose=whole]').click()")
    assert tab.run(SHOWN.format("#leaderboard tr[data-method]")) < rows
    assert tab.run("document.getElementById('shown').textContent").startswith("8 of 8 cases, ")
    tab.run("document.querySelector('[data-choose=all]').click()")
    assert tab.run(SHOWN.format("#leaderboard tr[data-method]")) == rows


@pytest.mark.parametrize("place", [".strip", "#gallery .case[open]"])
def test_one_scrubber_moves_all_videos_but_not_the_target(tab, place):
    tab.run(f"document.querySelector('{place}').scrollIntoView({{block: 'center'}})")
    tab.wait(f"[...document.querySelectorAll('{place} .frames')].every(sheet => sheet.dataset.drawn)")
    tab.run(SCRUB.format(2))
    before = tab.pictures(f"{place} canvas")
    tab.run(SCRUB.format(6))
    after = tab.pictures(f"{place} canvas")
    names = tab.run(f"[...document.querySelectorAll('{place} canvas')].map(c => c.getAttribute('aria-label'))")
    same = [name for name, first, second in zip(names, before, after, strict=True) if first == second]
    assert [name.split(" on ")[0] for name in same if not name.startswith("still")] == ["target"]
    assert tab.run("[...document.querySelectorAll('.player output')].map(o => o.textContent)") == ["7 of 9"] * 2
    tab.press(".", ".")
    assert tab.run("document.querySelector('.strip .player input').value") == "7"


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_window(tab, width):
    tab.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    assert tab.run("document.documentElement.scrollWidth") <= width
    tab.ask("Emulation.clearDeviceMetricsOverride")
