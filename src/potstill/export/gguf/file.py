"""File: writes a model and its tokenizer as one GGUF file, whole or not at all."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH_NAMES, GGUFWriter, dequantize
from transformers import PreTrainedModel

from potstill.errors import UserError
from potstill.export.gguf.architecture import add_architecture, family_of
from potstill.export.gguf.quantize import EMBEDDINGS, FILE_TYPES, HEAD, TensorPlace, quantized, type_of
from potstill.export.gguf.tensors import tensors_of
from potstill.export.gguf.tokenizer import add_tokenizer, kind_of
from potstill.files.atomic import put
from potstill.models.head import Head
from potstill.models.head_extraction import head_of

QUANTIZATION_VERSION = 2
"""Of ggml's blocks."""


def end_tokens(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """The ids after which a model stops: the tokenizer's end first, then the others of its generation settings."""
    given = model.generation_config.eos_token_id
    found = [] if given is None else [given] if isinstance(given, int) else list(given)
    return list(dict.fromkeys(each for each in (tokenizer.eos_token_id, *found) if each is not None))


def write_gguf(model: PreTrainedModel, tokenizer: Any, file: Path, kind: str, name: str) -> None:
    """Write a GGUF file.

    Args:
        model: the model, plain and in float32.
        tokenizer: its tokenizer.
        file: where to write.
        kind: the type of the file, a key of :data:`FILE_TYPES`.
        name: the model's name in the file.

    Raises:
        UserError: llama.cpp does not know such a model or tokenizer, or a package is missing.
    """
    config = model.config.get_text_config()
    family = family_of(config)
    kind_of(tokenizer)
    partial = file.with_name(f".{file.name}.partial")
    writer = GGUFWriter(None, MODEL_ARCH_NAMES[family.arch])
    writer.add_name(name)
    writer.add_file_type(int(FILE_TYPES[kind].number))
    writer.add_quantization_version(QUANTIZATION_VERSION)
    add_architecture(writer, config)
    add_tokenizer(writer, tokenizer, config.vocab_size, end_tokens(model, tokenizer))
    tensors = dict(tensors_of(model))
    tied = HEAD not in tensors and EMBEDDINGS in tensors
    for each, weight in tensors.items():
        chosen = type_of(TensorPlace(each, tuple(weight.shape), config.num_hidden_layers, tied), FILE_TYPES[kind])
        writer.add_tensor(each, quantized(weight, chosen, each), raw_dtype=chosen)
    try:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        put(partial, file)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def head_in_file(model: PreTrainedModel, kind: str) -> Head:
    """The head of a model as a file of this type has it, in float32."""
    head = head_of(model)
    if head is None:
        raise UserError("`export.to`: the head of this model is no matrix; export `merged` or `int8`")
    weight, tied = head.weight.detach().float().cpu(), model.config.get_text_config().tie_word_embeddings
    place = TensorPlace(
        EMBEDDINGS if tied else HEAD, tuple(weight.shape), model.config.get_text_config().num_hidden_layers, tied
    )
    chosen = type_of(place, FILE_TYPES[kind])
    rounded = dequantize(quantized(weight, chosen, place.name), chosen)
    return replace(head, weight=torch.from_numpy(np.array(rounded, dtype=np.float32)))
