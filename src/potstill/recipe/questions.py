"""`corpus:` with `questions` — questions whose answers are learned, under the prompts of each strategy."""

from typing import Annotated, Any

from pydantic import Field, Tag

from potstill.recipe.corpus import HubDataset, PackageFiles, PathFiles
from potstill.recipe.section import Section, told_apart_by
from potstill.recipe.strategies import TemplateText


class QuestionBase(Section):
    question: TemplateText = "{{ question }}"
    """The question: a Jinja template with the columns of a row."""

    reference: TemplateText = "{{ answer }}"
    """Its worked solution, which ends in `#### N`: a Jinja template with the columns of a row."""


class PackageQuestions(QuestionBase, PackageFiles):
    """Questions in an installed Python package."""


class PathQuestions(QuestionBase, PathFiles):
    """Questions in files on this machine: .jsonl, .csv or .parquet, one a row."""


class HubQuestions(QuestionBase, HubDataset):
    """Questions of a data set, such as `openai/gsm8k`."""


class GeneratedQuestions(QuestionBase):
    """Questions made by reasoning-gym, each with its columns `question`, `answer` and `metadata`."""

    generator: str
    """The name of one of its data sets, such as `chain_sum`."""

    count: int = Field(gt=0)
    """How many are made. One that is made twice is kept once."""

    seed: int = Field(0, ge=0)
    """Other seeds, other questions."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """The generator's own settings, under their own names."""


QuestionSource = Annotated[
    Annotated[PackageQuestions, Tag("<package>")]
    | Annotated[PathQuestions, Tag("<path>")]
    | Annotated[HubQuestions, Tag("<dataset>")]
    | Annotated[GeneratedQuestions, Tag("<generator>")],
    told_apart_by("package", "path", "dataset", "generator"),
]


class HeldOutQuestions(Section):
    """Questions of their own to evaluate on, such as a test split."""

    questions: list[QuestionSource] = Field(min_length=1)
    """Where they come from. One of them that is among the training questions as well is not trained on."""

    count: int | None = Field(None, gt=1)
    """At most so many, in the order of their hashes. Default: all."""


class Questions(Section):
    """Questions and their reference solutions, their split, and how long prompt and answer may be together."""

    questions: list[QuestionSource] = Field(min_length=1)
    """Where they come from. A question that occurs twice is kept once."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | HeldOutQuestions = 0.1
    """The share of questions kept for evaluation, chosen by a hash of their text: a question stays on its side when
    there are more of them. Or questions of their own."""

    validation: int | None = Field(None, gt=0)
    """So many of the training questions are set aside for `keep: best` and `search` to choose by, and for nothing
    else."""

    train: int | None = Field(None, gt=0)
    """At most so many training questions, in the order of their hashes. Default: all."""

    sequence_length: int = Field(gt=1)
    """The most tokens that a student reads, prompt and answer. A longer answer loses its end; a prompt is never cut."""

    teacher_length: int | None = Field(None, gt=1)
    """The most tokens that a teacher reads, whose prompt may be longer. Default: `sequence_length`."""
