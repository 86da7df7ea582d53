"""Tensors: the weights of a model by llama.cpp's names, and in its order of rows."""

from collections.abc import Iterator
from typing import Any

from gguf import MODEL_TENSOR, TENSOR_NAMES, TensorNameMap, get_tensor_name_map
from torch import Tensor
from transformers import PreTrainedModel

from potstill.errors import UserError
from potstill.export.gguf.architecture import Architecture, family_of, llama3_rope

ROPE_FACTORS = f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight"


def tensors_of(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Each weight of a model in float32, by llama.cpp's name.

    A head that is tied to the embeddings is left out: llama.cpp reads the embeddings then.

    Raises:
        UserError: llama.cpp does not know the model, or one of its weights.
    """
    config = model.config.get_text_config()
    family, head = family_of(config), model.get_output_embeddings().weight
    is_tied = head is model.get_input_embeddings().weight
    names = get_tensor_name_map(family.arch, config.num_hidden_layers)
    for name, weight in model.named_parameters():
        if not (is_tied and weight is head and name.startswith("lm_head")):
            yield _name(names, name), _arranged(name, weight.detach().float().cpu(), config, family)
    factors = llama3_rope(config)
    if factors is not None:
        yield ROPE_FACTORS, factors


def _name(names: TensorNameMap, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(
            f"`export.to`: llama.cpp knows no weight {name!r} of this model; export `merged` or `int8`, which "
            "transformers runs"
        )
    return found


def _arranged(name: str, weight: Tensor, config: Any, family: Architecture) -> Tensor:
    """A weight as llama.cpp multiplies it."""
    kind = config.model_type
    if kind == "gpt2" and weight.ndim == 2 and ".h." in name:
        # Its Conv1D multiplies from the other side.
        return weight.T.contiguous()
    if kind == "gpt_neox" and ".query_key_value." in name:
        return _by_part(weight, config.num_attention_heads)
    if not family.pairs_halves and (".q_proj." in name or ".k_proj." in name):
        heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
        return _paired_by_neighbours(weight, heads)
    if family.adds_one_to_norms and name.endswith("norm.weight"):
        return weight + 1
    return weight


def _paired_by_neighbours(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, with the two rows of each rotary pair side by side instead of half a head apart."""
    halves = weight.view(heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def _by_part(weight: Tensor, heads: int) -> Tensor:
    """All queries, then all keys, then all values, instead of the three of each head together."""
    parts = weight.view(heads, 3, -1, *weight.shape[1:])
    return parts.transpose(0, 1).reshape(weight.shape)
