"""Candidates: the models under comparison in a run, each by its role, its name in the recipe and its seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from potstill.recipe.step import Step

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe

Role = Literal["teacher", "start", "student", "control", "baseline"]
"""`start` is the student before training. A `baseline` is a model that the run did not make (`evaluate.models`)."""
OWN_ROLES = tuple(role for role in get_args(Role) if role != "baseline")
"""The roles of the run's own models. No baseline may have one of them as its name."""


@dataclass(frozen=True)
class Candidate:
    """One model under comparison."""

    role: Role
    name: str | None = None
    """Its name in the recipe; None where its role has only one model."""
    seed: int | None = None
    """The seed of its training; None for a model without one, and for all seeds together."""

    @property
    def label(self) -> str:
        """The name in comparisons, the same for every seed: `student`, `student base`, or a baseline's own name."""
        if self.role == "baseline":
            assert self.name is not None
            return self.name
        return self.role if self.name is None else f"{self.role} {self.name}"

    @classmethod
    def from_label(cls, label: str) -> "Candidate":
        """The inverse of :attr:`label`."""
        role, _, name = label.partition(" ")
        for own in OWN_ROLES:
            if role == own:
                return cls(own, name or None)
        return cls("baseline", label)

    @property
    def folder(self) -> str:
        """Its folder within a stage's folder: `student/base/seed-0`. No two candidates of a run share one."""
        seed = None if self.seed is None else f"seed-{self.seed}"
        return "/".join(part for part in (self.role, self.name, seed) if part is not None)

    @property
    def step(self) -> Step:
        """The step that trains it. Only a student or control with a seed has one."""
        assert self.role in ("student", "control"), f"{self} is not trained by `distil` or `control`"
        assert self.seed is not None, f"{self} has no seed"
        return Step("control" if self.role == "control" else "distil", self.seed, self.name)

    @property
    def of_all_seeds(self) -> "Candidate":
        """The same candidate without its seed."""
        return replace(self, seed=None)

    def __str__(self) -> str:
        return self.label if self.seed is None else f"{self.label} (seed {self.seed})"


def teacher_candidates(recipe: "Recipe") -> list[Candidate]:
    """The teachers, in the order of the recipe."""
    names: Sequence[str | None] = list(recipe.all_teachers) if len(recipe.all_teachers) > 1 else [None]
    return [Candidate("teacher", name) for name in names]


def trained_candidates(recipe: "Recipe") -> list[Candidate]:
    """Each seed of each student, in the order of the recipe, and then each seed of the control."""
    students = [Candidate("student", name, seed) for name in recipe.variants for seed in recipe.seeds]
    controls = [Candidate("control", None, seed) for seed in recipe.seeds]
    return students if recipe.control is None else [*students, *controls]


def own_candidates(recipe: "Recipe") -> list[Candidate]:
    """All candidates that a run makes or that teach in it: teachers, start, students, control."""
    return [*teacher_candidates(recipe), Candidate("start"), *trained_candidates(recipe)]
