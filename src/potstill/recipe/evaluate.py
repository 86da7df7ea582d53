"""`evaluate:` — what is measured, on what, and how sure it is."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag, model_validator

from potstill.recipe.candidates import OWN_ROLES
from potstill.recipe.continuations import Continuations
from potstill.recipe.section import Name, Section, about_key, told_apart_by


class PairsBase(Section):
    """What minimal pairs have in common, wherever they lie."""

    pairs: int | None = Field(None, gt=1)
    """At most so many pairs of each subtask, the first ones. Default: all."""

    start: Literal["bos", "eos", "none"] = "bos"
    """The token that a sentence's first token is predicted from: the tokenizer's beginning-of-text token, or else its
    end-of-text one, as lm-eval does; its end-of-text token, as BabyLM's pipeline does; or `none`, and the first token
    is left out. Models that were trained on text without either token are read with `none`."""

    prefix_space: bool = True
    """Whether a space goes before each sentence, as lm-eval and BabyLM's pipeline do."""

    ties: Literal["half", "correct", "wrong"] = "half"
    """What a pair counts whose sentences are equally probable. lm-eval and BabyLM's pipeline count it `correct`."""


class PairFiles(PairsBase):
    """Minimal pairs in files on this machine."""

    path: str
    """A .jsonl file, or a folder of them, one subtask each, with `sentence_good` and `sentence_bad`."""


class PairDataset(PairsBase):
    """Minimal pairs of a data set, on the hub or in its layout."""

    dataset: str
    """A data set on the hub, such as `nyu-mll/blimp`, or a folder in a layout that `datasets` knows: one
    configuration a subtask."""

    split: str = "train"
    """Its split. BLiMP has one only, `train`."""

    revision: str | None = None
    """A commit, tag or branch of the data set's repository."""


MinimalPairs = Annotated[
    Annotated[PairFiles, Tag("<path>")] | Annotated[PairDataset, Tag("<dataset>")], told_apart_by("path", "dataset")
]


class TaskOfHarness(Section):
    """A task of lm-evaluation-harness, and how it is asked."""

    task: str
    """Its name in lm-eval, or in a task file; a task, or a group of them."""

    path: str | None = None
    """A folder of task files (.yaml) beside lm-eval's own; the data that they name may lie on this machine."""

    num_fewshot: int | None = Field(None, ge=0)
    """Solved examples before each item. Default: as many as the task says."""

    limit: int | None = Field(None, gt=1)
    """The first so many items of each task. Default: all."""


def _named(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


HarnessTask = Annotated[TaskOfHarness, BeforeValidator(_named, json_schema_input_type=str | TaskOfHarness)]


class Evaluate(Section):
    """Teacher, student before, student after and control, side by side on held-out documents."""

    documents: int | None = Field(default=None, gt=0)
    """At most so many held-out documents, in the order of their hashes. Default: all."""

    minimal_pairs: dict[Name, MinimalPairs] = Field(default_factory=dict)
    """Pairs of a grammatical and an ungrammatical sentence, such as BLiMP: which of the two is more probable to each
    model? By the name that their accuracy has in the report; it is the mean over subtasks."""

    continuations: dict[Name, Continuations] = Field(default_factory=dict)
    """Beginnings of sentences that every model continues: does the keyword come, and how near is the rest to the
    reference? By the name that stands before the metrics in the report."""

    tasks: list[HarnessTask] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness that every model is asked (`potstill[tasks]`): by name, such as `piqa`, or with
    `path`, `num_fewshot` and `limit`. Their figures are lm-eval's own."""

    models: dict[Name, str] = Field(default_factory=dict)
    """Further models to compare with, by names of your choice: each a name on the hub or a folder. They take part in
    `tasks` and `continuations`, and in held-out text and minimal pairs where they have the run's tokens."""

    batch_size: int = Field(default=16, gt=0)
    """Sequences a model reads at a time."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """The share of repetitions in which an interval covers the truth."""

    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of the documents."""

    @model_validator(mode="after")
    def _names_are_free(self) -> "Evaluate":
        for name in self.models:
            if name in OWN_ROLES:
                raise about_key("models", f"{name!r} is what one of the run's own models is called; take another name")
        names = [task.task for task in self.tasks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise about_key("tasks", f"{twice!r} is listed twice; remove one of them")
        return self
