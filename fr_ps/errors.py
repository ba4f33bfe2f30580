"""The one exception that means "your input", as opposed to a fault of ours; and errors in one line."""

from fr_ps.redaction import redact


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of `error` without secrets, on one line of at most so many characters."""
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


class InputError(Exception):
    """Bad input or settings. The message is one line: what, where (file, row, key), and what to do.

    The command line prints it as ``error: ...`` and exits with 2; anything else that is raised is a fault of ours. The
    message also goes to tags, files and databases: addresses in it are redacted.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class NoRoom(InputError):
    """The disk is full: no fault of the settings, and nothing to be tried again before there is room."""
