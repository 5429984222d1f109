"""Make folders, write files atomically, and read texts, JSON and tensors."""

import codecs
import errno
import filecmp
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexiact.terminal.cli import one_line

if TYPE_CHECKING:
    from torch import Tensor


TEXT_LIMIT_MIB = 16
"""Size from which on a text file is refused: tables and prompts are far smaller."""


class MediaError(ValueError):
    """A video or image that cannot be read; the message is one line and names the file."""


class WriteError(ValueError):
    """A file that cannot be written; the message is one line and names it."""


_CLUTTER = re.compile(
    r"\..*|~\$.*|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|__macosx|@eadir|.*:zone\.identifier.*", re.DOTALL
)
_SIDECARS = {".aae", ".thm", ".xmp"}  # what phones, cameras and editors write beside a picture
_ENCODINGS = {  # by the byte order mark; that of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TEXT = {
    b"{\\rtf": "is rich text; save it as plain text",
    b"PK\3\4": "is a spreadsheet or another archive; save it as CSV in UTF-8",
}
_NOT_FETCHED = {  # a link to git-annex is a text on systems that know no links
    rb"version https://git-lfs": "only points to its content; fetch it with `git lfs pull`",
    rb"(\.\./)*(\.git)?/?annex/objects/": "only points to its content; fetch it with `git annex get`",
    rb"<!doctype html|<html": "is a web page, as a failed download leaves; fetch it again",
    rb"(<\?xml[^>]*>\s*)?<error>": "is a server's error message, as a failed download leaves; fetch it again",
    rb"entry not found|404: not found": "is a server's error message, as a failed download leaves; fetch it again",
}
_UNSEEN = r"[\s\u200b-\u200f\u2060]+"  # spaces, and marks without a width


def is_clutter(path: Path) -> bool:
    """True for files that systems add to users' folders: hidden ones, `._NAME` on Macs, thumbnails, sidecars."""
    return bool(_CLUTTER.fullmatch(path.name.lower())) or path.suffix.lower() in _SIDECARS


def no_content(path: Path) -> str:
    """Problem of a file that is empty or holds a stand-in for its content, and the remedy; "" if there is none.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(64)
    return _stand_in(start) if start else "is empty, cut short by a failed copy; fetch it again"


def _stand_in(start: bytes) -> str:
    begins = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((what for mark, what in _NOT_FETCHED.items() if re.match(mark, begins)), "")


def read_text(path: Path) -> str:
    """Read a text file by its byte order mark, otherwise as UTF-8; accents are composed (NFC).

    Byte order marks are left out, also within the text, where joined files have them.

    Raises:
        OSError: If the file cannot be read, is larger than `TEXT_LIMIT_MIB`, or is no such text.
    """
    content = limited_bytes(path, TEXT_LIMIT_MIB)
    wrong = _stand_in(content[:64]) or next((what for mark, what in _NO_TEXT.items() if content.startswith(mark)), "")
    if wrong:
        raise OSError(f"{path.name} {wrong}")
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise OSError(f"{path.name} is not in UTF-8, from byte {error.start} on; save it so") from error
    if "\0" in text:  # above all UTF-16 without its mark
        raise OSError(f"{path.name} is not in UTF-8, since it holds zero bytes; save it so")
    return unicodedata.normalize("NFC", text.replace("\ufeff", ""))


def trimmed(text: str) -> str:
    """A text without space and other unseen characters at its ends."""
    return re.sub(rf"\A{_UNSEEN}|{_UNSEEN}\Z", "", text)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a text file.

    Raises:
        OSError: If the file cannot be read (ValueError: if it holds no JSON object); the message names it.
    """
    if problem := no_content(path):
        raise OSError(f"{path.name} {problem}")
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON or cut short ({one_line(error)}); write or fetch it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object; write or fetch it again")
    return found


def limited_bytes(path: Path, most_mib: int) -> bytes:
    """Content of a file of at most so many MiB.

    Raises:
        OSError: If the file cannot be read or is larger.
    """
    with path.open("rb") as file:
        content = file.read(most_mib * 2**20 + 1)
    if len(content) > most_mib * 2**20:
        raise OSError(errno.EFBIG, f"larger than {most_mib} MiB", str(path))
    return content


def is_file(path: Path) -> bool:
    """True if there is a file; False also for a path that no file can have, such as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def spelled(root: Path, written: str) -> str:
    """Find the spelling on disk, relative to a folder, of a path from a table: other slashes, accents or capitals.

    Windows separates with backslashes and disregards capitals; Macs store an accent as a separate character. A path
    that fits nothing, or several files alike, is returned with slashes.
    """
    slashed = written.replace("\\", "/")
    for top in (root.absolute(), root.resolve()):
        if slashed.startswith(f"{top.as_posix()}/"):
            slashed = written = slashed.removeprefix(f"{top.as_posix()}/")
    if is_file(root / written):
        return written
    parts = slashed.split("/")
    if ".." in parts or slashed.startswith("/"):
        return slashed
    folder = root
    for part in parts:
        folder = in_folder(folder, part)
    return folder.relative_to(root).as_posix() if is_file(folder) else slashed


def in_folder(folder: Path, name: str) -> Path:
    """Path of a name in a folder: as written, or the one that differs in capitals and composed accents alone."""
    path = folder / name
    try:
        if path.exists():
            return path
        same = [found for found in os.listdir(folder) if _plain(found) == _plain(name)]
    except OSError:  # no folder, or a name that is too long
        return path
    return folder / same[0] if len(same) == 1 else path


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def make_folder(name: str, folder: Path) -> Path:
    """Make a folder and check that it can be written to, before any expensive work.

    Raises:
        ValueError: If the folder cannot be made or written to; the message begins with `name`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name}: no folder can be made at {folder} ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{name}: {folder} cannot be written to")
    return folder


@contextmanager
def replacing(path: Path, keeps_equal: bool = False) -> Iterator[Path]:
    """Yield a path to write to; move the file to `path` on success, remove it otherwise.

    With `keeps_equal` a file is left alone that already has this content.

    Raises:
        WriteError: If the file cannot be written.
    """
    # Machines that share a folder may write the same file, and have equal process ids.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        if not (keeps_equal and path.is_file() and filecmp.cmp(partial, path, shallow=False)):
            os.replace(partial, path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """Tensors and header of a safetensors file.

    Raises:
        OSError: If the file cannot be read or is damaged; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    if problem := no_content(path):
        raise OSError(f"{path.name} {problem}")
    try:
        with safe_open(path, "pt") as file:
            # Copied, because tensors at odd addresses in the file would give products with other last bits.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise OSError(f"{path.name} is cut short or damaged ({one_line(error)}); fetch it again") from error
