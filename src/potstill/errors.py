"""The project's own vocabulary: the one file that every part may import.

Shapes in docstrings and annotations: B batch, T time, V vocabulary, H hidden size, K kept entries, N supervised tokens.
A *supervised token* is a position whose next token is a label: ``labels[:, t + 1] != IGNORE_INDEX``.
"""


class UserError(ValueError):
    """Bad input, told in one sentence that names the key or the file and says what to do."""


class DivergedError(UserError):
    """A training whose loss, or whose weights, are no numbers any more."""


def first_line(error: BaseException) -> str:
    """The first line that says something of another library's error, or else the error's kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
