"""Layer pruning: makes a student from some of its teacher's layers."""

import re
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from potstill.errors import UserError

LAYER_LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type", "indexer_types")
"""Fields of a configuration that hold one entry per layer."""

LAYER_NUMBERS = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "attn_layer_indices")
"""Fields of a configuration that list some of the layers by their numbers."""

FIRST_LAYERS = ("first_k_dense_replace",)
"""Fields of a configuration that count the first layers of another kind."""

BY_NUMBER = "scale_attn_by_inverse_layer_idx"
"""A field of GPT-2's configuration that makes a layer's output depend on its number."""


def chosen_layers(total: int, layers: int | list[int], rule: str) -> list[int]:
    """The layers to keep, counted from 0, in order.

    Args:
        total: the number of the teacher's layers.
        layers: the number of layers to keep, or their numbers.
        rule: `spread`: round(i * (total - 1) / (layers - 1)), so the first and the last are kept and the distances are
            even; a single layer is the last. `ends`: two fifths (rounded down) of the kept layers are the teacher's
            first, two are its last, and the others lie at even distances in between. With fewer than five layers, and
            for any other rule, as `spread`.

    Raises:
        UserError: a layer does not exist or is named twice, there are no layers, or there are more than the teacher's.
    """
    if isinstance(layers, list):
        if wrong := [layer for layer in layers if not 0 <= layer < total]:
            raise UserError(f"`student.layers` names {wrong[0]}, but the teacher's layers are 0 to {total - 1}")
        if sorted(set(layers)) != layers or not layers:
            raise UserError("`student.layers` must name each layer once, in rising order")
        return layers
    if not 1 <= layers <= total:
        raise UserError(f"`student.layers` is {layers}, but the teacher has {total} layers")
    if rule != "ends" or layers < 5:
        return _spread(0, total - 1, layers)
    front = layers * 2 // 5
    middle = _spread(front - 1, total - 2, layers - front)[1:]
    return [*range(front), *middle, total - 1]


def _spread(first: int, last: int, count: int) -> list[int]:
    if count == 1:
        return [last]
    return [first + round(index * (last - first) / (count - 1)) for index in range(count)]


def prune_layers(teacher: PreTrainedModel, keep: list[int]) -> PreTrainedModel:
    """A copy of the teacher with only the layers `keep`; all other weights are the teacher's.

    Raises:
        UserError: the model has no list of layers, or its layers cannot be left out.
    """
    if getattr(teacher.config, BY_NUMBER, False):
        raise UserError(
            f"`student.start`: with `{BY_NUMBER}` a layer's output depends on its number, so none can be left out; "
            "use another `student.start`"
        )
    prefix = _layers_prefix(teacher)
    number = {old: new for new, old in enumerate(keep)}
    weights: dict[str, Tensor] = {}
    for name, tensor in teacher.state_dict().items():
        match = re.match(rf"{re.escape(prefix)}\.(\d+)\.(.*)", name)
        if match is None:
            weights[name] = tensor
        elif int(match[1]) in number:
            weights[f"{prefix}.{number[int(match[1])]}.{match[2]}"] = tensor
    try:
        student = AutoModelForCausalLM.from_config(_shortened(teacher.config, number), dtype=teacher.dtype)
        student.load_state_dict(weights)
    except (RuntimeError, ValueError, StrictDataclassError) as error:
        kind = type(teacher).__name__
        raise UserError(f"`student.start`: potstill cannot leave layers out of a {kind}; use another start") from error
    student.generation_config = teacher.generation_config
    return student


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's layers.

    Raises:
        UserError: the model has no list of layers.
    """
    layers = model.get_submodule(_layers_prefix(model))
    assert isinstance(layers, nn.ModuleList)
    return layers


def _layers_prefix(model: PreTrainedModel) -> str:
    """The name of the list of a model's layers, such as `model.layers` or `transformer.h`."""
    total = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == total:
            return name
    raise UserError(f"{type(model).__name__} has no list of its {total} layers, so none can be left out")


def _shortened(config: Any, number: dict[int, int]) -> Any:
    """The configuration of a model that keeps some layers; `number` maps their old numbers to the new ones."""
    total, fields = config.num_hidden_layers, config.to_dict()
    fields["num_hidden_layers"] = len(number)
    for name in LAYER_LISTS:
        if isinstance(fields.get(name), list) and len(fields[name]) == total:
            fields[name] = [fields[name][layer] for layer in number]
    for name in LAYER_NUMBERS:
        if isinstance(fields.get(name), list):
            fields[name] = [number[layer] for layer in fields[name] if layer in number]
    for name in FIRST_LAYERS:
        if isinstance(fields.get(name), int):
            fields[name] = sum(layer < fields[name] for layer in number)
    return config.__class__.from_dict(fields)
