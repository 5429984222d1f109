"""Suites of real material: the authors' benchmark folder and plain folders, found, refused and read."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.planning.selection import UsageError
from benchmark.stages.describe import describe_run
from benchmark.suites.case import CaseError, Format
from benchmark.suites.file_cases import unique_names
from benchmark.suites.flexiact import flexiact_suite, read_benchmark
from benchmark.suites.folder import folder_suite
from benchmark.suites.reading import read_reference
from flexiact.media.files import MediaError
from flexiact.media.image import fit_image, read_image
from flexiact.media.video import read_clip, read_video
from tests.support.backbones import HEIGHT, WIDTH
from tests.support.harness import CASES
from tests.support.real_material import official, plain, write_clip, write_image, write_table

FORM = Format(9, HEIGHT, WIDTH, 8.0)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


# --------------------------------------------------------------------------------------------- the authors' folder


@pytest.mark.parametrize("heading", [True, False])
@pytest.mark.parametrize("separator", [",", "|"])
@pytest.mark.parametrize(("top", "crop"), [("target_images", "_crop"), ("target_image", "")])
def test_both_layouts_give_one_case_an_action_and_image(
    tmp_path: Path, top: str, crop: str, heading: bool, separator: str
) -> None:
    suite = flexiact_suite(str(official(tmp_path, top, crop, heading, separator)))
    assert suite.name == "flexiact"
    assert suite.case_ids == ("animal-dogjump-to-bird1", "human-chest-to-girl_1", "human-chest-to-knight")
    case = suite.cases[1]
    assert (case.action, case.reference_id, case.frames) == ("chest", "human-chest", (0, 9))
    assert case.caption == "A subject does chest, slowly."
    assert case.prompt == 'A target does chest, "well".'
    assert case.reference.name == f"reference_videos/human/chest{crop}/0.mp4"  # not the first row, which is crop 10
    assert case.target_id == f"{top}/human/girl_1.webp"
    assert case.licence == "apache-2.0"
    assert len({case.digests["reference"] for case in suite.cases}) == 2


@pytest.mark.parametrize("written", [("target_image", "_crop"), ("target_images", "")])
@pytest.mark.parametrize("there", [("target_image", "_crop"), ("target_images", "")])
def test_folders_may_be_spelt_otherwise_than_the_tables_say(
    tmp_path: Path, written: tuple[str, str], there: tuple[str, str]
) -> None:
    root = official(tmp_path / "there", *there)
    shutil.rmtree(root / "captions")
    shutil.move(official(tmp_path / "written", *written) / "captions", root / "captions")
    suite = flexiact_suite(str(root))
    assert len(suite.cases) == 3
    assert all(case.reference.path.is_file() and case.target.path.is_file() for case in suite.cases)


def test_the_folder_around_it_will_do(tmp_path: Path) -> None:
    official(tmp_path / "benchmark")
    for clutter in ("__MACOSX/human", "human/@eaDir", "@eaDir/human"):
        (tmp_path / "benchmark/captions" / clutter).mkdir(parents=True)
    assert len(flexiact_suite(str(tmp_path)).cases) == 3


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no captions/SCENARIO/ACTION"):
        flexiact_suite(str(tmp_path))


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    official(tmp_path)
    gone = ["captions/animal/dogjump/val_image.csv", "reference_videos/human/chest_crop/0.mp4"]
    gone += ["target_images/human/knight.png"]
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(CaseError) as caught:
        flexiact_suite(str(tmp_path))
    assert all(f"{name} is missing" in str(caught.value) for name in gone)
    assert "\n" not in str(caught.value)


def test_of_many_missing_files_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    official(tmp_path)
    rows = [["path", "caption"], *([f"target_image/human/{number}.png", "x"] for number in range(13))]
    write_table(tmp_path / "captions/human/chest/val_image.csv", rows)
    with pytest.raises(CaseError, match="9.png is missing; and 3 more like these$"):
        flexiact_suite(str(tmp_path))


@pytest.mark.parametrize("table", ["crop.csv", "val_image.csv"])
@pytest.mark.parametrize("path", ["../secret.png", "benchmark/target_images/../../secret.png", "/etc/hostname"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, table: str, path: str) -> None:
    root = official(tmp_path / "data")
    write_image(tmp_path / "secret.png", 0)
    rows = [["path", "caption"], [path, "x"]] if table == "val_image.csv" else [[path, 0, 9, 8, 2, "x"]]
    write_table(root / "captions/human/chest" / table, rows)
    with pytest.raises(CaseError, match=f"captions/human/chest/{table}: {path} leads out of the folder"):
        flexiact_suite(str(root))


def test_an_absolute_path_inside_the_folder_is_taken(tmp_path: Path) -> None:
    root = official(tmp_path)
    table = root / "captions/animal/dogjump/val_image.csv"
    write_table(table, [["path", "caption"], [root / "target_images/animal/bird1.jpg", "a bird"]])
    assert flexiact_suite(str(root)).cases[0].target_id == "target_images/animal/bird1.jpg"


def test_paths_of_the_tables_may_be_written_as_on_other_systems(tmp_path: Path) -> None:
    written = flexiact_suite(str(official(tmp_path)))
    for table in tmp_path.glob("captions/*/*/*.csv"):
        text = table.read_text().replace("benchmark/reference_videos/", "Benchmark\\Reference_Videos\\")
        table.write_text(text.replace("/", "\\").replace(".png", ".PNG").replace("target_images", "Target_Image"))
    assert flexiact_suite(str(tmp_path)).cases == written.cases


def test_a_reference_other_than_video_0_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = official(tmp_path) / "captions/human/chest/crop.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if "/0.mp4" not in line))
    assert flexiact_suite(str(tmp_path)).cases[1].reference.name == "reference_videos/human/chest_crop/10.mp4"
    said = "has no row of video 0; benchmark/reference_videos/human/chest_crop/10.mp4 is the reference"
    assert f"note: {table} {said}\n" in capsys.readouterr().err


def test_the_authors_crops_come_with_the_reference_if_all_are_there(tmp_path: Path) -> None:
    root, form = official(tmp_path), Format(9, 32, 48, 8.0)
    case = flexiact_suite(str(root)).cases[0]
    folder = root / "reference_videos/animal/dogjump_crop"
    write_clip(folder / "10.mp4", seed=7)
    changed = flexiact_suite(str(root)).cases[0]
    assert changed.digests["reference"] != case.digests["reference"]
    with pytest.raises(CaseError, match="10.mp4: has changed"):
        case.check()
    shown = changed.show(form)
    whole, crops = shown.for_fit(with_crops=False), shown.for_fit(with_crops=True).crops
    assert whole.crops == () and len(crops) == 2
    for crop, name in zip(crops, ("10.mp4", "0.mp4"), strict=True):
        np.testing.assert_array_equal(crop, read_clip(folder / name, 9, 32, 48).frames)
    np.testing.assert_array_equal(crops[1], whole.frames)
    (folder / "10.mp4").unlink()
    assert flexiact_suite(str(root)).cases[0].show(form).read_crops is None


@pytest.mark.parametrize(("num_frames", "taken"), [(9, True), (40, False)])
def test_the_uncropped_reference_is_taken_unless_it_is_untrimmed(tmp_path: Path, num_frames: int, taken: bool) -> None:
    official(tmp_path)
    write_clip(tmp_path / "reference_videos/human/chest.mp4", num_frames)
    case = flexiact_suite(str(tmp_path)).cases[1]
    name = "reference_videos/human/chest.mp4" if taken else "reference_videos/human/chest_crop/0.mp4"
    assert (case.reference.name, case.frames) == (name, None if taken else (0, 9))


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("crop.csv", [], "captions/human/chest/crop.csv is empty"),
        ("crop.csv", [["a", "b"]], "crop.csv: line 1: expected 6 fields, got 2"),
        ("crop.csv", [["reference_videos/human/chest_crop/0.mp4", 0, 1, 8, 2, "x"]], "expected whole numbers"),
        ("crop.csv", [["reference_videos/human/chest_crop/0.mp4", 0, 9, 0, 2, "x"]], "expected whole numbers"),
        ("crop.csv", [["reference_videos/human/chest_crop/0.mp4", 0, 9, 8, 2, " "]], "the caption of .* is empty"),
        ("val_image.csv", [["image", "text"], ["a", "b"]], "expected a heading with path and caption, got image, text"),
        ("val_image.csv", [["path", "caption"]], "names no image"),
        ("val_image.csv", [["path", "caption", "Path"], ["a", "b", "c"]], "expected a heading with path and caption"),
        ("val_image.csv", [["path", "caption"], ["", "x"]], "a path is empty"),
        ("val_image.csv", [["path", "caption"], ["target_image/human/knight.png", ""]], "the caption of .* is empty"),
        ("val_image.csv", [["path", "caption"], ["a", "b", "c"]], "line 2: expected 2 fields, got 3"),
        ("val_image.csv", [["path", "caption"], *[["target_image/human/knight.png", "x"]] * 2], "is there twice"),
    ],
)
def test_a_table_that_says_too_little_is_named(tmp_path: Path, table: str, rows: list, message: str) -> None:
    official(tmp_path)
    write_table(tmp_path / "captions/human/chest" / table, rows)
    with pytest.raises(CaseError, match=message):
        flexiact_suite(str(tmp_path))


def test_material_without_a_card_states_no_licence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    official(tmp_path)
    flexiact_suite(str(tmp_path))
    assert "licence of the material by its dataset card: apache-2.0" in capsys.readouterr().err
    (tmp_path / "README.md").unlink()
    assert read_benchmark(tmp_path, "here").cases[0].licence == "not stated"


@pytest.mark.parametrize("place", ["hub", "hub@main", "hub@abc"])
def test_the_hub_wants_a_commit(place: str) -> None:
    with pytest.raises(UsageError, match="flexiact:hub@COMMIT"):
        flexiact_suite(place)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the model hub on a machine without network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_network_the_hub_says_what_to_do(offline: Path) -> None:
    with pytest.raises(UsageError, match="is not in the cache and cannot be fetched.*give the folder") as caught:
        flexiact_suite(f"hub@{COMMIT}")
    assert "\n" not in str(caught.value)


def test_what_was_fetched_before_is_read_from_the_cache(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = offline / "datasets--shiyi0408--FlexiAct"
    stored, snapshot = official(repository / "blobs"), repository / "snapshots" / COMMIT
    for path in [path for path in stored.rglob("*") if path.is_file()]:  # the cache holds links that lead out of it
        link = snapshot / path.relative_to(stored)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    suite = flexiact_suite(f"hub@{COMMIT}")
    assert f"note: {snapshot} is read as it is: the cache does not say if files are missing" in capsys.readouterr().err
    assert len(suite.cases) == 3
    assert suite.cases[0].source == f"huggingface.co/datasets/shiyi0408/FlexiAct@{COMMIT}"


# -------------------------------------------------------------------------------------------------- a plain folder


def test_a_plain_folder_gives_a_case_an_image(tmp_path: Path) -> None:
    suite = folder_suite(str(plain(tmp_path / "my clips")))
    assert (suite.name, suite.case_ids) == ("folder-my-clips", ("cat", "dog"))
    cat = suite.cases[0]
    assert (cat.caption, cat.prompt, cat.frames) == ("a red figure waves", "a cat waves", None)
    assert (cat.reference.name, cat.target_id) == ("reference.mp4", "images/cat.png")


def test_texts_may_have_other_capitals_and_accents_than_their_files(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "reference.txt").rename(tmp_path / "Reference.TXT")
    (tmp_path / "images/cat.png").rename(tmp_path / "images/CAFE\u0301.PNG")
    (tmp_path / "images/cat.txt").rename(tmp_path / "images/caf\u00e9.txt")
    (tmp_path / "images/CAFE\u0301.AAE").touch()  # what an iPhone writes beside an edited photo
    suite = folder_suite(str(tmp_path))
    assert [(case.case_id, case.prompt) for case in suite.cases] == [
        ("CAF\u00c9", "a cat waves"),
        ("dog", "a dog waves"),
    ]
    assert suite.cases[0].caption == "a red figure waves"


def test_missing_texts_are_all_named_with_what_to_write(tmp_path: Path) -> None:
    plain(tmp_path)
    for name in ("reference.txt", "images/cat.txt"):
        (tmp_path / name).unlink()
    (tmp_path / "images/dog.txt").write_bytes("\ufeff\u200b \n".encode())
    with pytest.raises(CaseError) as caught:
        folder_suite(str(tmp_path))
    said = str(caught.value)
    assert "reference.txt is missing or empty: write into it what reference.mp4 shows" in said
    assert "images/cat.txt is missing or empty: write into it what the video of cat.png shall show" in said
    assert "images/dog.txt is missing or empty" in said


def test_texts_without_an_image_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plain(tmp_path) / "images/cat.png").rename(tmp_path / "images/.cat.png.icloud")
    (tmp_path / "images/more").mkdir()
    (tmp_path / "images/@eaDir").mkdir()
    assert folder_suite(str(tmp_path)).case_ids == ("dog",)
    said = "has texts or folders that belong to no image: cat.txt, more"
    assert capsys.readouterr().err == f"note: {tmp_path / 'images'} {said}\n"


def test_an_empty_folder_lacks_everything_and_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="reference.mp4, or .* missing; images/ holds no image; reference.txt is"):
        folder_suite(str(tmp_path))
    with pytest.raises(UsageError, match="there is no folder"):
        folder_suite(str(tmp_path / "nowhere"))


def test_names_are_fit_for_files_and_unique() -> None:
    assert unique_names(["a b", "a/b", "..", "a-b", "é"]) == ["a-b", "a-b-2", "unnamed", "a-b-3", "é"]


# ----------------------------------------------------------------------------------------------- what a case shows


def test_files_are_shown_as_the_single_video_command_reads_them(tmp_path: Path) -> None:
    case = folder_suite(str(plain(tmp_path))).cases[0]
    shown = case.show(FORM)
    whole = read_video(tmp_path / "reference.mp4").frames
    chosen = np.rint(np.linspace(0, 11, 9)).astype(int)
    np.testing.assert_array_equal(shown.reference.frames, [fit_image(whole[i], HEIGHT, WIDTH) for i in chosen])
    assert shown.reference.fps == FORM.fps
    np.testing.assert_array_equal(shown.target, fit_image(read_image(tmp_path / "images/cat.png"), HEIGHT, WIDTH))
    shown.target[:] = 0  # a method may do this; nobody else may notice
    assert case.show(FORM).target.any()


def test_only_the_named_frames_of_a_reference_are_shown(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", num_frames=20)
    whole = read_video(tmp_path / "a.mp4").frames
    shown = read_reference(tmp_path / "a.mp4", (5, 14), FORM)
    np.testing.assert_array_equal(shown.frames, [fit_image(frame, HEIGHT, WIDTH) for frame in whole[5:14]])
    with pytest.raises(MediaError, match="frames 5 to 21 are asked for, it has 20"):
        read_reference(tmp_path / "a.mp4", (5, 21), FORM)


def test_another_part_of_a_reference_is_another_reference(tmp_path: Path) -> None:
    case = folder_suite(str(plain(tmp_path))).cases[0]
    assert replace(case, frames=(0, 9)).digests["reference"] != case.digests["reference"]
    assert replace(case, frames=(0, 9)).digests["target"] == case.digests["target"]


def test_the_length_of_a_reference_is_described_as_it_is_read(tmp_path: Path) -> None:
    case = folder_suite(str(plain(tmp_path))).cases[0]  # twelve frames at 8 a second
    assert case.describe()["files"]["reference"]["duration_s"] == pytest.approx(11 / 8)
    assert replace(case, frames=(2, 7)).describe()["files"]["reference"]["duration_s"] == pytest.approx(4 / 8)
    with pytest.raises(MediaError, match="frames 2 to 13 are asked for, it has 12"):
        replace(case, frames=(2, 13)).describe()


def test_damaged_files_are_all_named(tmp_path: Path) -> None:
    suite = folder_suite(str(plain(tmp_path)))
    suite.check_readable(suite.case_ids)
    for name in ("reference.mp4", "images/dog.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(CaseError, match="reference.mp4: .*; .*dog.jpg: not a readable image"):
        suite.check_readable(suite.case_ids)


def test_puppets_and_files_do_not_mix(tmp_path: Path, backbone) -> None:
    case = folder_suite(str(plain(tmp_path))).cases[0]
    with pytest.raises(ValueError, match="cases: puppets and files cannot share a run"):
        describe_run({"suite": "both"}, [case, CASES[0]], [0], backbone, {}, {})


@pytest.mark.parametrize("name", ["reference.mov", "reference.webm", "reference.MP4", "Reference.gif", "reference.m4v"])
def test_a_reference_may_have_any_suffix(tmp_path: Path, name: str) -> None:
    plain(tmp_path)
    (tmp_path / "reference.mp4").rename(tmp_path / name)
    beside = ("._reference.mov", "reference.AAE", "Reference.xmp", "reference.mov:Zone.Identifier")
    for clutter in (*beside, "images/Thumbs.db", "images/ehthumbs.db", "images/._cat.png", "images/desktop.ini"):
        (tmp_path / clutter).write_bytes(b"clutter")
    suite = folder_suite(str(tmp_path))
    assert {case.reference.name for case in suite.cases} == {name} and len(suite.cases) == 2
    suite.check_readable(suite.case_ids)
    (tmp_path / "reference.avi").touch()
    with pytest.raises(CaseError, match=r"several references, .* and .*: leave one"):
        folder_suite(str(tmp_path))


def test_what_is_cut_away_is_said_of_every_file(tmp_path: Path) -> None:
    case = folder_suite(str(plain(tmp_path))).cases[0]
    assert case.losses(FORM) == []
    said = case.losses(replace(FORM, height=96, width=24))
    assert [Path(where).name for where, _ in said] == ["reference.mp4", "cat.png"]
    assert all("is 72 x 48: 83% of it is cut away" in what for _, what in said)
