"""`experiments:` — students that differ in one thing, side by side: same start, same answers, same seeds."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from potstill.recipe.distil import GivenLoss
from potstill.recipe.section import Name, Section


class Experiment(Section):
    """What one student is trained with; whatever is not said here is as in the rest of the recipe."""

    strategy: Name | None = None
    """The strategy whose prompts teacher and student are given. Default: the one of the experiment's own name, or else
    `base`."""

    targets: Literal["own", "another_question"] = "own"
    """`another_question`: the teacher speaks about another question and its answer, drawn once at random, and what it
    says there is laid over this answer, token by token. A control: a student that gains as much from it has learned
    nothing from the teacher but to be less sure."""

    losses: list[GivenLoss] | None = Field(default=None, min_length=1)
    """Losses in place of `distil.losses`."""


@dataclass(frozen=True)
class SampleSet:
    """The samples of one strategy, which several experiments may share."""

    strategy: str
    own: bool
    """Whether the teacher speaks about the answer itself, and not about another question's."""

    @property
    def name(self) -> str:
        """Its folder: the user's name for the strategy, and in it a word of potstill's own, so that no two are one."""
        return f"{self.strategy}/{'own' if self.own else 'another_question'}"
