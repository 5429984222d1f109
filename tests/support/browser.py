"""A headless Chromium that tests drive through its DevTools pipe: no network, no library, a profile of its own."""

import base64
import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --no-proxy-server --remote-debugging-pipe --window-size=1280,800"
).split()
PATIENCE_S = 60.0


def find_browser() -> str | None:
    """Path to a Chromium or Chrome."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of a browser.

    Attributes:
        complaints: Errors and warnings of the page so far: exceptions, console errors, refusals of its policy.
    """

    def __init__(self, sent: int, received: int) -> None:
        """Take the ends of the pipe."""
        self._sent, self._received = sent, received
        self._number, self._rest, self._session = 0, b"", None
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: object) -> dict:
        """Send a command; return its result."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": params}
        asked |= {"sessionId": self._session} if self._session else {}
        os.write(self._sent, json.dumps(asked).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            found = os.read(self._received, 65536)
            assert found, "the browser has ended"
            self._rest += found
        first, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(first)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:500])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        return message

    def open(self, file: Path) -> None:
        """Open a file and wait until it and its pictures are loaded."""
        self.ask("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, code: str) -> object:
        """Value of an expression on the page."""
        found = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.05)

    def pictures(self, selector: str) -> list[bytes]:
        """What is drawn in each element that a selector finds, as pixels."""
        code = f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.getBoundingClientRect().toJSON())"
        boxes = self.run(code)
        taken = self.ask("Page.captureScreenshot", captureBeyondViewport=False)
        screen = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
        edges = [(box["left"] + 4, box["top"] + 4, box["right"] - 4, box["bottom"] - 4) for box in boxes]
        return [screen.crop(tuple(map(round, edge))).tobytes() for edge in edges]

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key, as a person does."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, **typed)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a browser that ends with the context.

    Args:
        profile: Path to an empty folder.
    """
    theirs_in, ours_out = map(_high, os.pipe())
    ours_in, theirs_out = map(_high, os.pipe())

    def connect() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    command = [str(find_browser()), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=quiet, stdout=quiet, stderr=quiet, close_fds=False, preexec_fn=connect, start_new_session=True
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        tab = Tab(ours_out, ours_in)
        yield tab
        os.write(ours_out, b'{"id": 0, "method": "Browser.close"}\0')
        process.wait(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)


def _high(end: int) -> int:
    """Move a pipe's end out of the way of 3 and 4, which the browser reads and writes."""
    moved = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return moved
