"""InputError, the exception for bad input, as opposed to internal errors; and error messages in one line."""

from fr_ps.redaction import redact, shorten

MAX_MESSAGE = 1500
"""Largest number of characters of a message, which may quote a long cell of a table."""
_ELLIPSIS = " [...] "
_MAX_REDACTED = 10_000
"""Longer messages are shortened to this number of characters before redaction, which limits its time."""


def one_line(error: BaseException, max_length: int = 300) -> str:
    """The message of `error` without secrets, on one line of at most `max_length` characters."""
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def _clip(message: str) -> str:
    """`message`, shortened in its middle if it is too long: its start names the problem, its end the remedy."""
    if len(message) <= MAX_MESSAGE:
        return message
    half = (MAX_MESSAGE - len(_ELLIPSIS)) // 2
    return message[:half] + _ELLIPSIS + message[-half:]


class InputError(Exception):
    """Bad input or settings. The message is one line: what, where (file, row, key), and what to do.

    The command line prints it as ``error: ...`` and exits with 2; any other exception is an internal error. As messages also
    go to tags, files and databases, URLs are redacted, and a long message loses its middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_clip(redact(shorten(" ".join(message.splitlines()), _MAX_REDACTED))))


class DiskFullError(InputError):
    """The disk is full; a retry makes sense only after space was freed."""


class DatabaseUnreachableError(InputError):
    """The database of a study was unreachable for all the time of the retries."""


class OutOfMemoryError(InputError):
    """The device has too little memory for the settings."""
