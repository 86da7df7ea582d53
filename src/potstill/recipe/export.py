"""`export:` — files of the trained student that other programs run, each measured against the student."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from potstill.recipe.section import Name, Section, about_key

Format = Literal["gguf:F16", "gguf:BF16", "gguf:Q8_0", "gguf:Q6_K", "gguf:Q5_K_M", "gguf:Q4_K_M", "merged", "int8"]
FORMATS: tuple[Format, ...] = get_args(Format)


def file_type_of(format_: Format) -> str | None:
    """The type of a GGUF file, `Q8_0`; None for another format."""
    return format_.removeprefix("gguf:") if format_.startswith("gguf:") else None


def folder_of(format_: Format) -> str:
    """The name of a format's folder: `gguf-Q8_0`."""
    return format_.replace(":", "-")


def format_of(folder: str) -> Format:
    """The inverse of :func:`folder_of`."""
    return next(each for each in FORMATS if folder_of(each) == folder)


class Export(Section):
    """Export the student, and measure each file in the program that will run it."""

    to: list[Format] = Field(["gguf:F16", "gguf:Q8_0", "gguf:Q4_K_M", "merged"], min_length=1)
    """The formats. `gguf:TYPE`: a file for llama.cpp and Ollama, with weights of that type. `merged`: a plain folder
    for transformers, its adapter merged. `int8`: a folder for transformers with weights of 8 bits. Default: GGUF as
    F16, Q8_0 and Q4_K_M, and `merged`."""

    experiments: list[Name] | None = Field(None, min_length=1)
    """Which students of `experiments` are exported. Default: all. Of several seeds, the first one is exported."""

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Export":
        for key, given in (("to", self.to), ("experiments", self.experiments or [])):
            if twice := next((one for one in given if list(given).count(one) > 1), None):
                raise about_key(key, f"{twice!r} is listed twice; remove one of them")
        return self
