"""`distil:` and `control:` — how the student and the control are trained."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from potstill.recipe.losses import GivenLoss
from potstill.recipe.on_policy import OnPolicy
from potstill.recipe.section import Section, about_key
from potstill.recipe.training_fields import Training, TrainingFields

Keep = Literal["last", "best"]


class KeptSnapshots(Section):
    """The snapshots of a training: weights that are kept to look at and to select from."""

    count: int | None = Field(None, gt=0)
    """The number of snapshots, the last step's included."""

    spread: Literal["even", "geometric"] = "even"
    """How `count` snapshots are spread. `even` (default): at equal distances. `geometric`: each step is a constant
    multiple of the one before, so most snapshots are early, where a student loses and recovers the most."""

    every: int | None = Field(None, gt=0)
    """Instead of `count`: keep a snapshot each time this number of steps is done, and at the last step."""

    @model_validator(mode="after")
    def _has_one_rule(self) -> "KeptSnapshots":
        if (self.count is None) == (self.every is None):
            raise about_key("count", "give either `count` or `every`, as in `snapshots: {every: 100}`")
        if self.every is not None and self.spread != "even":
            raise about_key("spread", "needs `count`; remove it, or give `count` instead of `every`")
        return self

    def steps(self, last: int) -> list[int]:
        """The steps after which a training of `last` steps keeps a snapshot."""
        if self.every is not None:
            return [*range(self.every, last, self.every), last]
        assert self.count is not None
        count = min(self.count, last)
        if self.spread == "even":
            return [round(place * last / count) for place in range(1, count + 1)]
        found = [0]
        for place in range(1, count + 1):
            # Steps are whole numbers. Where the series grows by less than one, each step is the next whole number.
            found.append(max(found[-1] + 1, round(last ** (place / count))))
        return sorted({min(step, last) for step in found[1:]})


def _as_count(given: Any) -> Any:
    return {"count": given} if isinstance(given, int) and not isinstance(given, bool) else given


Snapshots = Annotated[KeptSnapshots, BeforeValidator(_as_count, json_schema_input_type=KeptSnapshots | int)]


class Distil(Section):
    """The student's training."""

    losses: list[GivenLoss] = Field(min_length=1)
    """The losses, added up with their weights. Each loss is a mean over the supervised tokens of an optimizer step."""

    mix: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged where there are several teachers: their `probabilities` (default) or their `logits`."""

    reduction: Literal["token", "sequence"] = "token"
    """How a divergence is averaged. `token` (default): over the supervised tokens, as cross-entropy is, so `weight` is
    what a loss counts. `sequence`: summed over the positions of a sample, then averaged over the samples, so that with
    samples of 128 tokens a divergence counts 128 times its weight. Baby Llama was published with `sequence` and a
    weight of one half."""

    on_policy: OnPolicy | None = None
    """Let the student write a share of its samples itself, and let the teachers say what they would have written at
    each of its tokens. Default: all samples are those of the corpus."""

    keep: Keep = "last"
    """Which weights become the student and the control. `last` (default): those of the last step. `best`: of the
    weights that were saved (every `training.save_steps`), those with the lowest cross-entropy on
    `corpus.validation`."""

    snapshots: Snapshots | None = None
    """Keep snapshots of student and control during training: their number, as in `snapshots: 30`, or `{every: 100}`, or
    `{count: 30, spread: geometric}`. `select` chooses from them, and `potstill evaluate RUN --snapshots all` measures
    them. Default: only the final weights are kept."""

    training: Training = Field(default_factory=TrainingFields)
    """Any field of transformers' `TrainingArguments`, under its own name."""


class Control(Section):
    """The control: it has the student's start and the student's samples in the same order, but no teacher."""

    training: Training = Field(default_factory=TrainingFields)
    """Fields that differ from `distil.training`."""
