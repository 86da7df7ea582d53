"""Step: one run of a stage. A stage may run once for each seed, name or candidate."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from potstill.recipe.candidates import Candidate


SAVED_AS = "recipe.json"
"""The file in a run folder with the recipe that the folder was last used with."""

SAVED_DIGEST = ".recipe.json.sha256"
"""The file with its SHA-256, which tells whether it is as the run wrote it."""


@dataclass(frozen=True)
class Step:
    """One run of a stage. Its text is its folder within the run folder: `distil/base/seed-0`."""

    stage: str
    seed: int | None = None
    """For a stage that runs once for each seed."""
    name: str | None = None
    """For a stage that runs once for each name in a section of the recipe."""
    candidate: "Candidate | None" = None
    """For a stage that runs once for each model under comparison."""

    def __str__(self) -> str:
        seed = None if self.seed is None else f"seed-{self.seed}"
        candidate = None if self.candidate is None else self.candidate.folder
        return "/".join(part for part in (self.stage, self.name, candidate, seed) if part is not None)
