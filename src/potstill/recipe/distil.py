"""`distil:` and `control:` — how the student is trained, and how the control is."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

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


Loss = Annotated[
    CrossEntropy | Divergence | JensenShannon | SkewedDivergence | HiddenMatch, Field(discriminator="kind")
]


def temperatures(losses: list[Loss]) -> list[float]:
    """Those at which teachers' distributions are looked at."""
    return sorted({loss.temperature for loss in losses if not isinstance(loss, CrossEntropy | HiddenMatch)})


class Distil(Section):
    """The student's training."""

    losses: list[Loss] = Field(min_length=1)
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

    training: Training = Field(default_factory=dict)
    """Any field of transformers' `TrainingArguments`, under its own name."""


class Control(Section):
    """The control: the student's start, the student's samples in the same order, no teacher."""

    training: Training = Field(default_factory=dict)
    """Fields that differ from `distil.training`."""
