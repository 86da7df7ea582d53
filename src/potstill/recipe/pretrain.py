"""`pretrain:` — teachers that are trained in the run, from random weights, on its own corpus."""

from pydantic import Field

from potstill.recipe.distil import Keep
from potstill.recipe.section import Importance, Section
from potstill.recipe.student import ModelConfig
from potstill.recipe.teacher_rows import When
from potstill.recipe.training_fields import Training, TrainingFields


class Pretrained(Section):
    """A teacher that is trained here by cross-entropy. It may have any architecture of transformers."""

    weight: Importance = 1.0
    """The weight of this teacher among several. Weights are divided by their sum. Default: 1."""

    when: When | None = None
    """The rows that this teacher teaches, though it is trained on all of them, such as `{source: gsm8k}` or
    `{column: kind, equals: chat}`; as in `teachers`. Default: all rows."""

    config: ModelConfig
    """The fields of a transformers configuration, with `model_type`. The vocabulary size comes from the tokenizer."""

    training: Training = Field(default_factory=TrainingFields)
    """Any field of transformers' `TrainingArguments`, under its own name."""

    keep: Keep = "last"
    """Which weights become the teacher. `last` (default): those of the last step. `best`: of the weights that were
    saved, those with the lowest cross-entropy on `corpus.validation`."""

    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of its first weights and of the order of its samples. Default: 0. Give two teachers of one shape
    different seeds."""
