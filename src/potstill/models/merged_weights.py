"""Merged weights: those of a plain model that computes what a model with an adapter does; the model stays as it is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def plain_model(model: Any) -> Any:
    """The model under an adapter, whose class and configuration are those of the merged weights."""
    return model.get_base_model() if _has_adapter(model) else model


def why_not_merged(model: Any) -> str | None:
    """Why the weights cannot be merged, as a clause; None where they can, or where there is no adapter.

    Other kinds than LoRA, and its variants, change more than one weight in a way of their own.
    """
    if not _has_adapter(model):
        return None
    from peft.tuners.lora import Embedding, Linear, LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    if any(config.peft_type != "LORA" for config in model.peft_config.values()):
        return "it has an adapter that is not LoRA"
    for layer in model.modules():
        if isinstance(layer, AuxiliaryTrainingWrapper) and not isinstance(layer, ModulesToSaveWrapper):
            return "it trains some tokens of its embeddings alone"
        if isinstance(layer, LoraLayer) and (
            not isinstance(layer, Linear | Embedding) or layer.lora_variant or any(layer.lora_bias.values())
        ):
            return "its LoRA adapter is of a variant that is not one product of two matrices"
    return None


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Each weight of the plain model, by its name there. Only one merged weight at a time takes memory of its own.

    Args:
        model: a model that has no adapter, or one for which :func:`why_not_merged` finds no reason.
    """
    if not _has_adapter(model):
        yield from model.state_dict().items()
        return
    base = model.get_base_model()
    layers = dict(base.named_modules())
    for name, weight in base.state_dict().items():
        path, _, last = name.rpartition(".")
        layer, _, kept = path.rpartition(".")
        if kept == "base_layer":
            yield f"{layer}.{last}", _with_adapter(layers[layer], weight) if last == "weight" else weight
        elif not any(part.startswith(("lora_", "modules_to_save", "original_module")) for part in path.split(".")):
            yield name, weight
    yield from _trained_whole(layers)


def _has_adapter(model: Any) -> bool:
    return bool(getattr(model, "peft_config", None)) and hasattr(model, "get_base_model")


@torch.no_grad()
def _with_adapter(layer: Any, weight: Tensor) -> Tensor:
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight


def _trained_whole(layers: dict[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """The weights of modules that are trained as a whole beside the adapter."""
    from peft.utils import ModulesToSaveWrapper

    for path, layer in layers.items():
        if isinstance(layer, ModulesToSaveWrapper):
            trained: Any = layer.modules_to_save[layer.active_adapters[0]]
            yield from ((f"{path}.{name}", weight) for name, weight in trained.state_dict().items())
