"""`evaluate:` — the measurements of a run, their data and their confidence."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag, model_validator

from potstill.recipe.candidates import OWN_ROLES
from potstill.recipe.continuations import Continuations
from potstill.recipe.corpus import NamedFiles
from potstill.recipe.section import Name, Section, about_key, discriminated_by

SAMPLE_BEGINNING, SAMPLE_TOKENS = 24, 40
"""The greatest length in tokens of a beginning that models continue for the report, and of what they write."""


class PairsBase(Section):
    """How minimal pairs are scored."""

    pairs: int | None = Field(None, gt=1)
    """The greatest number of pairs of each subtask; the first ones are used. Default: all."""

    start: Literal["bos", "eos", "none"] = "bos"
    """The token before each sentence, from which its first token is predicted. `bos` (default): the tokenizer's
    beginning-of-text token, or its end-of-text token where it has no other, as in lm-eval. `eos`: its end-of-text
    token, as in BabyLM's pipeline. `none`: no token, and the first token is not scored; for models trained on text
    without either."""

    prefix_space: bool = True
    """Whether each sentence begins with a space, as in lm-eval and BabyLM's pipeline. Default: true."""

    ties: Literal["half", "correct", "wrong"] = "half"
    """How a pair of equally probable sentences counts. Default: `half`. lm-eval and BabyLM's pipeline count it
    `correct`."""


class PairFiles(PairsBase):
    """Minimal pairs in files on this machine."""

    path: str
    """A .jsonl file with the columns `sentence_good` and `sentence_bad`, or a folder with one such file for each
    subtask."""


class NamedPairs(PairsBase, NamedFiles):
    """Minimal pairs of public data that has a name, such as `blimp`."""


class PairDataset(PairsBase):
    """Minimal pairs of a data set."""

    dataset: str
    """A data set on the hub, such as `nyu-mll/blimp`, or a folder in a layout that `datasets` knows. Each configuration
    is one subtask."""

    split: str = "train"
    """The split. Default: `train`, which is BLiMP's only one."""

    revision: str | None = None
    """A commit, tag or branch of the data set's repository. Default: its main branch."""


MinimalPairs = Annotated[
    Annotated[PairFiles, Tag("<path>")]
    | Annotated[NamedPairs, Tag("<data>")]
    | Annotated[PairDataset, Tag("<dataset>")],
    discriminated_by("path", "data", "dataset"),
]


class TaskOfHarness(Section):
    """A task of lm-evaluation-harness and its settings."""

    task: str
    """The name of a task, or of a group of tasks, in lm-eval or in a task file."""

    path: str | None = None
    """A folder of task files (.yaml), in addition to lm-eval's own. The data that they name may lie on this machine."""

    num_fewshot: int | None = Field(None, ge=0)
    """The number of solved examples before each item. Default: the task's own number."""

    limit: int | None = Field(None, gt=1)
    """The number of items of each task; the first ones are used. Default: all."""


def _as_task(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


HarnessTask = Annotated[TaskOfHarness, BeforeValidator(_as_task, json_schema_input_type=str | TaskOfHarness)]


class Evaluate(Section):
    """Compare the teacher, the start, the student and the control on held-out documents."""

    documents: int | None = Field(default=None, gt=0)
    """The greatest number of held-out documents, in the order of their hashes. Default: all."""

    minimal_pairs: dict[Name, MinimalPairs] = Field(default_factory=dict)
    """Pairs of a grammatical and an ungrammatical sentence, such as BLiMP. A model is correct where the grammatical one
    is more probable. The name is your choice and names the accuracy in the report, which is the mean over subtasks."""

    continuations: dict[Name, Continuations] = Field(default_factory=dict)
    """Beginnings of text that every model completes. They measure whether the keyword comes and how near the response
    is to the reference. The name is your choice and stands before the metrics in the report."""

    tasks: list[HarnessTask] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness for every model (`potstill[tasks]`): a name, such as `piqa`, or a section with
    `task`, `path`, `num_fewshot` and `limit`. The figures are lm-eval's own."""

    models: dict[Name, str] = Field(default_factory=dict)
    """Baselines: further models to compare with, by names of your choice. Each is a name on the hub or a folder. They
    take part in `tasks` and `continuations`; and in held-out text and minimal pairs if they have the run's tokens."""

    speed: bool = True
    """Whether to measure the size of teachers, students and control, and how fast they read and write on this machine,
    for a minute at most. Default: true."""

    samples: int = Field(default=8, ge=0, le=50)
    """The number of held-out beginnings that the first teacher, the students and the control continue greedily, by at
    most 40 tokens each, for the readers of the report. `0`: none. Default: 8. Questions and conversations have
    `answers` instead."""

    batch_size: int = Field(default=16, gt=0)
    """The number of sequences that a model reads at the same time. Default: 16."""

    confidence: float = Field(default=0.95, gt=0, lt=1)
    """The confidence level of the intervals: the share of repetitions in which an interval contains the true value.
    Default: 0.95."""

    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """The number of bootstrap resamples of the documents or items. Default: 2000."""

    @model_validator(mode="after")
    def _names_are_free(self) -> "Evaluate":
        for name in self.models:
            if name in OWN_ROLES:
                raise about_key("models", f"{name!r} is the name of one of the run's own models; choose another name")
        names = [task.task for task in self.tasks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise about_key("tasks", f"{twice!r} is listed twice; remove one of them")
        return self
