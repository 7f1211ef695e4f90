"""The errors a person can meet; they live in the lowest room so that every room can raise them.

The command line prints one line and exits with `exit_code`; a library user catches `EdgesnnError`.
Each message says what is wrong and what to do about it.
"""


class EdgesnnError(Exception):
    """Something failed while doing what was asked (exit code 1)."""

    exit_code = 1


class UsageError(EdgesnnError):
    """What was asked makes no sense: unknown name, flag, shape, option (exit code 2)."""

    exit_code = 2
