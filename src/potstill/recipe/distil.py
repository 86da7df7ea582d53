"""`distil:` and `control:` — how the student is trained, and how the control is."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from potstill.recipe.section import Section, about_key

SET_BY_POTSTILL = {
    "output_dir": "the run folder holds everything",
    "seed": "`seeds:` lists the seeds",
    "data_seed": "`seeds:` lists the seeds",
    "label_smoothing_factor": "the loss is `distil.losses`",
    "use_liger_kernel": "the loss is `distil.losses`",
    "average_tokens_across_devices": "the loss is always divided by the supervised tokens of the whole step",
    "remove_unused_columns": "captured targets need them",
    "label_names": "the labels are `labels`",
    "logging_nan_inf_filter": "a loss that is not a number stops the run",
    "resume_from_checkpoint": "a run that was stopped goes on by itself",
    "ignore_data_skip": "a run that goes on must see the samples it would have seen",
    "auto_find_batch_size": "another batch size would be another experiment",
    "save_only_model": "a run that goes on needs the optimizer",
    "disable_tqdm": "potstill shows its own progress",
    "eval_strategy": "`keep: best` measures whenever it saves",
    "eval_steps": "`keep: best` measures whenever it saves",
    "metric_for_best_model": "`keep: best` goes by cross-entropy, which all trainings share",
    "greater_is_better": "`keep: best` goes by cross-entropy, which all trainings share",
    "use_cpu": "everything runs on the accelerator, or on the CPU where there is none",
    "load_best_model_at_end": "`keep: best` does it, and for the control as well",
}
"""Fields of `TrainingArguments` that a recipe may not set, and why."""


def _not_ours(training: dict[str, Any]) -> dict[str, Any]:
    for key in training:
        if key in SET_BY_POTSTILL:
            raise about_key(key, f"is set by potstill, because {SET_BY_POTSTILL[key]}; remove it")
    return training


Training = Annotated[dict[str, Any], AfterValidator(_not_ours)]

Keep = Literal["last", "best"]


LayerPair = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class LossBase(Section):
    weight: float = Field(1.0, ge=0)
    """This loss's share of the sum."""


class CrossEntropy(LossBase):
    """The negative log-likelihood of the text itself."""

    kind: Literal["cross_entropy"]
    """Which loss this is. It needs no teacher."""


class Divergence(LossBase):
    """A distance between the teacher's and the student's distribution over the next token."""

    kind: Literal["forward_kl", "reverse_kl", "total_variation", "adaptive_kl"]
    """Which loss this is."""

    temperature: float = Field(1.0, gt=0)
    """Both distributions are flattened by it, and the loss multiplied so that its gradient keeps its size."""


class JensenShannon(LossBase):
    """The generalised Jensen-Shannon divergence."""

    kind: Literal["jsd"]
    """Which loss this is."""

    temperature: float = Field(1.0, gt=0)
    """Both distributions are flattened by it, and the loss multiplied so that its gradient keeps its size."""

    beta: float = Field(0.5, gt=0, lt=1)
    """The teacher's share of the mixture that both are compared with."""


class SkewedDivergence(LossBase):
    """KL towards a mixture of teacher and student."""

    kind: Literal["skew_kl", "skew_reverse_kl"]
    """Which loss this is."""

    temperature: float = Field(1.0, gt=0)
    """Both distributions are flattened by it, and the loss multiplied so that its gradient keeps its size."""

    alpha: float = Field(0.1, gt=0, lt=1)
    """The share of the mixture that comes from the distribution measured from."""


class HiddenMatch(LossBase):
    """The distance between the hidden states of the student's layers and those of its teachers' layers."""

    kind: Literal["hidden_match"]
    """Which loss this is. The teachers must run beside the student: a capture keeps none of their layers."""

    distance: Literal["mse", "cosine"] = "mse"
    """`mse`: mean squared difference. `cosine`: one minus the cosine. Where the models have different hidden sizes, a
    linear map from the student's to the teacher's is learned for each pair of layers, and left out of the student."""

    layers: Literal["uniform"] | Annotated[list[LayerPair], Field(min_length=1)] = "uniform"
    """Pairs `[student's, teacher's]` of layers, counted from 0. `uniform`: each of the student's layers with the
    teacher's at the same relative depth."""


GivenLoss = Annotated[
    CrossEntropy | Divergence | JensenShannon | SkewedDivergence | HiddenMatch, Field(discriminator="kind")
]


def temperatures(losses: list[GivenLoss]) -> list[float]:
    """Those at which teachers' distributions are looked at."""
    return sorted({loss.temperature for loss in losses if not isinstance(loss, CrossEntropy | HiddenMatch)})


class KeptSnapshots(Section):
    """Weights that are kept on the way of a training, to be compared and chosen from afterwards."""

    count: int | None = Field(None, gt=0)
    """So many, the last step's among them."""

    spread: Literal["even", "geometric"] = "even"
    """How `count` of them lie: at equal distances, or each at a multiple of the step of the one before, so that most
    of them are early, where a student loses and recovers the most."""

    every: int | None = Field(None, gt=0)
    """In place of `count`: one whenever so many steps are done, and the last step's."""

    @model_validator(mode="after")
    def _says_which(self) -> "KeptSnapshots":
        if (self.count is None) == (self.every is None):
            raise about_key("count", "or `every`: give one of the two, as in `snapshots: {every: 100}`")
        if self.every is not None and self.spread != "even":
            raise about_key("spread", "goes with `count`; leave it out, or give `count` in place of `every`")
        return self

    def steps(self, last: int) -> list[int]:
        """The steps after which weights are kept, in a training of `last` steps."""
        if self.every is not None:
            return [*range(self.every, last, self.every), last]
        assert self.count is not None
        count = min(self.count, last)
        if self.spread == "even":
            return [round(place * last / count) for place in range(1, count + 1)]
        found = [0]
        for place in range(1, count + 1):
            # Steps are whole numbers: where the series is slower than that, each is the next one.
            found.append(max(found[-1] + 1, round(last ** (place / count))))
        return sorted({min(step, last) for step in found[1:]})


def _counted(given: Any) -> Any:
    return {"count": given} if isinstance(given, int) and not isinstance(given, bool) else given


Snapshots = Annotated[KeptSnapshots, BeforeValidator(_counted, json_schema_input_type=KeptSnapshots | int)]


class Distil(Section):
    """The student's training."""

    losses: list[GivenLoss] = Field(min_length=1)
    """The losses, added up by their weights. Each is a mean over the supervised tokens of the optimizer step."""

    mix: Literal["probabilities", "logits"] = "probabilities"
    """How several teachers are averaged."""

    reduction: Literal["token", "sequence"] = "token"
    """What a divergence is a mean over. `token`: over the supervised tokens, as cross-entropy is, so that `weight` says
    how much each counts. `sequence`: over samples, and a sum over the positions of each: with samples of 128 tokens it
    counts 128 times what its weight says. Baby Llama was published with it, under a weight of one half."""

    keep: Keep = "last"
    """Which weights are the student, and the control: the `last`, or the `best` of those that were saved (every
    `training.save_steps`), by cross-entropy on `corpus.validation`."""

    snapshots: Snapshots | None = None
    """Keep the weights of student and control on the way: so many, as in `snapshots: 30`, or `{every: 100}`, or
    `{count: 30, spread: geometric}`. `select` chooses from them, and `potstill evaluate RUN --snapshots all` shows
    how they fare. Left out: the end alone is kept."""

    training: Training = Field(default_factory=dict)
    """Any field of transformers' `TrainingArguments`, under its own name."""


class Control(Section):
    """The control: the student's start, the student's samples in the same order, no teacher."""

    training: Training = Field(default_factory=dict)
    """Fields that differ from `distil.training`."""
