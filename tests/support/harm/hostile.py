"""Hostile texts and bytes, and a watch over what reading them touches."""

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy

from tests.support.quick_help import ROOT

SECRET = "secret.mkv"
"""Name of a file beside the folder that may be read."""

_NASTY = (
    *("", " ", "\0", "a\0b", "\n", "\r\n", "\ufeff", "..", ".", "/", "//", "\\", "C:\\x", "~", "-", "--out", "%s%n"),
    *("../" + SECRET, "../" * 9 + "etc/passwd", "/etc/passwd", "..\\" + SECRET, "file:///etc/passwd", "concat:a|b"),
    *("link.mp4", "link.png", "ring", "folder-link/" + SECRET, "NaN", "inf", "-1", "1e999", "9" * 5000, "0x10"),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "${x}", "';--", "=1+1", "a,b", '"'),
    *("ünïcödé", "\u202eabc", "\u0301" * 50, "👩‍👩‍👧" * 9, "ﷺ", "𝔘", "\x1b[31m", "con.png", "a" * 300, "x/" * 3000),
)
_DEEP_LIST, _DEEP_OBJECT = "@deep list@", "@deep object@"
_OPENS = ("open", "os.listdir", "os.scandir")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
_RUNS = (
    *("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen"),
    *("socket.connect", "urllib.Request"),
)
_watched: list[tuple[Path, list[str]]] = []


def text(random: Random, longest: int = 2**20) -> str:
    """A text of any length up to `longest`; most are short."""
    short = random.choice(_NASTY)
    if random.random() < 0.4:
        top = random.choice((0x7F, 0x2FF, 0x10FFFF))
        letters = (chr(random.randrange(top)) for _ in range(random.randrange(20)))
        short = "".join(letter for letter in letters if not "\ud800" <= letter <= "\udfff")
    times = random.choice((2, 1000, 10**6)) if random.random() < 0.2 else 1
    return ((short or "x" * (times > 1)) * times)[:longest]


def value(random: Random) -> Any:
    """A value of JSON and TOML of any kind."""
    plain = (None, True, random.randrange(-9, 9), -(2**63), 10**400, random.uniform(-9, 9), 1e308, math.nan, "0" * 64)
    kind = random.randrange(6)
    if kind == 0:
        return [random.choice(plain) for _ in range(random.randrange(4))]
    if kind == 1:
        return {text(random, 50): random.choice(plain) for _ in range(random.randrange(4))}
    if kind == 2:
        return random.choice((_DEEP_LIST, _DEEP_OBJECT))
    return text(random, 2000) if kind == 3 else random.choice(plain)


def as_json(value: Any) -> str:
    """Text of a JSON value; two of `value` become deep nests."""
    written = json.dumps(value).replace(f'"{_DEEP_LIST}"', "[" * 5000 + "]" * 5000)
    return written.replace(f'"{_DEEP_OBJECT}"', '{"a":' * 900 + "1" + "}" * 900)


def changed(old: Any, random: Random) -> Any:
    """A JSON value with one of its parts, at any depth, replaced, renamed or taken out."""
    if not old or not isinstance(old, dict | list) or random.random() < 0.2:
        return value(random)
    if isinstance(old, list):
        place = random.randrange(len(old))
        return [*old[:place], changed(old[place], random), *old[place + 1 :]]
    name, kind = random.choice(sorted(old)), random.randrange(10)
    rest = {key: one for key, one in old.items() if key != name}
    if kind == 0:
        return rest
    return rest | {text(random, 50) if kind == 1 else name: changed(old[name], random)}


def damaged(content: bytes, random: Random) -> bytes:
    """Bytes that were cut short, flipped, doubled, overwritten, or are others altogether."""
    if random.random() < 0.05:
        return random.randbytes(random.randrange(200))
    made = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place, length = random.randrange(max(1, len(made))), random.choice((1, 2, 4, 8, 64))
        kind = random.randrange(7)
        if kind == 0:
            del made[place:]
        elif kind == 1:
            del made[place : place + length]
        elif kind == 2 and made:
            made[place] ^= 1 << random.randrange(8)
        elif kind == 3:
            made[place : place + length] = random.choice((b"\xff", b"\0", b"\x7f", b"[")) * length
        elif kind == 4:
            made[place:place] = made[max(0, place - length) : place]
        elif kind == 5:
            made[place:place] = random.randbytes(random.randrange(20))
        else:
            made[place : place + length] = random.randbytes(length)
    return bytes(made)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    folder, seen = _watched[-1]
    if event in _RUNS:
        seen.append(f"{event} {arguments!r:.200}")
    elif event in _CHANGES or (event in _OPENS and arguments and isinstance(arguments[0], str | bytes | os.PathLike)):
        path = Path(os.fsdecode(arguments[0])).absolute()
        writes = event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 3)
        if not _allowed(path, folder, writes):
            seen.append(f"{event} {path}")


def _allowed(path: Path, folder: Path, writes: bool) -> bool:
    if Path(os.path.normpath(path)).is_relative_to(folder) or ".hypothesis" in path.parts:
        return True
    own = (Path(sys.prefix), Path(sys.base_prefix), Path(numpy.__file__).parents[1], ROOT, Path("/proc"), Path("/sys"))
    imports = str(path) in sys.path  # whose folders are listed when something is imported
    return not writes and (imports or any(path.is_relative_to(place) for place in own))


sys.addaudithook(_hook)  # for the rest of the process; it does nothing outside of `watched`


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fail if something inside opens or changes a file outside of a folder, or runs or unpickles something.

    Python tells what it opens. Of what libraries open by themselves, the secret's time of access tells.
    """
    secret, seen = folder.parent / SECRET, list[str]()
    os.utime(secret, ns=(10**18, 2 * 10**18))
    _watched.append((folder, seen))
    try:
        yield
    finally:
        _watched.pop()
        if secret.stat().st_atime_ns != 10**18:
            seen.append("the file beside the folder was read")
        assert not seen, seen
