"""`select:` — which of the weights that were kept on the way are the student, and the control."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from potstill.recipe.section import Section, about_key

LOSS = "loss"
"""The one metric that every run has: cross-entropy on `corpus.validation`."""

"""What the control is called beside the experiments."""

Weight = Annotated[float, Field(gt=0)]


class Average(Section):
    """The mean of several snapshots, one more candidate: it is the student only where it is chosen like any other."""

    last: int | None = Field(None, gt=1)
    """Of the last so many."""

    best: int | None = Field(None, gt=1)
    """In place of `last`: of the best so many, by what `by` says."""

    @model_validator(mode="after")
    def _says_which(self) -> "Average":
        if (self.last is None) == (self.best is None):
            raise about_key("last", "or `best`: give one of the two, as in `average: {last: 5}`")
        return self


def _by_one(given: Any) -> Any:
    return {given: 1.0} if isinstance(given, str) else given


By = Annotated[
    dict[str, Weight],
    Field(min_length=1),
    BeforeValidator(_by_one, json_schema_input_type=str | dict[str, float]),
]


class Select(Section):
    """The best of `distil.snapshots`, for each seed of each student and of the control, by one rule.

    What differs from the best by no more than chance is a tie, and of ties the earliest is taken."""

    by: By = Field(default_factory=lambda: {LOSS: 1.0})
    """A metric: `loss`, one of `evaluate.minimal_pairs`, or one of a task or of a set of prompts (`lambada_openai/acc`,
    `facts/em`). Or several and how much each counts, `{loss: 1, blimp: 2}`: snapshots are ranked by each, and the mean
    of the ranks decides. `loss` is measured on `corpus.validation`; of the items of any other metric, half are chosen
    on, and only the others are reported."""

    average: Average | None = None
    """One candidate more: the mean of the `last` or of the `best` so many snapshots, `{last: 5}`."""
