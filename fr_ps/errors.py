"""The one exception that means "your input", as opposed to a fault of ours; and errors in one line."""

from fr_ps.redaction import redact, shorten

MAX_MESSAGE = 1500
"""Characters of a message. A cell of a table that is echoed in it may be of any length."""
_ELLIPSIS = " [...] "
_MAX_REDACTED = 10_000
"""Characters of a message that are searched for secrets; what is shown of it is shorter."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    """The message of `error` without secrets, on one line of at most so many characters."""
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def _clip(message: str) -> str:
    """The message without its middle where it is longer than `MOST`: what is wrong stands first, the remedy last."""
    if len(message) <= MAX_MESSAGE:
        return message
    half = (MAX_MESSAGE - len(_ELLIPSIS)) // 2
    return message[:half] + _ELLIPSIS + message[-half:]


class InputError(Exception):
    """Bad input or settings. The message is one line: what, where (file, row, key), and what to do.

    The command line prints it as ``error: ...`` and exits with 2; anything else that is raised is a fault of ours. The
    message also goes to tags, files and databases: addresses in it are redacted, and a long one loses its middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_clip(redact(shorten(" ".join(message.splitlines()), _MAX_REDACTED))))


class DiskFullError(InputError):
    """The disk is full: no fault of the settings, and nothing to be tried again before there is room."""
