"""Recipe: one declarative file that says what to distil, from what, and how it is judged."""

from typing import Annotated

from pydantic import Field, model_validator

from potstill.recipe.capture import Capture
from potstill.recipe.corpus import Corpus
from potstill.recipe.distil import Control, Distil, HiddenMatch
from potstill.recipe.evaluate import Evaluate
from potstill.recipe.section import Section
from potstill.recipe.student import PrunedLayers, Student
from potstill.recipe.teachers import Teacher

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Recipe(Section):
    """A whole experiment: one section a stage, in the order in which the stages run."""

    about: str
    """One sentence for `potstill recipes` and the head of the report."""

    teachers: dict[Name, Teacher] = Field(min_length=1)
    """The models that are learned from, by names of your choice."""

    corpus: Corpus
    """The text that is learned from."""

    student: Student
    """What the student is before any training."""

    capture: Capture | None = None
    """Run the teacher once and keep what it says. Left out, or `null`: the teacher runs beside the student."""

    distil: Distil
    """How the student is trained."""

    control: Control | None = Control()
    """The control: same start, same tokens, cross-entropy only. `null` leaves it out, and the report says so."""

    evaluate: Evaluate = Evaluate()
    """What is measured, and on what."""

    seeds: list[Seed] = Field([0], min_length=1)
    """Student and control are trained once for each."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if isinstance(self.student, PrunedLayers) and self.student.teacher not in self.teachers:
            raise ValueError(
                f"`student.from`: {self.student.teacher!r} is none of `teachers`, which has {', '.join(self.teachers)}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds`: one is named twice, and the same run again would be no evidence; remove it")
        if not any(loss.kind != "cross_entropy" and loss.weight > 0 for loss in self.distil.losses):
            raise ValueError(
                "`distil.losses`: none is a divergence with a weight above 0, so no teacher would be used; add one"
            )
        if self.capture is not None and any(isinstance(loss, HiddenMatch) for loss in self.distil.losses):
            raise ValueError(
                "`distil.losses`: hidden_match needs the teacher's layers, and `capture` keeps none of them; leave one "
                "of the two out"
            )
        return self
