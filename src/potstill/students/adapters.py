"""Adapters (LoRA): small weights that are trained upon a start, which itself stays as it is."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from potstill.errors import UserError, first_line
from potstill.recipe.foreign_fields import check_fields

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

KEY = "student.adapter"
CONFIG = "adapter_config.json"
"""What makes a folder an adapter's, to peft, to transformers and here."""
NAMES_OF_MODULES = ("target_modules", "modules_to_save")
"""Fields of `LoraConfig` that may list modules by their names, or by the ends of them."""


def adapter_config(adapter: Mapping[str, Any]) -> "LoraConfig":
    """The recipe's adapter as peft takes it.

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
    """The start with a new adapter within it; only what is the adapter's has gradients.

    Args:
        start: the model, of 4 or 8 bits or not. It is changed, and must not be used by itself any more.
        adapter: the fields of `LoraConfig`.
        seed: draws the adapter's weights; the random state of others is left alone.

    Raises:
        UserError: what the adapter names is not in the model, or peft refuses it.
    """
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    config = adapter_config(adapter)
    _check_names(start, adapter)
    if getattr(start, "is_quantized", False):
        # Checkpointed activations are the training's business, which enables them itself.
        start = prepare_model_for_kbit_training(start, use_gradient_checkpointing=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model = get_peft_model(start, config)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise UserError(f"`{KEY}`: peft refuses it: {first_line(error)}") from error
    assert isinstance(model, PeftModel), "one adapter of one kind"
    return model


def check_can_merge(model: "PeftModel") -> None:
    """Refuse to merge what a plain folder could not hold.

    Raises:
        UserError: the embeddings are the head too, and one of the two is adapted.
    """
    base: Any = model.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    adapted = any(weight.requires_grad for end in ends for weight in end.parameters())
    if adapted and getattr(base.config, "tie_word_embeddings", False):
        raise UserError(
            "`student.merge`: this model's embeddings are its head too, and the adapter changes one of the two, which "
            "a plain folder cannot hold; leave them out of the adapter, or do not merge"
        )


def merged(start: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A plain model in float32 that does what the start does with the adapter in `folder`, but for rounding.

    Weights of 4 or 8 bits are made plain first: it is them that the adapter was trained upon, and not those that they
    were rounded from.
    """
    from peft import PeftModel

    start = start.dequantize(dtype=torch.float32) if getattr(start, "is_quantized", False) else start.float()
    upon: Any = PeftModel.from_pretrained(start, str(folder))
    return upon.merge_and_unload(safe_merge=True)


def _check_names(model: PreTrainedModel, adapter: Mapping[str, Any]) -> None:
    """Peft adapts the modules that it finds, and says nothing of the others as long as it finds one."""
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
    """The last parts of their names, each once."""
    kinds = (nn.Linear, Conv1D)
    return list(
        dict.fromkeys(name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds))
    )
