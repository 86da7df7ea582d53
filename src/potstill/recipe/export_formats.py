"""Export formats: what a student can be exported as. The module imports nothing heavy: the table of stages uses it."""

from typing import Literal, get_args

ExportFormat = Literal[
    "gguf:F16", "gguf:BF16", "gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_K_M", "gguf:Q4_K_M", "merged", "int8"
]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


def file_type_of(format_: ExportFormat) -> str | None:
    """The type of a GGUF file, `Q8_0`; None for another format."""
    return format_.removeprefix("gguf:") if format_.startswith("gguf:") else None


def folder_of(format_: ExportFormat) -> str:
    """The name of a format's folder: `gguf-Q8_0`."""
    return format_.replace(":", "-")


def format_of(folder: str) -> ExportFormat:
    """The inverse of :func:`folder_of`."""
    return next(each for each in FORMATS if folder_of(each) == folder)
