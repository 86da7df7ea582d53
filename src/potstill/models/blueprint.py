"""Blueprint: a configuration in a recipe, checked before anything is spent. The model is made without its weights."""

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from potstill.errors import UserError
from potstill.models.from_scratch import from_scratch
from potstill.models.size import check_length, size_of

MOST_MODULES = 2000
"""Far more layers than any language model has. Each is made one by one."""
COUNTS = re.compile("layer|block|expert")
"""How the fields of configurations are called that count modules."""
LAYERS = re.compile("n_layers?|num_layers|num_hidden_layers")
NO_TOKENS = SimpleNamespace(bos_token_id=None, eos_token_id=None, pad_token_id=None)
LEAST_VOCABULARY = 259
"""The tokens of the smallest tokenizer that a run trains."""


def check_blueprint(config: Mapping[str, Any], key: str, vocabulary: int | None, length: int) -> int:
    """Refuse a configuration from which no model for this run can be made.

    Args:
        config: the fields of a transformers configuration, with `model_type`.
        key: their place in the recipe, for messages.
        vocabulary: the number of logits; None where it is not known yet.
        length: the number of tokens in a sample.

    Returns:
        The number of parameters; a lower bound where the vocabulary is not known.

    Raises:
        UserError: transformers makes no model of it, or it has too few positions.
    """
    for name, value in config.items():
        if (wrong := _wrong(name, value)) is not None:
            raise UserError(f"`{key}.{name}` is {value!r}, {wrong}")
    size = vocabulary or config.get("vocab_size", LEAST_VOCABULARY)
    model = from_scratch(config, key, NO_TOKENS, size, seed=0, device="meta")
    shape = size_of(model.config, 0)
    heads, shared = shape["heads"], shape["key_value_heads"]
    if heads and shared and heads % shared:
        raise UserError(f"`{key}`: {heads} attention heads cannot share {shared} key and value heads; give a divisor")
    check_length(model.config, length, f"the model of `{key}`", "corpus.sequence_length")
    return sum(weight.numel() for weight in model.parameters())


def _wrong(name: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if (LAYERS.fullmatch(name) and value < 1) or (name == "vocab_size" and value < 1):
        return "and must be at least 1"
    if COUNTS.search(name) and value > MOST_MODULES:
        return f"and no model has more than {MOST_MODULES:,}; lower it"
    if "drop" in name and not 0 <= value < 1:
        return "and a share of dropped values lies from 0 to below 1"
    return None
