"""`facts:` — what is known of models and text that are not on this machine. Only `potstill plan` reads it."""

from pydantic import Field

from potstill.recipe.section import Section
from potstill.recipe.student import ModelConfig
from potstill.recipe.training_fields import AtLeastOne


class TextFacts(Section):
    """Counts of the corpus, with this recipe's tokenizer and layout."""

    train_samples: AtLeastOne | None = None
    """The number of training samples, or of training questions."""

    train_tokens: AtLeastOne | None = None
    """The number of training tokens, without padding."""

    held_out_samples: AtLeastOne | None = None
    """The number of held-out documents or questions."""

    held_out_tokens: AtLeastOne | None = None
    """The number of held-out tokens."""

    prompt_tokens: AtLeastOne | None = None
    """The mean length of a prompt in tokens (questions only)."""

    answer_tokens: AtLeastOne | None = None
    """The mean length of an answer in tokens (questions only)."""


class Facts(Section):
    """What is known of models and text. It changes no step of a run, and no step reads it."""

    models: dict[str, ModelConfig] = Field(default_factory=dict)
    """The published configuration of each model of the hub, by its name there: the fields of its `config.json`."""

    text: TextFacts = TextFacts()
    """Counts of the corpus, where its text is not on this machine."""
