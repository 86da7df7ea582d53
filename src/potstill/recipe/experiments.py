"""`experiments:` — several students that differ in one thing. They share the start, the answers and the seeds."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from potstill.recipe.losses import GivenLoss
from potstill.recipe.on_policy import OnPolicy
from potstill.recipe.section import Name, Section


class Experiment(Section):
    """What one student is trained with. All other settings are those of the recipe."""

    strategy: Name | None = None
    """The strategy that gives teacher and student their prompts; of conversations, the teacher alone. Default: the
    strategy with the experiment's own name, or `base` if there is none."""

    targets: Literal["own", "another_question"] = "own"
    """`own` (default): the teacher's distributions for this answer. `another_question`: a placebo, whose teacher reads
    another question and its answer, drawn once at random; these distributions are used for this answer, token by token
    (questions only). If the placebo gains as much as the student, the student learned only to be less certain."""

    losses: list[GivenLoss] | None = Field(default=None, min_length=1)
    """Losses for this student. Default: `distil.losses`."""

    on_policy: OnPolicy | None = None
    """What this student writes itself. `{share: 0}` is nothing. Default: `distil.on_policy`."""


@dataclass(frozen=True)
class SampleSet:
    """The samples of one strategy. Several experiments may share them."""

    strategy: str
    own: bool
    """Whether the teacher reads the answer itself, and not another question's."""

    @property
    def name(self) -> str:
        """Its folder: the strategy's name, then a word that potstill chooses, so that no two sample sets share a
        folder."""
        return f"{self.strategy}/{'own' if self.own else 'another_question'}"
