"""Folder: a student as a folder for transformers: plain in float32, or with weights of 8 bits."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from potstill.errors import UserError, first_line
from potstill.files.atomic import remove
from potstill.models.folder import save_model
from potstill.models.pretrained import ModelSource
from potstill.models.quantization import REFUSED, quantization_config

INT8 = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
"""Whole numbers for weights, one scale for each row; products in the format of the inputs."""


def write_merged(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Save a plain model in float32 with its tokenizer."""
    save_model(model, tokenizer, folder)


def write_int8(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Save a plain model with weights of 8 bits, and its tokenizer.

    Raises:
        UserError: torchao is not installed, or cannot quantise the model.
    """
    how = quantization_config(INT8, "export.to")
    whole = folder.with_name(f".{folder.name}.whole")
    save_model(model, tokenizer, whole)
    try:
        small = ModelSource(str(whole), "the student").weights(quantization_config=how, dtype=torch.float32)
        save_model(small, tokenizer, folder)
    except REFUSED as error:
        raise UserError(f"`export.to`: torchao cannot quantise this model to int8 ({first_line(error)})") from error
    finally:
        remove(whole)


def open_folder(folder: Path, device: torch.device) -> tuple[PreTrainedModel, Any]:
    """The model and the tokenizer of a folder, as a user of it loads them.

    Raises:
        UserError: it cannot be loaded, or is not whole.
    """
    source = ModelSource(str(folder), f"the exported folder {folder.name}")
    return source.weights(dtype="auto").to(device).eval(), source.tokenizer()
