"""`corpus:` with `questions` — questions and answers, put into the prompts of each strategy."""

from typing import Annotated

from pydantic import Field, Tag

from potstill.recipe.corpus import HubDataset, NamedFiles, PackageFiles, PathFiles
from potstill.recipe.section import ForeignFields, Length, Section, discriminated_by
from potstill.recipe.strategies import TemplateText


class QuestionBase(Section):
    question: TemplateText = "{{ question }}"
    """The question: a Jinja template with the columns of a row. Default: the column `question`."""

    reference: TemplateText = "{{ answer }}"
    """The worked solution, which must end in `#### N`: a Jinja template with the columns of a row. Default: the column
    `answer`."""


class PackageQuestions(QuestionBase, PackageFiles):
    """Questions in files inside an installed Python package. The package itself is never imported."""


class PathQuestions(QuestionBase, PathFiles):
    """Questions in files on this machine: .jsonl, .json, .csv or .parquet, one question a row."""


class NamedQuestions(QuestionBase, NamedFiles):
    """Questions of public data that has a name, such as `gsm8k`."""


class HubQuestions(QuestionBase, HubDataset):
    """Questions of a data set, such as `openai/gsm8k`."""


class GeneratedQuestions(QuestionBase):
    """Questions made by reasoning-gym. Each row has the columns `question`, `answer` and `metadata`."""

    generator: str
    """The name of a data set of reasoning-gym, such as `chain_sum`."""

    count: int = Field(gt=0)
    """The number of questions that are made. A question that is made twice is kept once."""

    seed: int = Field(0, ge=0)
    """The seed of the generator. Default: 0."""

    settings: ForeignFields = Field(default_factory=dict)
    """The generator's own settings, under their own names."""


QuestionSource = Annotated[
    Annotated[PackageQuestions, Tag("<package>")]
    | Annotated[PathQuestions, Tag("<path>")]
    | Annotated[NamedQuestions, Tag("<data>")]
    | Annotated[HubQuestions, Tag("<dataset>")]
    | Annotated[GeneratedQuestions, Tag("<generator>")],
    discriminated_by("package", "path", "data", "dataset", "generator"),
]


class HeldOutQuestions(Section):
    """Separate questions for evaluation, such as a test split."""

    questions: list[QuestionSource] = Field(min_length=1)
    """The sources of the questions. A question that is also a training question is removed from the training
    questions."""

    count: int | None = Field(None, gt=1)
    """The greatest number of questions, in the order of their hashes. Default: all."""


class Questions(Section):
    """Questions with their reference solutions, their split, and the greatest length of prompt and answer."""

    questions: list[QuestionSource] = Field(min_length=1)
    """The sources of the questions. A question that occurs twice is kept once."""

    held_out: Annotated[float, Field(gt=0, lt=1)] | HeldOutQuestions = 0.1
    """The share of the questions that is kept for evaluation, or separate questions for it. Questions are chosen by a
    hash of their text, so a question stays on its side when the corpus grows. Default: 0.1."""

    validation: int | None = Field(None, gt=0)
    """The number of training questions that are set aside for choices only: `keep: best`, `search` and `select`.
    Default: none."""

    train: int | None = Field(None, gt=0)
    """The greatest number of training questions, in the order of their hashes. Default: all."""

    sequence_length: Length
    """The greatest number of tokens that a student reads, prompt and answer together. A longer answer loses its end; a
    prompt is never cut."""

    teacher_length: Length | None = None
    """The greatest number of tokens that a teacher reads, because its prompt may be longer. Default:
    `sequence_length`."""
