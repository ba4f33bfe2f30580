"""The one exception that means "your input", as opposed to a fault of ours; and errors in one line."""

from fr_ps.redaction import redact, shorten

MOST = 1500
"""Characters of a message. A cell of a table that is echoed in it may be of any length."""
_CUT = " [...] "
_MAX_REDACTED = 10_000
"""Characters of a message that are searched for secrets; what is shown of it is shorter."""


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of `error` without secrets, on one line of at most so many characters."""
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def _clipped(message: str) -> str:
    """The message without its middle where it is longer than `MOST`: what is wrong stands first, the remedy last."""
    if len(message) <= MOST:
        return message
    half = (MOST - len(_CUT)) // 2
    return message[:half] + _CUT + message[-half:]


class InputError(Exception):
    """Bad input or settings. The message is one line: what, where (file, row, key), and what to do.

    The command line prints it as ``error: ...`` and exits with 2; anything else that is raised is a fault of ours. The
    message also goes to tags, files and databases: addresses in it are redacted, and a long one loses its middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_clipped(redact(shorten(" ".join(message.splitlines()), _MAX_REDACTED))))


class NoRoom(InputError):
    """The disk is full: no fault of the settings, and nothing to be tried again before there is room."""
