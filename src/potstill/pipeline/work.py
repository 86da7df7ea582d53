"""Work: what a stage is given, and what it gives back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.pipeline.run_folder import Run
from potstill.recipe.step import Step

if TYPE_CHECKING:
    from potstill.recipe import Recipe


@dataclass(frozen=True)
class Work:
    """What a stage is given: the recipe, the run, and the step to do."""

    recipe: "Recipe"
    run: Run
    step: Step

    @property
    def folder(self) -> Path:
        """Where this step keeps what it makes."""
        return self.run.path(self.step)


@dataclass(frozen=True)
class Made:
    """What a stage gives back: its output files or folders, and a few figures for the manifest."""

    outputs: Sequence[Path]
    summary: dict[str, Any]
