"""`pretrain:` — teachers that are trained here, from nothing, on the run's own corpus."""

from pydantic import Field

from potstill.recipe.distil import Keep, Training
from potstill.recipe.section import Section
from potstill.recipe.student import ModelConfig


class Pretrained(Section):
    """A teacher of any architecture that transformers has, trained by cross-entropy."""

    weight: float = Field(1.0, gt=0)
    """This teacher's share where there are several; shares are divided by their sum."""

    config: ModelConfig
    """The fields of a transformers configuration, `model_type` among them; the vocabulary is the tokenizer's."""

    training: Training = Field(default_factory=dict)
    """Any field of transformers' `TrainingArguments`, under its own name."""

    keep: Keep = "last"
    """Which weights teach: the `last`, or the `best` of those that were saved, by cross-entropy on
    `corpus.validation`."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Its first weights and the order of its samples. Two teachers of one shape differ by it."""
