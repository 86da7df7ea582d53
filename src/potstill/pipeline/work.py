"""Work: the argument of a stage's `run`, and its result."""

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
    """The argument of a stage: the recipe, the run, and the step to run."""

    recipe: "Recipe"
    run: Run
    step: Step
    forced: bool = False
    """Whether the user asked for this step by `--force`, although something spoke against it."""

    @property
    def folder(self) -> Path:
        """The folder of this step's outputs."""
        return self.run.path(self.step)


@dataclass(frozen=True)
class Made:
    """The result of a stage: its output files or folders, and figures for the manifest."""

    outputs: Sequence[Path]
    summary: dict[str, Any]
