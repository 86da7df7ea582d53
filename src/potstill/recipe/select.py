"""`select:` — which snapshots become the student and the control."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from potstill.recipe.section import Importance, Section, about_key

LOSS = "loss"
"""The metric that every run has: cross-entropy on `corpus.validation`."""


class Average(Section):
    """The mean of several snapshots. It is one more candidate, and becomes the student only if it is selected."""

    last: int | None = Field(None, gt=1)
    """The number of last snapshots that are averaged."""

    best: int | None = Field(None, gt=1)
    """Instead of `last`: the number of best snapshots that are averaged, ranked by `by`."""

    @model_validator(mode="after")
    def _has_one_rule(self) -> "Average":
        if (self.last is None) == (self.best is None):
            raise about_key("last", "give either `last` or `best`, as in `average: {last: 5}`")
        return self


def _with_weight(given: Any) -> Any:
    return {given: 1.0} if isinstance(given, str) else given


By = Annotated[
    dict[str, Importance],
    Field(min_length=1),
    BeforeValidator(_with_weight, json_schema_input_type=str | dict[str, float]),
]


class Select(Section):
    """Select the best of `distil.snapshots`, by one rule, for each seed of each student and of the control.

    A snapshot ties with the best one unless it is worse beyond chance. Of the ties, the earliest is selected. If all
    tie, the metric tells nothing, and the last is selected.
    """

    by: By = Field(default_factory=lambda: {LOSS: 1.0})
    """The metric that selects: `loss` (default), one of `evaluate.minimal_pairs`, or one of a task or of a set of
    continuations (`lambada_openai/acc`, `facts/em`). Or several metrics with weights, `{loss: 1, blimp: 2}`: each
    metric ranks the snapshots, and the weighted mean of the ranks decides. `loss` is measured on `corpus.validation`.
    For any other metric, half of the items select, and only the other half are reported."""

    average: Average | None = None
    """One more candidate: the mean of the last snapshots, `{last: 5}`, or of the best ones, `{best: 5}`. Default:
    none."""
