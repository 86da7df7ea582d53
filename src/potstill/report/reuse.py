"""Reuse: what a reader needs to load the student, and to run its recipe again."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class StudentFolder:
    """Where a student of the first seed is."""

    model: str
    """Its name on the page."""
    folder: str
    is_adapter: bool
    """Whether it is an adapter alone, which is read on top of the run's start."""

    @property
    def lines(self) -> str:
        """Lines of Python that load it."""
        folder = json.dumps(self.folder, ensure_ascii=False)
        return (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
            f"model = AutoModelForCausalLM.from_pretrained({folder})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({folder})"
        )


@dataclass(frozen=True)
class Reuse:
    """A run's students and its recipe as YAML."""

    students: tuple[StudentFolder, ...]
    given: str
    """The values of the recipe that differ from defaults."""
    whole: str
    """All values."""
