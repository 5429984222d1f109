"""DAVIS folders as suites: what a table may name, and what is said of one that is wrong."""

from pathlib import Path

import numpy as np
import pytest

from benchmark.planning.selection import UsageError
from benchmark.suites.case import CaseError, Format
from benchmark.suites.davis import davis_suite
from benchmark.suites.folder import folder_suite
from flexiact.media.image import fit_image, read_image
from tests.support.backbones import HEIGHT, WIDTH
from tests.support.real_material import davis, plain, write_image, write_pictures, write_table

FORM = Format(9, HEIGHT, WIDTH, 8.0)
HEADING = ["reference", "caption", "target", "prompt"]
LINE = ["camel", "a camel walks", "bear", "a bear walks"]


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", "1080p", ""])
def test_a_line_of_the_table_is_a_case(tmp_path: Path, resolution: str) -> None:
    suite = davis_suite(str(davis(tmp_path, resolution)))
    assert (suite.name, suite.case_ids) == ("davis", ("camel-to-bear", "camel-to-fox"))
    bear, fox = suite.cases
    top = f"JPEGImages/{resolution}".rstrip("/")
    assert (bear.reference.name, bear.target_id) == (f"{top}/camel", f"{top}/bear/00000.jpg")
    assert (bear.action, bear.reference_id, bear.caption, bear.prompt) == ("camel", "camel", LINE[1], LINE[3])
    assert (fox.reference, fox.target_id) == (bear.reference, "images/fox.png")


def test_the_smallest_resolution_is_taken(tmp_path: Path) -> None:
    for resolution in ("Full-Resolution", "1080p", "480p"):
        davis(tmp_path, resolution)
        assert davis_suite(str(tmp_path)).cases[0].reference.name == f"JPEGImages/{resolution}/camel"


def test_names_do_not_hang_on_the_order_of_lines(tmp_path: Path) -> None:
    davis(tmp_path)
    write_image(tmp_path / "bear.png", 5)
    lines = [LINE, ["camel", "a camel walks", "bear.png", "a painted bear walks"]]
    named = []
    for rows in (lines, lines[::-1]):
        write_table(tmp_path / "transfers.csv", [HEADING, *rows])
        named.append({case.case_id: case.target_id for case in davis_suite(str(tmp_path)).cases})
    assert named[0] == named[1]
    assert set(named[0]) == {"camel-to-bear", "camel-to-bear-2"}


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    davis(tmp_path)
    write_table(tmp_path / "transfers.csv", [["Prompt", "Target", "Caption", "Reference"], LINE[::-1]], "|")
    assert davis_suite(str(tmp_path)).cases[0].prompt == LINE[3]


def test_a_sequence_is_shown_as_a_clip(tmp_path: Path) -> None:
    case = davis_suite(str(davis(tmp_path))).cases[0]
    shown = case.show(FORM)
    first, last = (fit_image(read_image(case.reference.path / f"{n:05d}.jpg"), HEIGHT, WIDTH) for n in (0, 11))
    assert shown.reference.frames.shape == (9, HEIGHT, WIDTH, 3) and shown.reference.fps == 8.0
    np.testing.assert_array_equal(shown.reference.frames[[0, -1]], [first, last])
    bear = tmp_path / "JPEGImages/480p/bear/00000.jpg"
    np.testing.assert_array_equal(shown.target, fit_image(read_image(bear), HEIGHT, WIDTH))


@pytest.mark.parametrize("change", ["other pictures", "one picture fewer", "another order"])
def test_other_pictures_are_another_reference(tmp_path: Path, change: str) -> None:
    before = davis_suite(str(davis(tmp_path))).cases[0]
    (before.reference.path / "notes.txt").write_text("no frame")
    (before.reference.path / ".hidden.jpg").write_text("no frame either")
    before.check()
    fifth, sixth, last = (before.reference.path / f"{number:05d}.jpg" for number in (5, 6, 11))
    if change == "other pictures":
        fifth.write_bytes(sixth.read_bytes())
    elif change == "another order":
        swapped = fifth.read_bytes()
        fifth.write_bytes(sixth.read_bytes())
        sixth.write_bytes(swapped)
    else:
        last.unlink()
    after = davis_suite(str(tmp_path)).cases[0]
    assert after.digests["reference"] != before.digests["reference"]
    assert after.digests["target"] == before.digests["target"]
    with pytest.raises(CaseError, match="JPEGImages/480p/camel: has changed since the suite was read"):
        before.check()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "transfers.csv is empty"),
        ([HEADING], "transfers.csv: names no transfer"),
        ([["a", "b", "c", "d"], LINE], "expected the heading reference,caption,target,prompt, got 'a,b,c,d'"),
        ([HEADING, [*LINE, "more"]], "line 2: expected 4 fields, got 5"),
        ([HEADING, ["camle", *LINE[1:]]], "transfer 1: there is no sequence camle in .*/JPEGImages/480p$"),
        ([HEADING, LINE, ["camel", "", "bear", ""]], "transfer 2: the caption is empty; .* 2: the prompt is empty$"),
        ([HEADING, ["camel", "x", "", "y"]], "transfer 1: the target is empty$"),
        ([HEADING, ["", "x", "bear", "y"]], "csv: transfer 1: the reference is empty$"),
        ([HEADING, ["camel", "x", "fox.png", "y"]], "transfer 1: fox.png is neither a sequence nor an image in"),
        ([HEADING, ["camel", "x", "../fox.png", "y"]], "transfer 1: ../fox.png leads out of the folder"),
        ([HEADING, ["camel", "x", "/etc/hostname", "y"]], "transfer 1: /etc/hostname leads out of the folder"),
        ([HEADING, ["..", "x", "bear", "y"]], "transfer 1: there is no sequence .. in"),
        ([HEADING, ["camel/..", "x", "bear", "y"]], "transfer 1: there is no sequence camel/.. in"),
        ([HEADING, ["camel", "x", "a long prompt " * 30, "y"]], "transfer 1: File name too long$"),
        ([HEADING, ["camel", "x", "empty", "y"]], "transfer 1: .*480p/empty: is a folder without pictures"),
        (
            [HEADING, ["empty", "x", "bear", "y"], ["camle", *LINE[1:]]],
            "transfer 1: .*/empty: is a folder without pictures.*: transfer 2: there is no sequence camle",
        ),
        ([HEADING, LINE, [*LINE[:3], "another prompt"]], "transfer 2: has the reference and target of transfer 1$"),
        (
            [HEADING, LINE, ["camel", "x", "JPEGImages/480p/bear/00000.jpg", "y"]],
            "transfer 2: has the reference and target of transfer 1$",
        ),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path: Path, rows: list, message: str) -> None:
    davis(tmp_path)
    (tmp_path / "JPEGImages/480p/empty").mkdir()
    write_table(tmp_path / "transfers.csv", rows)
    with pytest.raises(CaseError, match=message) as caught:
        davis_suite(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_without_a_table_it_is_said_what_to_write(tmp_path: Path) -> None:
    davis(tmp_path)
    (tmp_path / "transfers.csv").unlink()
    with pytest.raises(CaseError, match="transfers.csv is missing: write into it reference,caption,target,prompt and"):
        davis_suite(str(tmp_path))
    with pytest.raises(UsageError, match="holds no JPEGImages, as DAVIS does"):
        davis_suite(str(tmp_path / "images"))


def test_damaged_pictures_are_named_before_a_run(tmp_path: Path) -> None:
    suite = davis_suite(str(davis(tmp_path)))
    (tmp_path / "JPEGImages/480p/camel/00003.jpg").write_bytes(b"no picture")
    with pytest.raises(CaseError, match="camel/00003.jpg: not a readable image"):
        suite.check_readable(suite.case_ids)


def test_an_unreadable_sequence_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    davis(tmp_path)
    listed = Path.iterdir

    def iterdir(folder: Path) -> object:
        if folder.name == "camel":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # the tests may run as root, whom nothing is denied
    with pytest.raises(CaseError, match=r"transfer 1: .*/camel: cannot be read \(Permission denied\)"):
        davis_suite(str(tmp_path))


def test_a_plain_folder_may_hold_frames_in_place_of_a_video(tmp_path: Path) -> None:
    plain(tmp_path)
    write_pictures(tmp_path / "reference", num_frames=12)
    assert {case.reference.name for case in folder_suite(str(tmp_path)).cases} == {"reference.mp4"}
    (tmp_path / "reference.mp4").unlink()
    suite = folder_suite(str(tmp_path))
    assert {case.reference.name for case in suite.cases} == {"reference"}
    suite.check_readable(suite.case_ids)


@pytest.mark.parametrize(
    "text",
    [
        "reference;caption;target;prompt\ncamel;a camel walks;bear;a bear walks\n",
        "reference,caption,target,prompt,,\ncamel,a camel walks,bear,a bear walks,,\n",
        "sep=\t\r\nReference\tCaption\tTarget\tPrompt\r\ncamel\ta camel walks\tbear\ta bear walks\r\n",
        "\ufeffcaption; prompt; reference; target; licence\na camel walks; a bear walks; camel; bear; mine\n",
    ],
)
def test_a_table_may_come_from_any_spreadsheet(tmp_path: Path, text: str) -> None:
    davis(tmp_path)
    (tmp_path / "transfers.csv").write_text(text)
    case = davis_suite(str(tmp_path)).cases[0]
    assert (case.case_id, case.caption, case.prompt) == ("camel-to-bear", "a camel walks", "a bear walks")


def test_a_target_may_have_backslashes(tmp_path: Path) -> None:
    davis(tmp_path)
    write_table(tmp_path / "transfers.csv", [HEADING, ["camel", "a camel walks", "images\\fox.png", "a fox walks"]])
    case = davis_suite(str(tmp_path)).cases[0]
    assert (case.case_id, case.target_id) == ("camel-to-fox", "images/fox.png")
