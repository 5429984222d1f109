"""Data sets are listed, and what is wrong with one is said in one line before anything is encoded."""

import codecs
import os.path
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexiact.media.files import spelled
from flexiact.train_refadapter.clips import Clip, list_clips, some_of
from tests.support.clips import CAPTIONS, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "videos")


def table(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_folder_s_videos_have_their_captions_beside_them(folder: Path):
    clips = list_clips(folder)
    assert clips == [Clip(folder / f"{index}.mkv", caption) for index, caption in enumerate(CAPTIONS)]
    (folder / "0.txt").unlink()
    (folder / "2.txt").unlink()
    with pytest.raises(ValueError, match=r"^data: .* lacks 2 captions: 0.txt; 2.txt$"):
        list_clips(folder)


def test_a_folder_without_videos_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^data: .*no videos"):
        list_clips(tmp_path)
    with pytest.raises(ValueError, match=r"^data: .*\.csv"):
        list_clips(tmp_path / "missing")


def test_a_table_names_videos_in_its_folder(folder: Path):
    text = '\ufeffpath,caption\r\nvideos/1.mkv,"a dog, which jumps"\r\n\r\nvideos/0.mkv,\r\nvideos/1.mkv,again\r\n'
    clips = list_clips(table(folder.parent / "data.csv", text))
    assert [(clip.path.name, clip.caption) for clip in clips] == [
        ("1.mkv", "a dog, which jumps"),
        ("0.mkv", ""),
        ("1.mkv", "again"),
    ]
    assert all(clip.path.is_file() for clip in clips)


def test_all_missing_videos_are_counted(folder: Path):
    rows = ["videos/0.mkv,x", *(f"videos/none{index}.mkv,x" for index in range(7))]
    data = table(folder / "data.csv", "path,caption\n" + "\n".join(row.removeprefix("videos/") for row in rows))
    with pytest.raises(ValueError, match=r"^data: .* names 7 missing files: none0.mkv; .*none4.mkv; and 2 more$"):
        list_clips(data)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected the heading path,caption, got ''"),
        ("path\n0.mkv\n", "line 1: expected 2 fields, got 1"),
        ("file,caption\n0.mkv,x\n", "expected the heading path,caption, got 'file,caption'"),
        ("path,caption,Path\n0.mkv,x,1.mkv\n", "expected the heading"),
        ("path,caption\n", "names no videos"),
        ("path,caption\n0.mkv\n", "line 2: expected 2 fields, got 1"),
        ("path,caption\n0.mkv,a dog\n1.mkv,a dog, which jumps\n", "line 3: expected 2 fields, got 3"),
        ("path,caption\n,a dog\n", "line 2: '' leads out"),
        ("path,caption\n../0.mkv,a dog\n", "line 2: '../0.mkv' leads out"),
        ("path,caption\n/etc/passwd,a dog\n", "line 2: '/etc/passwd' leads out"),
        ("path,caption\nlink/0.mkv,a dog\n", "line 2: 'link/0.mkv' leads out"),
        ('path,caption\n"0.mkv,a dog\n', "cannot be read"),
        ('path,caption\n0.mkv,x\n1.mkv,"a dog\n', "line 3: a quotation mark is not closed"),
        ('sep=,\npath,caption\n\n1.mkv,"big" dog jumps\n', "line 4: a space or text follows a closing quotation mark"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(folder: Path, text: str, problem: str):
    (folder.parent / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(ValueError, match=problem) as refused:
        list_clips(table(folder / "data.csv", text))
    assert str(refused.value).startswith("data: ") and "\n" not in str(refused.value)


def test_text_that_is_no_utf_8_is_refused(folder: Path):
    (folder / "data.csv").write_bytes(b"path,caption\n0.mkv,\xff\n")
    with pytest.raises(ValueError, match=r"^data: .*cannot be read"):
        list_clips(folder / "data.csv")
    (folder / "0.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"^data: .*cannot be read"):
        list_clips(folder)


@given(st.lists(st.sampled_from(["..", ".", "a", "b"]), min_size=1, max_size=6))
def test_no_path_leads_out_of_the_table_s_folder(tmp_path_factory: pytest.TempPathFactory, steps: list[str]):
    data = table(tmp_path_factory.mktemp("tables") / "data.csv", f"path,caption\n{'/'.join(steps)},x\n")
    where = os.path.normpath("/".join(steps))
    outside = where == "." or where.startswith("..")
    with pytest.raises(ValueError, match="leads out" if outside else "missing files"):
        list_clips(data)


def test_long_lists_are_cut():
    assert some_of(["a", "b"]) == "a; b"
    assert some_of(list("abcdef")) == "a; b; c; d; e; and 1 more"


HEADINGS = {
    "plain": "path,caption\nvideos/1.mkv,a dog\n",
    "semicolons": "path;caption\nvideos/1.mkv;a dog\n",
    "tabs": "path\tcaption\nvideos/1.mkv\ta dog\n",
    "bars": "path|caption\nvideos/1.mkv|a dog\n",
    "named separator": "sep=;\r\npath;caption\r\nvideos/1.mkv;a dog\r\n",
    "capitals": "Path,CAPTION\nvideos/1.mkv,a dog\n",
    "spaces": 'path, caption\nvideos/1.mkv, "a dog"\n',
    "order": "caption,path\na dog,videos/1.mkv\n",
    "further": "fps,path,length,caption\n8,videos/1.mkv,3,a dog\n",
    "trailing": "path,caption,,\nvideos/1.mkv,a dog,,\n",
    "ragged": "path,caption\nvideos/1.mkv,a dog,,\n,,\n",
    "backslashes": "path,caption\nvideos\\1.mkv,a dog\n",
    "old Mac": "path,caption\rvideos/1.mkv,a dog\r",
    "Windows": "\ufeffPath;Caption;\r\nvideos\\1.mkv;a dog;\r\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", HEADINGS)
def test_a_table_may_come_from_any_spreadsheet(folder: Path, kind: str, encoding: str, capsys) -> None:
    data = folder.parent / "data.csv"
    data.write_bytes(HEADINGS[kind].removeprefix("\ufeff").encode(encoding))
    assert list_clips(data) == [Clip(folder / "1.mkv", "a dog")]
    said = capsys.readouterr().err
    assert said == (f"note: {data} has columns that are not read: fps, length\n" if kind == "further" else "")


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_may_be_written_as_macs_do(folder: Path, stored: str, written: str) -> None:
    name = "caf\u00e9.mkv"
    (folder / "1.mkv").rename(folder / unicodedata.normalize(stored, name))
    data = table(folder.parent / "data.csv", f"path,caption\nvideos/{unicodedata.normalize(written, name)},a dog\n")
    assert list_clips(data)[0].path.is_file()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_caption_s_byte_order_mark_is_no_part_of_it(folder: Path, encoding: str) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    (folder / "1.txt").write_bytes(mark + "ein Hund springt \u00fcber\r\n".encode(encoding))
    assert list_clips(folder)[1].caption == "ein Hund springt \u00fcber"


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        ("\ufeff\ufeffa dog", "a dog"),
        ("\ufeffa dog\n\ufeffjumps", "a dog\njumps"),
        ("\u200b a dog\u200b\n", "a dog"),
        ("\ufeff\u200b\n", ""),
    ],
)
def test_what_nobody_sees_is_no_part_of_a_caption(folder: Path, content: str, caption: str) -> None:
    (folder / "1.txt").write_bytes(content.encode())
    assert list_clips(folder)[1].caption == caption


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("ein Hund springt \u00fcber".encode("cp1252"), "is not in UTF-8, from byte 17 on"),
        ("a dog".encode("utf-16-le"), "is not in UTF-8, since it holds zero bytes"),
        (rb"{\rtf1\ansi a dog}", "is rich text; save it as plain text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"Entry not found", "is a server's error message"),
        (
            b"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>AccessDenied",
            "is a server's error message",
        ),
        (b"/annex/objects/SHA256E-s5--0.txt\n", "git annex get"),
        (b"../../.git/annex/objects/0/1/SHA256E-s5--0.txt", "git annex get"),
        (b"PK\3\4\x14\0\6\0", "is a spreadsheet"),
    ],
)
def test_what_is_no_plain_text_is_no_caption_and_no_table(folder: Path, content: bytes, says: str) -> None:
    for path in (folder / "1.txt", folder / "data.csv"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^data: .*{re.escape(path.name)}.*{says}") as refused:
            list_clips(path if path.suffix == ".csv" else folder)
        assert "\n" not in str(refused.value)


def test_utf_32_is_read_by_its_mark(folder: Path) -> None:
    (folder / "1.txt").write_bytes("ein Hund springt \u00fcber".encode("utf-32"))
    assert list_clips(folder)[1].caption == "ein Hund springt \u00fcber"


@pytest.mark.parametrize("caption", ["1.TXT", "1.Txt"])
def test_a_caption_may_have_capitals_in_its_name(folder: Path, caption: str) -> None:
    (folder / "1.txt").rename(folder / caption)
    assert [clip.caption for clip in list_clips(folder)] == list(CAPTIONS)


def test_a_caption_s_accents_may_be_stored_as_macs_do(folder: Path) -> None:
    (folder / "1.mkv").rename(folder / unicodedata.normalize("NFD", "1\u00e9.mkv"))
    (folder / "1.txt").rename(folder / "1\u00e9.txt")
    assert [clip.caption for clip in list_clips(folder)] == list(CAPTIONS)


def test_texts_whose_video_is_not_read_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "4.gif").write_bytes(b"GIF89a")
    (folder / "4.txt").write_text("a cat")
    assert len(list_clips(folder)) == 3
    assert capsys.readouterr().err == f"note: {folder} has texts without a video that is read: 4.txt\n"


@pytest.mark.parametrize("written", ["Videos/1.MKV", "videos\\1.MKV", "./videos//1.mkv", "{root}/videos/1.mkv"])
def test_a_path_may_be_written_as_on_other_systems(folder: Path, written: str) -> None:
    root = folder.parent
    assert spelled(root, written.format(root=root)) in {"videos/1.mkv", "./videos//1.mkv"}
    assert list_clips(table(root / "data.csv", f"path,caption\n{written.format(root=root)},a dog\n"))[0].path.is_file()


def test_a_path_that_fits_two_files_is_not_guessed(folder: Path) -> None:
    (folder / "a.mkv").touch()
    (folder / "A.mkv").touch()
    assert spelled(folder, "a.mkv") == "a.mkv"
    assert spelled(folder, "a.MKV") == "a.MKV"


def test_a_folder_whose_videos_are_not_read_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("more/deep/9.mkv", "@eaDir/9.mkv", "notes/9.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    assert len(list_clips(folder)) == 3
    assert capsys.readouterr().err == f"note: {folder} has folders whose videos are not read: more\n"


@pytest.mark.parametrize(
    "written", ["nan", "NaN", "#N/A", "<NA>", "None", "NULL", "n/a", r"\N", "#NV", "#N/D", "#N/B", "\u200b", "\ufeff"]
)
def test_what_programs_write_for_nothing_is_no_caption(folder: Path, written: str) -> None:
    data = table(folder.parent / "data.csv", f"path,caption\nvideos/1.mkv,{written}\nvideos/0.mkv,nana jumps\n")
    assert [clip.caption for clip in list_clips(data)] == ["", "nana jumps"]


@pytest.mark.parametrize("written", ["#NAME?", "#BEZUG!", "#DIV/0!", "Err:508"])
def test_a_formula_that_failed_is_no_caption(folder: Path, written: str) -> None:
    data = table(folder.parent / "data.csv", f"path,caption\nvideos/1.mkv,{written}\n")
    with pytest.raises(ValueError, match=f"line 2: {re.escape(written)} is an error of the spreadsheet"):
        list_clips(data)


@pytest.mark.parametrize("name", ["._0.mkv", ".hidden.mp4", "._more.mov", "~$0.mkv"])
def test_what_systems_leave_behind_is_left_alone(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\0\5\x16\7")
    assert [clip.path.name for clip in list_clips(folder)] == ["0.mkv", "1.mkv", "2.mkv"]
