"""A model's folder: whether it holds a whole model, its fingerprint, and how it is written."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from potstill.errors import UserError, first_line
from potstill.files.atomic import atomic_folder, digest, read_json, sha256

ADAPTER = "adapter_config.json"

OTHER_WEIGHTS = {False: "pytorch_model*.bin", True: "adapter_model.bin"}
"""Weights that are no safetensors, of a model and of an adapter. They are not opened before they are loaded."""

PROVENANCE_FIELDS = ("_name_or_path", "transformers_version", "base_model_name_or_path", "peft_version")
"""Fields of a configuration that say where weights came from. They do not change what a model computes."""


def flaw(folder: Path) -> str | None:
    """Why a folder does not hold a whole model or adapter, in words that follow its name; None where it does.

    It opens safetensors but does not read their weights. A model has one file of weights, or an index and its parts.
    """
    if not folder.is_dir():
        return "is not there"
    what = _missing(folder)
    return None if what is None else f"is not a whole model: {what}"


def _missing(folder: Path) -> str | None:
    is_adapter = (folder / ADAPTER).is_file()
    wrong = flaw_of_config(folder / (ADAPTER if is_adapter else "config.json"))
    if wrong is not None:
        return wrong
    weights = folder / ("adapter_model.safetensors" if is_adapter else "model.safetensors")
    index = folder / f"{weights.name}.index.json"
    if index.is_file():
        return _missing_part(folder, index)
    if not weights.is_file() and any(folder.glob(OTHER_WEIGHTS[is_adapter])):
        return None
    return _flaw_of_weights(weights)


def flaw_of_config(file: Path) -> str | None:
    """Why a file is not a configuration, in words about its folder; None where it is."""
    if not file.is_file():
        return f"it has no {file.name}"
    return None if isinstance(_json_or_none(file), dict) else f"its {file.name} is not JSON"


def _missing_part(folder: Path, index: Path) -> str | None:
    content = _json_or_none(index)
    parts = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        return f"its {index.name} is not a whole index"
    flaws = (_flaw_of_weights(folder / name) for name in sorted(set(parts.values())))
    return next((wrong for wrong in flaws if wrong is not None), None)


def _json_or_none(file: Path) -> Any:
    try:
        return read_json(file)
    except UserError:
        return None


def _flaw_of_weights(file: Path) -> str | None:
    if not file.is_file():
        return f"it has no {file.name}"
    try:
        # It compares the file's length with the length in the file's header.
        with safe_open(file, "pt"):
            return None
    except (SafetensorError, OSError) as error:
        return f"its {file.name} is cut off ({first_line(error)})"


def tensor_count(folder: Path) -> int | None:
    """The number of tensors in a folder's safetensors, by their headers; None if it has none."""
    files = sorted(folder.glob("model*.safetensors"))
    count = 0
    for file in files:
        with safe_open(file, "pt") as content:
            count += len(content.keys())
    return count if files else None


def fingerprint(folder: Path) -> str:
    """The fingerprint of a model's folder by its content: a copy has the same.

    The fingerprint of an adapter does not cover the model that it is loaded on.
    """
    configs = {name: _json_or_none(folder / name) for name in ("config.json", ADAPTER) if (folder / name).is_file()}
    said = {
        name: {key: value for key, value in config.items() if key not in PROVENANCE_FIELDS}
        for name, config in configs.items()
        if isinstance(config, dict)
    }
    weights = {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}
    return digest({"weights": weights, "configs": said})


def save_model(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Write a model and its tokenizer as a Hugging Face folder. It gets its name only when it is whole."""
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
