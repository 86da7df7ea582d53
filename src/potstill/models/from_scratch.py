"""Models with random weights: any architecture of transformers, by its configuration."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from potstill.errors import UserError, first_line
from potstill.models.causality import check_causal


def from_scratch(
    config: Mapping[str, Any], key: str, tokenizer: Any, vocabulary: int, seed: int, device: str = "cpu"
) -> PreTrainedModel:
    """A model in float32 with random weights.

    Args:
        config: the fields of a transformers configuration, with `model_type`.
        key: their place in the recipe, for messages.
        tokenizer: gives the special tokens.
        vocabulary: the number of logits.
        seed: the seed of the weights.
        device: `meta` makes a model without weights, to inspect it.

    Raises:
        UserError: transformers makes no causal language model of the configuration, or it is for another vocabulary.
    """
    fields = dict(config)
    kind = fields.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"`{key}.model_type`: transformers has no {kind!r}{_hint(kind, CONFIG_MAPPING)}")
    _check_fields(fields, CONFIG_MAPPING[kind], key)
    if fields.setdefault("vocab_size", vocabulary) != vocabulary:
        raise UserError(
            f"`{key}.vocab_size` is {fields['vocab_size']:,}, but the run's models have {vocabulary:,}; remove it"
        )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        fields.setdefault(name, getattr(tokenizer, name))
    try:
        made = AutoConfig.for_model(kind, **fields)
        set_seed(seed)
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError, StrictDataclassError) as error:
        raise UserError(f"`{key}` makes no model: {first_line(error)}") from error
    if device != "meta":
        check_causal(model, f"`{key}`")
    return model


def _check_fields(fields: dict[str, Any], config_class: Any, key: str) -> None:
    """Refuse unknown fields. A configuration would ignore them, and a mistyped size would be the default size."""
    known = {*config_class().to_dict(), *config_class.attribute_map}
    for name in fields:
        if name not in known:
            raise UserError(f"`{key}.{name}`: {config_class.__name__} has no such field{_hint(name, known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else "; see the documentation of transformers"
