"""What is wrong, in one line."""


class RunError(ValueError):
    """A run directory that cannot be reported; the message is one line and names file and field."""


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
