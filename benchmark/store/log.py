"""The log of a run directory: one line for every event, with its time. Processes may share it.

Machines that share it over NFS may lose lines, since appending is not atomic there. Nothing depends on the log.
"""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

LOG = "log.txt"


def append_event(path: Path, event: str, text: str) -> None:
    """Append a line to the log: the time (UTC), a word for the event, and the text on one line.

    Raises:
        OSError: If the file cannot be written.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = f"{now}  {event:<9} {' '.join(text.split())}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        # One write, so that lines of several processes do not mix; a disk that fills up takes a part of it.
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)
