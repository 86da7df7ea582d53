"""Errors for users, and the words that all docstrings share. Every part may import this file.

Shapes in docstrings and annotations: B batch, T time, V vocabulary, H hidden size, K kept entries, N supervised tokens.
A *supervised token* is a position whose next token is a label: ``labels[:, t + 1] != IGNORE_INDEX``.
"""


class UserError(ValueError):
    """Bad input. The message is one sentence that names the key or file and says what to do."""


class DivergedError(UserError):
    """A training whose loss or weights are no longer finite."""


NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
"""The words of CUDA, of torch on a CPU and of the operating system."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its accelerator is too small."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The first non-blank line of another library's error, with the second where it ends with a colon; or else the
    error's type. An error of a regular expression is told with the expression."""
    if isinstance(pattern := getattr(error, "pattern", None), str):
        return f"{pattern!r} is no regular expression ({error})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(error).__name__
