"""The one exception that means "your input", as opposed to a fault of ours."""


class InputError(Exception):
    """Bad input or settings. The message is one line: what, where (file, row, key), and what to do.

    The command line prints it as ``error: ...`` and exits with 2; anything else that is raised is a fault of ours.
    """
