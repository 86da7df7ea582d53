"""Training arguments: a recipe's `training:` as transformers' own, with what the project itself sets."""

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from transformers import TrainingArguments

from potstill.hardware import device
from potstill.words import UserError, first_line

DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 1,
    "save_steps": 500,
    "save_total_limit": 1,
    "dataloader_pin_memory": device().type != "cpu",
    "ddp_find_unused_parameters": False,
    "include_num_input_tokens_seen": "non_padding",
}
"""What a recipe may change."""


def training_arguments(training: dict[str, Any], key: str, output_dir: Path, seed: int) -> TrainingArguments:
    """Build `TrainingArguments`.

    Args:
        training: the recipe's fields.
        key: where they stand in the recipe, for messages.
        output_dir: where checkpoints go.
        seed: the order of the samples, and every other random choice of the training.

    Raises:
        UserError: a field is unknown, or transformers refuses a value.
    """
    known = {field.name for field in fields(TrainingArguments) if field.init}
    for name in training:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "see the documentation of TrainingArguments"
            raise UserError(f"`{key}.{name}` is no field of TrainingArguments; {hint}")
    _check_types(training, key)
    ours = {
        "output_dir": str(output_dir),
        "seed": seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "use_cpu": device().type == "cpu",
    }
    try:
        return TrainingArguments(**(DEFAULTS | training | ours))
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`{key}`: transformers refuses it: {first_line(error)}") from error


def _check_types(training: dict[str, Any], key: str) -> None:
    """TrainingArguments keeps a word where a number belongs, and a training that runs for hours trips over it."""
    types = get_type_hints(TrainingArguments)
    for name, value in training.items():
        try:
            TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise UserError(f"`{key}.{name}` is {value!r}: {error.errors()[0]['msg'].lower()}") from None
