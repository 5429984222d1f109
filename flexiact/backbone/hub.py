"""Repositories on the model hub as folders on this machine."""

from collections.abc import Sequence
from pathlib import Path

from flexiact.cli import one_line


def snapshot(
    repository: str, revision: str, allow: Sequence[str], *, ignore: Sequence[str] = (), kind: str = "model"
) -> Path:
    """The folder of a repository at a commit; what is there already is not fetched again.

    Args:
        repository: owner/name.
        revision: commit.
        allow: patterns of the files that are wanted.
        ignore: patterns of those that are not wanted all the same.
        kind: "model" or "dataset".

    Raises:
        OSError: when it is not there and cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # here, because only things on the hub need it
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # every attempt that fails would be told, and the last one is told by the error
    try:
        found = snapshot_download(
            repository, repo_type=kind, revision=revision, allow_patterns=list(allow), ignore_patterns=list(ignore)
        )
    except OSError:
        raise
    except Exception as error:  # behind a broken proxy, for one, errors of the network library come through
        raise OSError(one_line(error)) from error
    finally:
        logging.set_verbosity(before)
    return Path(found)
