"""Adapters (LoRA): small trained weights on top of a start that does not change."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from potstill.errors import UserError, first_line
from potstill.recipe.foreign_fields import check_fields

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

KEY = "student.adapter"
CONFIG = "adapter_config.json"
"""The file by which peft, transformers and potstill recognise a folder that holds an adapter."""
WEIGHTS = "adapter_model.safetensors"
NAMES_OF_MODULES = ("target_modules", "modules_to_save")
"""Fields of `LoraConfig` that may list modules by their names or by the last parts of their names."""


def adapter_config(adapter: Mapping[str, Any]) -> "LoraConfig":
    """The recipe's adapter as a configuration of peft.

    Raises:
        UserError: a field is unknown, or peft refuses a value.
    """
    from peft import LoraConfig, TaskType

    check_fields(adapter, LoraConfig, KEY)
    try:
        return LoraConfig(task_type=TaskType.CAUSAL_LM, **adapter)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`{KEY}`: peft refuses it: {first_line(error)}") from error


def with_adapter(start: PreTrainedModel, adapter: Mapping[str, Any], seed: int) -> "PeftModel":
    """Add a new adapter to the start; only the adapter's weights have gradients.

    Args:
        start: the model, quantised to 4 or 8 bits or not. It is changed and must not be used by itself any more.
        adapter: the fields of `LoraConfig`.
        seed: the seed of the adapter's weights; the global random state stays unchanged.

    Raises:
        UserError: the adapter names a module that the model does not have, or peft refuses it.
    """
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    config = adapter_config(adapter)
    _check_names(start, adapter)
    if getattr(start, "is_quantized", False):
        # The training itself enables gradient checkpointing.
        start = prepare_model_for_kbit_training(start, use_gradient_checkpointing=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = get_peft_model(start, config)
        except (ValueError, TypeError, NotImplementedError, re.error) as error:
            raise UserError(f"`{KEY}`: peft refuses it: {first_line(error)}") from error
    assert isinstance(model, PeftModel), "one adapter of one kind"
    return model


def check_can_merge(model: "PeftModel") -> None:
    """Refuse to merge an adapter if a plain folder could not hold the result.

    Raises:
        UserError: embeddings and head are tied, and the adapter changes one of the two.
    """
    base: Any = model.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    adapted = any(weight.requires_grad for end in ends for weight in end.parameters())
    if adapted and getattr(base.config, "tie_word_embeddings", False):
        raise UserError(
            "`student.merge`: this model's embeddings and head are tied, and the adapter changes one of the two, which "
            "a plain folder cannot hold; leave them out of the adapter, or do not merge"
        )


def merged(start: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A plain model in float32 that computes the same, up to rounding, as the start with the adapter in `folder`.

    Weights of 4 or 8 bits are dequantised first, because the adapter was trained on them, not on the weights that they
    were quantised from.
    """
    start = start.dequantize(dtype=torch.float32) if getattr(start, "is_quantized", False) else start.float()
    adapted: Any = load_adapter(start, folder)
    return adapted.merge_and_unload(safe_merge=True)


def load_adapter(start: PreTrainedModel, folder: Path) -> "PeftModel":
    """The start with the adapter in a folder, which peft loads even where weights of it are missing.

    Raises:
        UserError: the adapter cannot be loaded on this start, or its file lacks weights.
    """
    from peft import PeftModel, get_peft_model_state_dict

    try:
        model = PeftModel.from_pretrained(start, str(folder))
        with safe_open(folder / WEIGHTS, "pt") as content:
            found = set(content.keys())
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, re.error) as error:
        raise UserError(f"the adapter in {folder} cannot be loaded: {first_line(error)}; make it again") from error
    lost = sorted(get_peft_model_state_dict(model, save_embedding_layers=False).keys() - found)
    if lost:
        raise UserError(f"the adapter in {folder} lacks {len(lost):,} weights, such as {lost[0]}; make it again")
    return model


def _check_names(model: PreTrainedModel, adapter: Mapping[str, Any]) -> None:
    """Refuse names of missing modules. Peft ignores them silently as long as it finds one module."""
    modules = [name for name, _ in model.named_modules()]
    for field in NAMES_OF_MODULES:
        given = adapter.get(field)
        for name in given if isinstance(given, list) else ():
            if not any(module == name or module.endswith(f".{name}") for module in modules):
                linear = _linear_layers(model)
                near = difflib.get_close_matches(name, linear, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"its linear layers are {', '.join(linear)}"
                raise UserError(f"`{KEY}.{field}`: {type(model).__name__} has no module {name!r}; {hint}")


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """The distinct last parts of the names of all linear layers."""
    kinds = (nn.Linear, Conv1D)
    return list(
        dict.fromkeys(name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds))
    )
