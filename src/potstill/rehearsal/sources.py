"""Sources: the configuration and the tokenizer of a model that a recipe names, from what is on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import CONFIG_MAPPING

from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.files.named_files import named_folder
from potstill.rehearsal.hub_models import hub_model


@dataclass(frozen=True)
class ModelFiles:
    """What a rehearsal needs to know of a model."""

    config: dict[str, Any]
    """The fields of its config.json."""
    tokenizer: str | Path
    """The kind of its tokenizer, or a folder with its files."""
    on_hub: bool
    """Whether the recipe names it by its name on the hub."""


def model_files(name: str, key: str, gguf: str | None = None) -> ModelFiles:
    """What is known of a model: from its folder, from the table of published configurations, or from the hub's cache.

    Args:
        name: its folder, or its name on the hub.
        key: the recipe key that named it, for messages.
        gguf: its GGUF file, if it is one.

    Raises:
        UserError: nothing is known of it, or a small model of its kind cannot be made.
    """
    if gguf is not None:
        raise UserError(f"`{key}`: a rehearsal makes no GGUF file; name the plain model, with `--set` and `gguf: null`")
    if (folder := named_folder(name)) is not None:
        found = ModelFiles(read_json(folder / "config.json") or {}, folder, on_hub=False)
    elif (published := hub_model(name)) is not None:
        found = ModelFiles(published.config, published.tokenizer, on_hub=True)
    elif isinstance(file := try_to_load_from_cache(name, "config.json"), str):
        found = ModelFiles(json.loads(Path(file).read_text(encoding="utf-8")), Path(file).parent, on_hub=True)
    else:
        raise UserError(
            f"`{key}`: the configuration of {name} is not known here; fetch it once (`hf download {name} --include "
            "'*.json'`), or name a folder"
        )
    if found.config.get("model_type") not in CONFIG_MAPPING or "text_config" in found.config:
        raise UserError(f"`{key}`: {name} is no plain language model by its config.json; a rehearsal cannot cut it")
    return found
