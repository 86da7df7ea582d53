"""Recipe: one declarative file that says what to distil, from what, and how it is judged."""

from typing import Annotated

from pydantic import Field, model_validator

from potstill.recipe.capture import Capture
from potstill.recipe.corpus import Corpus
from potstill.recipe.distil import Control, Distil, HiddenMatch
from potstill.recipe.evaluate import Evaluate
from potstill.recipe.pretrain import Pretrained
from potstill.recipe.section import Name, Section
from potstill.recipe.student import PrunedLayers, Student
from potstill.recipe.teachers import ModelTeacher, PackagedTeacher, Teacher
from potstill.recipe.tokenizer import Tokenizer

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Recipe(Section):
    """A whole experiment: one section a stage, in the order in which the stages run."""

    about: str
    """One sentence for `potstill recipes` and the head of the report."""

    teachers: dict[Name, Teacher] = Field(default_factory=dict)
    """The models that are learned from, by names of your choice."""

    tokenizer: Tokenizer | None = None
    """The tokenizer of everything here. Default: the first teacher's."""

    corpus: Corpus
    """The text that is learned from."""

    pretrain: dict[Name, Pretrained] = Field(default_factory=dict)
    """Further teachers, by names of your choice, that are trained here on the same text before they teach."""

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

    @property
    def all_teachers(self) -> dict[str, PackagedTeacher | ModelTeacher | Pretrained]:
        """Teachers that exist and teachers that are trained here, in this order."""
        return {**self.teachers, **self.pretrain}

    @model_validator(mode="after")
    def _has_teachers(self) -> "Recipe":
        if not self.all_teachers:
            raise ValueError("there is no teacher; name one under `teachers`, or one to train under `pretrain`")
        if both := sorted(self.teachers.keys() & self.pretrain.keys()):
            raise ValueError(f"`pretrain.{both[0]}`: `teachers` has that name already; choose another")
        if not self.teachers and self.tokenizer is None:
            raise ValueError(
                "`tokenizer` is missing: no teacher brings one; train one, `tokenizer: {vocab_size: 16000}`"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if isinstance(self.student, PrunedLayers) and self.student.teacher not in self.all_teachers:
            raise ValueError(
                f"`student.from`: {self.student.teacher!r} is none of the teachers, {', '.join(self.all_teachers)}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds`: one is named twice, and the same run again would be no evidence; remove it")
        if not any(loss.kind != "cross_entropy" and loss.weight > 0 for loss in self.distil.losses):
            raise ValueError(
                "`distil.losses`: none is a divergence with a weight above 0, so no teacher would be used; add one"
            )
        return self

    @model_validator(mode="after")
    def _samples_fit(self) -> "Recipe":
        best = [f"pretrain.{name}" for name, teacher in self.pretrain.items() if teacher.keep == "best"]
        best += ["distil"] if self.distil.keep == "best" else []
        if best and self.corpus.validation is None:
            raise ValueError(
                f"`{best[0]}.keep: best` goes by `corpus.validation`, which is missing; say how many sequences"
            )
        if self.corpus.random_offset and self.corpus.layout != "packed":
            raise ValueError("`corpus.random_offset` needs `corpus.layout: packed`: a document has one beginning")
        if self.distil.reduction == "sequence" and self.corpus.layout != "packed":
            raise ValueError(
                "`distil.reduction: sequence` needs `corpus.layout: packed`, whose samples have one length"
            )
        if self.corpus.random_offset and self.capture is not None:
            raise ValueError(
                "`corpus.random_offset` makes other samples each epoch, and `capture` would know the first one's only; "
                "leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _capture_is_enough(self) -> "Recipe":
        if self.capture is None:
            return self
        keep, several = self.capture.keep, len(self.all_teachers) > 1
        if any(isinstance(loss, HiddenMatch) for loss in self.distil.losses):
            raise ValueError(
                "`distil.losses`: hidden_match needs the teacher's layers, and `capture` keeps none of them; leave one "
                "of the two out"
            )
        if keep == "hidden":
            return self
        if several and self.distil.mix == "logits":
            raise ValueError(
                f"`distil.mix: logits` needs each teacher's whole distribution, and `capture.keep: {keep}` keeps "
                "a part of it; mix probabilities, or use `keep: hidden`"
            )
        others = [loss.kind for loss in self.distil.losses if loss.kind not in ("cross_entropy", "forward_kl")]
        if others and (several or keep != "top_k"):
            whose = "several teachers" if several else "a teacher"
            raise ValueError(
                f"`distil.losses`: {others[0]} needs the whole distribution of {whose}, and `capture.keep: {keep}` "
                "keeps a part of it; use forward_kl, or `keep: hidden`"
            )
        return self
