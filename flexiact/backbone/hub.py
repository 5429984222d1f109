"""Repositories on the model hub as folders on this machine."""

from collections.abc import Sequence
from pathlib import Path

from flexiact.terminal.cli import one_line


def snapshot(
    repository: str, revision: str, allow: Sequence[str], *, ignore: Sequence[str] = (), kind: str = "model"
) -> Path:
    """The folder of a repository (owner/name) at a commit; cached files are not fetched again.

    Files count that match `allow` and not `ignore`; `kind` is "model" or "dataset".

    Raises:
        OSError: If the repository is not cached and cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # imported here, because only repositories on the hub need it
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # every failed attempt would be logged; the error below reports the last one
    try:
        found = snapshot_download(
            repository, repo_type=kind, revision=revision, allow_patterns=list(allow), ignore_patterns=list(ignore)
        )
    except OSError:
        raise
    except Exception as error:  # such as an error of the network library behind a broken proxy
        raise OSError(one_line(error)) from error
    finally:
        logging.set_verbosity(before)
    return Path(found)
