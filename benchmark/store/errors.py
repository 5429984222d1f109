"""Format errors for the tables."""

from flexiact.terminal.cli import shortened


def error_text(error: BaseException, limit: int = 300) -> str:
    """Type and message of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__, limit)
