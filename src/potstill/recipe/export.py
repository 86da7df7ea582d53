"""`export:` — files of the trained student that other programs run, each measured against the student."""

from pydantic import Field, model_validator

from potstill.recipe.export_formats import ExportFormat
from potstill.recipe.section import Name, Section, about_key


class Export(Section):
    """Export the student, and measure each file in the program that will run it."""

    to: list[ExportFormat] = Field(["gguf:F16", "gguf:Q8_0", "gguf:Q4_K_M", "merged"], min_length=1)
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
